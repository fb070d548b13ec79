"""The LLM: loading, making, adapters, sharding; its prompt and its layers."""
