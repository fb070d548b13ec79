"""Configuration files of transformers 5 with the keys of transformers 4, for the authors' code.

Both versions read the result. Version 4 would fail at the files of version 5, or silently use
defaults.
"""

from __future__ import annotations

from typing import Any


def older_llm_config(tree: dict[str, Any]) -> dict[str, Any]:
    """An LLM's config.json with the old keys of the rotary base and of the dtype."""
    rope = dict(tree.get("rope_parameters") or {})
    if "rope_theta" in rope:
        theta = rope.pop("rope_theta")
        plain = rope.get("rope_type", "default") == "default"
        tree = {**tree, "rope_theta": theta, "rope_scaling": None if plain else rope}
    return {**tree, "torch_dtype": tree.get("dtype")}


def older_tokenizer_config(tree: dict[str, Any]) -> dict[str, Any]:
    """A tokenizer_config.json with the old keys of special tokens and of the plain backend."""
    tree = dict(tree)
    if isinstance(tree.get("extra_special_tokens"), list):
        tree["additional_special_tokens"] = tree.pop("extra_special_tokens")
    if tree.get("tokenizer_class") == "TokenizersBackend":
        tree["tokenizer_class"] = "PreTrainedTokenizerFast"
    return tree
