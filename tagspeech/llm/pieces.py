"""Words in short pieces: tokens of an LLM that its tokenizer has joined from few letters only."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tagspeech.errors import InputError


def piece_encoder(tokenizer: Any, merges: int) -> Callable[[str], list[int]]:
    """Returns a function that encodes text with the first merges of a tokenizer alone.

    A byte-pair encoding joins letters to ever longer tokens, the most frequent first; each step is
    a token of its vocabulary. Stopped early, it spells rare words in pieces that are frequent.

    Args:
        tokenizer: The LLM's tokenizer, of the library `tokenizers`.
        merges: How many of its merges count.

    Raises:
        InputError: The tokenizer is not a byte-pair encoding.
    """
    from tokenizers import Tokenizer

    backend = getattr(tokenizer, "backend_tokenizer", None)
    tree = json.loads(backend.to_str()) if backend is not None else {"model": {}}
    model: dict[str, Any] = tree["model"]
    if model.get("type") != "BPE":
        raise InputError(
            f"loss.semantic_merges: must be 0, the tokenizer of {tokenizer.name_or_path} is not a "
            "byte-pair encoding"
        )
    model["merges"], model["ignore_merges"] = model["merges"][:merges], False
    pieces = Tokenizer.from_str(json.dumps(tree))

    def encode(text: str) -> list[int]:
        ids: list[int] = pieces.encode(text, add_special_tokens=False).ids
        return ids

    return encode
