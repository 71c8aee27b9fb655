"""How a call happens: the sockets, the clocks, the credentials, and the engine that drives the call machine."""
