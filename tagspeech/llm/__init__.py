"""The LLM: loaded, new, with adapters, in shares; its prompt and its layers."""
