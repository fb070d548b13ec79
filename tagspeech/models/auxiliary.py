"""Auxiliary losses: what shows a small LLM early where to look. None of them is in the paper.

`semantic_ctc` tells the semantic projector which frame means which word. `guided_attention` tells
single heads of the LLM where in its input the answer to the next token stands.

Shape suffixes: B batch, P projected frames, H hidden size and L positions of the LLM's input,
N queries, V vocabulary.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from tagspeech.models.prompt import encode_text

RANGE = re.compile(r"(\d+\.\d+)-(\d+\.\d+)")


def semantic_ctc(
    output: nn.Module, tokenizer: Any, blank: int, projected: list[Tensor], targets: Sequence[str]
) -> tuple[Tensor, int]:
    """CTC of the words through the LLM's own output embedding on semantic frames, (P, H) an item.

    Mean over the words' tokens, and their number. A target too long for its frames adds nothing.

    output  the LLM's output embedding
    blank   a token that no text has
    """
    words = [
        " ".join(line.partition(">")[2] for line in target.splitlines() if line[:1].isdigit())
        for target in targets
    ]
    ids = [encode_text(tokenizer, text) for text in words]
    tokens = max(1, sum(map(len, ids)))
    lens_B = torch.tensor([len(one) for one in projected])
    if not lens_B.any():  # torch refuses a batch without any frame
        return projected[0].sum(), tokens
    dtype = next(output.parameters()).dtype
    logits_BPV = output(pad_sequence(projected, batch_first=True).to(dtype))
    loss = nn.functional.ctc_loss(
        logits_BPV.float().log_softmax(-1).transpose(0, 1),
        torch.tensor(list(chain.from_iterable(ids)), dtype=torch.long),
        lens_B,
        torch.tensor([len(one) for one in ids]),
        blank=blank,
        reduction="sum",
        zero_infinity=True,
    )
    return loss / tokens, tokens


class Places(NamedTuple):
    """Where in the LLM's input an item's projected frames stand, and where its target begins."""

    semantic: list[int]
    voice: list[int]
    target: int


class Look(NamedTuple):
    """One position of item `item` that should look at others of the same item."""

    item: int
    query: int
    keys: list[int]


def guided_attention(
    attentions: Sequence[Tensor],
    layers: Sequence[int],
    places: Sequence[Places],
    targets: Sequence[str],
    tokenizer: Any,
    frames_per_second: tuple[float, float],
) -> dict[str, Tensor]:
    """How far four heads are from looking where the answer stands: -log of the attention there.

    attend_time   who is about to write a time of the text block looks at the frames around it
    attend_voice  the `>` behind a line's range looks at the voice frames in that range
    attend_line   a range in the speaker block looks at its line in the text block
    attend_next   it looks at the next line of the same speaker, the last one at its own line

    The last is how a speaker's lines are told from another's: by voices that match. Means over the
    batch; 0 where a batch has none.

    attentions         weights of each layer, (B, heads, L, L)
    layers             which three layers: of time and voice, of line, of next; counted from 0
    frames_per_second  of projected frames, semantic and voice
    """
    looks: dict[str, list[Look]] = {"time": [], "voice": [], "line": [], "next": []}
    for item, (place, target) in enumerate(zip(places, targets, strict=True)):
        for name, found in looks_of(item, place, target, tokenizer, frames_per_second).items():
            looks[name] += found
    first, second, third = layers
    heads = {"time": (first, 0), "voice": (first, -1), "line": (second, 0), "next": (third, 0)}
    losses = {}
    for name, (layer, head) in heads.items():
        own = [look for look in looks[name] if look.keys]
        weights_NL = attentions[layer][
            [look.item for look in own], head, [look.query for look in own]
        ].float()
        there_NL = torch.zeros_like(weights_NL)
        for row, look in enumerate(own):
            there_NL[row, look.keys] = 1.0
        mass_N = (weights_NL * there_NL).sum(-1)
        losses[f"attend_{name}"] = -(mass_N + 1e-4).log().sum() / max(1, len(own))
    return losses


def looks_of(
    item: int,
    place: Places,
    target: str,
    tokenizer: Any,
    frames_per_second: tuple[float, float],
) -> dict[str, list[Look]]:
    """What each position of one target should look at, by the name of the loss."""
    token = _tokens_by_character(tokenizer, target)
    text_end = target.index("</text>")
    found = RANGE.finditer(target, 0, text_end)
    lines = [line for line in found if target[line.start() - 1] == "\n"]

    def at(character: int) -> int:
        return place.target + token[character]

    def frames(start: float, end: float) -> tuple[list[int], list[int]]:
        """Semantic and voice frames between two times, one at least."""
        between = []
        for own, rate in zip((place.semantic, place.voice), frames_per_second, strict=True):
            first = min(max(0, math.floor(start * rate + 0.01)), max(0, len(own) - 1))
            between.append(own[first : max(first + 1, math.ceil(end * rate - 0.01))])
        return between[0], between[1]

    looks: dict[str, list[Look]] = {"time": [], "voice": [], "line": [], "next": []}
    for line in lines:
        start, end = float(line[1]), float(line[2])
        for before, time in ((line.start() - 1, start), (line.end(1), end)):
            around = list(chain(*frames(time - 0.2, time + 0.2)))
            looks["time"].append(Look(item, at(before), around))
        looks["voice"].append(Look(item, at(line.end()), frames(start, end)[1]))
    left: dict[str, list[int]] = {}
    for line in lines:
        left.setdefault(line[0], []).append(at(line.end()))
    for speaker in target[text_end:].splitlines(keepends=True):
        listed = list(RANGE.finditer(speaker))
        own = [left[one[0]].pop(0) for one in listed]
        for number, (one, here) in enumerate(zip(listed, own, strict=True)):
            last = number == len(own) - 1
            for query in [one.end() - 1] if last else [one.end() - 1, one.end()]:
                writing = at(text_end + query)
                looks["line"].append(Look(item, writing, [here]))
                looks["next"].append(Look(item, writing, [own[number + (not last)]]))
        text_end += len(speaker)
    return looks


def _tokens_by_character(tokenizer: Any, text: str) -> list[int]:
    """For each character of `text` the number of the token that holds it."""
    spans = tokenizer(
        text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True
    )["offset_mapping"]
    numbers = [0] * len(text)
    for number, (start, end) in enumerate(spans):
        numbers[start:end] = [number] * (end - start)
    return numbers
