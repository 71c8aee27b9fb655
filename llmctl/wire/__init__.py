"""How providers speak: pure functions between canonical values and bytes. No sockets, no clocks, no environment."""
