"""Time anchors of a stream, in the forms that the paper compares (docs/paper.md).

    numeric      |1| frames |2| frames |3|            digits of the anchor's number
    text         |0.00| frames |1.28| frames |1.76|   the time, as the target text has it
    placeholder  |.| frames |.| frames |.|            one token, the same everywhere
    sinusoidal   frames + waves                       nothing between frames
    none         frames

Anchors are rows of the LLM's own embedding. Shape suffixes: P projected frames, S stream positions
(projected frames and anchors), H hidden size of the LLM.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from tagspeech.errors import InputError
from tagspeech.llm.prompt import Prompt, encode_text

FORMS = ("numeric", "text", "placeholder", "sinusoidal", "none")
PLACEHOLDER = "."
LONGEST_PERIOD = 10000.0  # frames times 2 pi, of the slowest wave (arXiv 1706.03762, section 3.5)


class Anchors:
    """The anchors of both streams, before the LLM's rows are known.

    Raises `InputError` for a form that is none of `FORMS`.
    """

    def __init__(self, form: str, tokenizer: Any, prompt: Prompt, time_grid: float) -> None:
        if form not in FORMS:
            raise InputError(f"prompt.anchors: wants one of {', '.join(FORMS)}, found {form!r}")
        self.form = form
        self.tokenizer = tokenizer
        self.digits = prompt.digits
        self.time_grid = time_grid

    def ids(self, number: int, seconds: float) -> list[int]:
        """The tokens of anchor `number`, which stands at `seconds`; of forms that have tokens."""
        if self.form == "numeric":
            return [self.digits[int(digit)] for digit in str(number)]
        on_grid = round(seconds / self.time_grid) * self.time_grid
        text = f"{on_grid:.2f}" if self.form == "text" else PLACEHOLDER
        return encode_text(self.tokenizer, text)

    def insert(
        self,
        frames_PH: Tensor,
        interval: int,
        frame_seconds: float,
        digits_10H: Tensor,
        embed: Callable[[Sequence[int]], Tensor],
    ) -> Tensor:
        """Projected frames (P, H) with their anchors: (S, H).

        interval       projected frames between two anchors
        frame_seconds  length of a projected frame
        digits_10H     the LLM's rows of "0" ... "9", and
        embed          those of any token ids
        """
        if self.form == "none":
            return frames_PH
        if self.form == "numeric":
            return insert_anchors(frames_PH, interval, digits_10H)
        if self.form == "sinusoidal":
            # As loud as numbers would be: the paper says no size.
            size = digits_10H.detach().float().square().mean().sqrt() * 2**0.5
            return frames_PH + (size * sinusoids(*frames_PH.shape).to(size)).to(frames_PH)

        def rows(number: int, frame: int) -> Tensor:
            return embed(self.ids(number, frame * frame_seconds))

        return insert_rows(frames_PH, interval, rows)

    def frame_positions(self, frames: int, interval: int, frame_seconds: float) -> list[int]:
        """Where in its stream, anchors included, each of `frames` projected frames stands."""
        if self.form in ("none", "sinusoidal"):
            return list(range(frames))

        def length(number: int, frame: int) -> int:
            return len(self.ids(number, frame * frame_seconds))

        return row_positions(frames, interval, length)


def sinusoids(frames: int, hidden: int) -> Tensor:
    """Waves of the position of each frame, sines and cosines in turn: (P, H), from -1 to 1."""
    positions_P1 = torch.arange(frames, dtype=torch.float)[:, None]
    periods = LONGEST_PERIOD ** (torch.arange(0, hidden, 2) / hidden)
    angles = positions_P1 / periods
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[:, :hidden]


def anchor_layout(frames: int, interval: int) -> list[int | tuple[int, int]]:
    """The order of anchors and frames in a stream of `frames` projected frames.

    An int n is anchor n; a pair (start, stop) is those frames. 16 frames at interval 8 give
    `1, (0, 8), 2, (8, 16), 3`; 9 give `1, (0, 8), 2, (8, 9), 3`; none give nothing.
    """
    layout: list[int | tuple[int, int]] = []
    for number, start in enumerate(range(0, frames, interval), 1):
        layout += [number, (start, min(start + interval, frames))]
    if frames:
        layout.append(-(-frames // interval) + 1)
    return layout


def row_positions(frames: int, interval: int, length: Callable[[int, int], int]) -> list[int]:
    """Where in its stream, anchors included, each of `frames` projected frames stands.

    length  how many positions anchor `number` takes, which stands behind so many frames

    3 frames at interval 2 stand at 1, 2, 4 if each anchor takes one: anchors are at 0, 3, 5.
    """
    positions: list[int] = []
    place = stop = 0
    for piece in anchor_layout(frames, interval):
        if isinstance(piece, int):
            place += length(piece, stop)
        else:
            start, stop = piece
            positions += range(place, place + stop - start)
            place += stop - start
    return positions


def insert_anchors(frames_PH: Tensor, interval: int, digits_10H: Tensor) -> Tensor:
    """Puts numeric anchors between projected frames: (P, H) -> (S, H).

    Anchor n is the digits of n, one row of `digits_10H` each (docs/paper.md).
    """

    def rows(number: int, _: int) -> Tensor:
        own = [int(digit) for digit in str(number)]
        return digits_10H[torch.tensor(own, device=digits_10H.device)]

    return insert_rows(frames_PH, interval, rows)


def insert_rows(frames_PH: Tensor, interval: int, rows: Callable[[int, int], Tensor]) -> Tensor:
    """Puts anchors between projected frames: (P, H) -> (S, H).

    rows  gives those of anchor `number`, which stands behind so many frames
    """
    pieces = [frames_PH[:0]]
    stop = 0
    for piece in anchor_layout(len(frames_PH), interval):
        if isinstance(piece, int):
            pieces.append(rows(piece, stop).to(frames_PH.dtype))
        else:
            start, stop = piece
            pieces.append(frames_PH[start:stop])
    return torch.cat(pieces)
