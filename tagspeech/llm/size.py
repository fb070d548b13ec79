"""The number of weights of a causal LM, reckoned from its config.json before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tagspeech.config import LLMConfig
from tagspeech.files import read_json
from tagspeech.packages.fetch import is_package

_KEYS = ("hidden_size", "num_hidden_layers", "intermediate_size", "vocab_size")


def llm_shape(llm: LLMConfig, offline: bool = False) -> dict[str, Any] | None:
    """The config.json of an LLM; None where none is to be had without loading the LLM.

    Args:
        llm: Names the LLM. Of one on the Hub only the config.json is downloaded.
        offline: Whether to use only what this machine has.
    """
    if not llm.name or is_package(llm.name):
        return None
    path = Path(llm.name) / "config.json"
    if path.is_file():
        return dict(read_json(path))
    if Path(llm.name).exists():
        return None
    from transformers import AutoConfig  # takes seconds

    try:
        found = AutoConfig.from_pretrained(
            llm.name, revision=llm.revision, local_files_only=offline
        )
    except (OSError, ValueError):
        return None  # loading the LLM says why
    return dict(found.to_dict())


def llm_weights(shape: Mapping[str, Any]) -> int | None:
    """The weights of a decoder like those of Llama and Qwen; None for one of another kind.

    A layer has four attention matrices, those of keys and values as narrow as their heads, and
    three of the feed-forward part. Biases and norms, 0.01 % of the whole, are left out.
    """
    if not all(isinstance(shape.get(key), int) for key in _KEYS):
        return None
    width, layers, inner, words = (shape[key] for key in _KEYS)
    heads = shape.get("num_attention_heads") or 1
    head = shape.get("head_dim") or width // heads
    narrow = (shape.get("num_key_value_heads") or heads) * head
    tables = 1 if shape.get("tie_word_embeddings") else 2
    layer = 2 * width * heads * head + 2 * width * narrow + 3 * width * inner
    return int(tables * words * width + layers * layer)


ACTIVATION = 44  # bytes that training keeps for a position, layer and channel of the LLM
ACTIVATIONS = 40e9  # bytes that a batch keeps at most, unless train.max_positions says otherwise


def default_positions(layers: int, width: int) -> int:
    """Positions of a batch whose activations take `ACTIVATIONS`: 9,000 for a 7 B LLM, which leaves
    room for its weights and those of the encoders on a GPU of 80 GB."""
    return int(ACTIVATIONS / (ACTIVATION * layers * width))
