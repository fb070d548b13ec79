"""The literal prompt of TagSpeech as token ids (docs/released-format.md).

    <|im_start|>user\\n<text>SEMANTIC</text>\\n<speaker>VOICE</speaker><|im_end|>\\n
    <|im_start|>assistant\\nTARGET<|im_end|>\\n

The turn markers are those of the LLM's family; there is no system turn.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

from tagspeech.errors import InputError


class Family(NamedTuple):
    """Turn markers of an LLM family, as pieces: special tokens, and text between them.

    Attributes:
        user: Opens the user's turn.
        assistant: Follows the end of the user's turn and opens the assistant's.
        trailer: Text after the end of the assistant's turn in training.
    """

    user: list[str]
    assistant: list[str]
    trailer: str


# By the end-of-turn token, which differs between the families.
FAMILIES = {
    "<|im_end|>": Family(["<|im_start|>", "user\n"], ["\n", "<|im_start|>", "assistant\n"], "\n"),
    "<|eot_id|>": Family(
        ["<|begin_of_text|>", "<|start_header_id|>", "user", "<|end_header_id|>", "\n\n"],
        ["<|start_header_id|>", "assistant", "<|end_header_id|>", "\n\n"],
        "",
    ),
    "<end_of_turn>": Family(
        ["<bos>", "<start_of_turn>", "user\n"],
        ["\n", "<start_of_turn>", "model\n"],
        "\n",
    ),
}
# The tokens that the prompt takes from a tokenizer by name
MARKERS = {
    *FAMILIES,
    *(piece for family in FAMILIES.values() for piece in (*family.user[:-1], *family.assistant)),
}


@dataclass(frozen=True)
class Prompt:
    """The constant token ids around the two streams.

    Attributes:
        before: Ids before the semantic stream.
        between: Ids between the streams.
        after: Ids after the voice stream.
        ending: Ids that close the assistant's turn in training; the first one ends generation.
        digits: Ids of "0" ... "9", whose embeddings are the numeric anchors.
    """

    before: list[int]
    between: list[int]
    after: list[int]
    ending: list[int]
    digits: list[int]


def encode_text(tokenizer: Any, text: str) -> list[int]:
    """Token ids of `text`; strings that look like special tokens are encoded as plain text.

    Raises:
        InputError: The tokenizer cannot do so.
    """
    ids: list[int] = tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids
    if set(ids) & set(tokenizer.all_special_ids):
        raise InputError(f"tokenizer of {tokenizer.name_or_path}: cannot encode {text!r}")
    return ids


def build_prompt(tokenizer: Any, voice: bool = True) -> Prompt:
    """The prompt in the chat format of an LLM.

    Args:
        tokenizer: The LLM's.
        voice: Whether there is a voice stream, with its tags.

    Raises:
        InputError: The turn markers are of no known family, or a digit is not a token.
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
        encoded = [
            [markers[piece]] if piece in markers else encode_text(tokenizer, piece)
            for piece in pieces
        ]
        return list(chain.from_iterable(encoded))

    user, assistant, trailer = FAMILIES[end]
    return Prompt(
        # Text up to a stream is encoded in one piece, as in the rendered prompt.
        before=ids(*user[:-1], user[-1] + "<text>"),
        between=ids("</text>\n<speaker>") if voice else [],
        after=ids("</speaker>" if voice else "</text>", end, *assistant),
        ending=ids(end, *([trailer] if trailer else [])),
        digits=[vocabulary[digit] for digit in "0123456789"],
    )
