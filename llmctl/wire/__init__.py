"""How providers speak: pure functions between canonical values and bytes. No sockets, no clocks, no environment."""

PROTOCOLS: dict[str, str] = {
    "openai": "llmctl.wire.openai_chat",
    "azure": "llmctl.wire.azure",
    "anthropic": "llmctl.wire.anthropic",
    "gemini": "llmctl.wire.gemini",
    "bedrock": "llmctl.wire.bedrock",
}
"""Protocol name (the `protocol` key of a provider) -> the module that speaks it."""
