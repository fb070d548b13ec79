"""Files that transformers 5 writes, in the words of transformers 4, which the authors' code uses.

Both read the result; of what is left out here the older one would complain, or take a default and
say nothing.
"""

from __future__ import annotations

from typing import Any


def older_llm_config(tree: dict[str, Any]) -> dict[str, Any]:
    """An LLM's config.json with the names of the rotary base and of the type of its weights."""
    rope = dict(tree.get("rope_parameters") or {})
    if "rope_theta" in rope:
        theta = rope.pop("rope_theta")
        plain = rope.get("rope_type", "default") == "default"
        tree = {**tree, "rope_theta": theta, "rope_scaling": None if plain else rope}
    return {**tree, "torch_dtype": tree.get("dtype")}


def older_tokenizer_config(tree: dict[str, Any]) -> dict[str, Any]:
    """A tokenizer_config.json with the names of the special tokens and of the plain backend."""
    tree = dict(tree)
    if isinstance(tree.get("extra_special_tokens"), list):
        tree["additional_special_tokens"] = tree.pop("extra_special_tokens")
    if tree.get("tokenizer_class") == "TokenizersBackend":
        tree["tokenizer_class"] = "PreTrainedTokenizerFast"
    return tree
