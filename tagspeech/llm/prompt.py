"""The literal prompt of TagSpeech as token ids (docs/released-format.md).

    <|im_start|>user\\n<text>SEMANTIC</text>\\n<speaker>VOICE</speaker><|im_end|>\\n
    <|im_start|>assistant\\nTARGET<|im_end|>\\n

The turn markers are those of the LLM's family, always without a system turn.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import Any

from tagspeech.errors import InputError

# End of turn -> (opens the user's turn, opens the assistant's turn, follows its end in training).
# Known by the end-of-turn token, which no two families share.
FAMILIES: dict[str, tuple[list[str], list[str], str]] = {
    "<|im_end|>": (["<|im_start|>", "user\n"], ["\n", "<|im_start|>", "assistant\n"], "\n"),
    "<|eot_id|>": (
        ["<|begin_of_text|>", "<|start_header_id|>", "user", "<|end_header_id|>", "\n\n"],
        ["<|start_header_id|>", "assistant", "<|end_header_id|>", "\n\n"],
        "",
    ),
    "<end_of_turn>": (
        ["<bos>", "<start_of_turn>", "user\n"],
        ["\n", "<start_of_turn>", "model\n"],
        "\n",
    ),
}


@dataclass(frozen=True)
class Prompt:
    """The constant token ids around the two streams, and what closes an answer.

    before, between, after  ids before the semantic stream, between the streams, after the voice
    ending  the ids that close the assistant's turn in training; the first of them ends generation
    digits  ids of "0" ... "9", the rows that anchors are made of
    """

    before: list[int]
    between: list[int]
    after: list[int]
    ending: list[int]
    digits: list[int]


def encode_text(tokenizer: Any, text: str) -> list[int]:
    """Token ids of `text` as text: what looks like a special token is spelt out.

    Raises `InputError` for a tokenizer that cannot do so, or that has no token for a part of it.
    """
    ids: list[int] = tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids
    if set(ids) & set(tokenizer.all_special_ids):
        raise InputError(f"tokenizer of {tokenizer.name_or_path}: cannot spell {text!r}")
    return ids


def build_prompt(tokenizer: Any, voice: bool = True) -> Prompt:
    """The prompt in the chat format of the LLM that `tokenizer` belongs to.

    voice  whether there is a voice stream, with its tags

    Raises `InputError` when its turn markers are of no known family or a digit is no token.
    """
    vocabulary = tokenizer.get_vocab()
    end = next((marker for marker in FAMILIES if marker in vocabulary), None)
    if end is None:
        raise InputError(
            f"tokenizer of {tokenizer.name_or_path}: has none of the end-of-turn tokens "
            f"{', '.join(FAMILIES)}; name a chat model in llm.name"
        )
    missing = [digit for digit in "0123456789" if digit not in vocabulary]
    if missing:
        raise InputError(f"tokenizer of {tokenizer.name_or_path}: no token for {missing[0]!r}")
    markers = tokenizer.get_added_vocab()

    def ids(*pieces: str) -> list[int]:
        spelt = [
            [markers[piece]] if piece in markers else encode_text(tokenizer, piece)
            for piece in pieces
        ]
        return list(chain.from_iterable(spelt))

    user, assistant, trailer = FAMILIES[end]
    return Prompt(
        # Text up to a stream is one stretch to the tokenizer, as in the rendered prompt.
        before=ids(*user[:-1], user[-1] + "<text>"),
        between=ids("</text>\n<speaker>") if voice else [],
        after=ids("</speaker>" if voice else "</text>", end, *assistant),
        ending=ids(end, *([trailer] if trailer else [])),
        digits=[vocabulary[digit] for digit in "0123456789"],
    )
