"""Time anchors of a stream, in the forms that the paper compares (docs/paper.md).

    numeric      |1| frames |2| frames |3|            digits of the anchor's number
    text         |0.00| frames |1.28| frames |1.76|   the time, as in the target text
    placeholder  |.| frames |.| frames |.|            the same token everywhere
    sinusoidal   frames + waves                       nothing between frames
    none         frames

A form is a module: its parameters are trained, saved and loaded with the model. The forms above
have none; their anchors are rows of the LLM's embedding.

Shape suffixes: P projected frames, A positions of an anchor, S stream positions (projected frames
and anchors), H hidden size of the LLM.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from tagspeech.errors import InputError
from tagspeech.llm.prompt import encode_text

LONGEST_PERIOD = 10000.0  # frames times 2 pi, of the slowest wave (arXiv 1706.03762, section 3.5)


@dataclass(frozen=True)
class AnchorSetup:
    """What a form of anchors is built from.

    Attributes:
        interval: Projected frames between two anchors.
        frame_seconds: Duration of a projected frame.
        time_grid: Seconds; the times of target texts are multiples of it.
        hidden_size: H.
        tokenizer: The LLM's.
        digits: Token ids of "0" ... "9".
    """

    interval: int
    frame_seconds: float
    time_grid: float
    hidden_size: int
    tokenizer: Any
    digits: Sequence[int]


def join(pieces: Sequence[Tensor]) -> Tensor:
    """Rows (N, H) one after the other, in the type of the first ones and on their device."""
    return torch.cat([piece.to(pieces[0]) for piece in pieces])


@dataclass(frozen=True)
class EmbeddingRows:
    """Rows of the LLM's input embedding: those of the ten digits, (10, H), and of any token ids."""

    digits_10H: Tensor
    of: Callable[[Sequence[int]], Tensor]

    def of_digits(self, digits: Sequence[int]) -> Tensor:
        """The rows of digits."""
        return self.digits_10H[torch.tensor(digits, device=self.digits_10H.device)]

    def join(self, pieces: Sequence[Tensor]) -> Tensor:
        """Rows one after the other; see `join`."""
        return join(pieces)


class NumberedRows:
    """Stands in for `EmbeddingRows` with row numbers instead of rows, so that a batch is put
    together by a single gather: rows 0 to `frames` are frames, those after them tokens.

    Args:
        frames: Number of rows that are frames.
        digits: Token ids of "0" ... "9".
    """

    def __init__(self, frames: int, digits: Sequence[int]) -> None:
        self.frames, self.digits = frames, digits
        self.ids: list[int] = []  # of the rows that are tokens

    def of(self, ids: Sequence[int]) -> Sequence[int]:
        """The row numbers of tokens, which are added."""
        self.ids += ids
        stop = self.frames + len(self.ids)
        return range(stop - len(ids), stop)

    def of_digits(self, digits: Sequence[int]) -> Sequence[int]:
        """The row numbers of digits."""
        return self.of([self.digits[digit] for digit in digits])

    def join(self, pieces: Sequence[Sequence[int]]) -> Sequence[int]:
        """All row numbers, one after the other."""
        return list(chain.from_iterable(pieces))


class Anchors(nn.Module):
    """Base of the forms.

    Attributes:
        are_tokens: `insert` does no more than put rows of tokens between frames, by the methods of
            `rows`; then it is called with `NumberedRows` in training.
    """

    are_tokens: ClassVar[bool] = False

    def __init__(self, setup: AnchorSetup) -> None:
        super().__init__()
        self.setup = setup

    def insert(self, frames_PH: Tensor, rows: EmbeddingRows) -> Tensor:
        """Projected frames (P, H) with their anchors, (S, H)."""
        return frames_PH

    def positions(self, frames: int) -> list[int]:
        """The position of each of `frames` projected frames in its stream, anchors included."""
        return list(range(frames))


class NoAnchors(Anchors):
    """Frames alone."""

    are_tokens = True


class AnchorsBetweenFrames(Anchors):
    """Base of the forms that put each anchor at positions of its own, between frames.

    Anchor `number` counts from 1 and stands after `frame` projected frames.
    """

    def anchor(self, number: int, frame: int, rows: EmbeddingRows) -> Tensor:
        """The rows of an anchor, (A, H)."""
        return rows.of(self.ids(number, frame))

    def length(self, number: int, frame: int) -> int:
        """A, the positions of an anchor."""
        return len(self.ids(number, frame))

    def ids(self, number: int, frame: int) -> Sequence[int]:
        """The tokens of an anchor, for forms whose anchors are tokens."""
        raise NotImplementedError

    def insert(self, frames_PH: Tensor, rows: EmbeddingRows) -> Tensor:
        pieces = [frames_PH[:0]]
        stop = 0
        for piece in anchor_layout(len(frames_PH), self.setup.interval):
            if isinstance(piece, int):
                pieces.append(self.anchor(piece, stop, rows))
            else:
                start, stop = piece
                pieces.append(frames_PH[start:stop])
        return rows.join(pieces)

    def positions(self, frames: int) -> list[int]:
        positions: list[int] = []
        place = stop = 0
        for piece in anchor_layout(frames, self.setup.interval):
            if isinstance(piece, int):
                place += self.length(piece, stop)
            else:
                start, stop = piece
                positions += range(place, place + stop - start)
                place += stop - start
        return positions


class NumericAnchors(AnchorsBetweenFrames):
    """The digits of the anchor's number, one row each (arXiv 2601.06896, time anchors)."""

    are_tokens = True

    def anchor(self, number: int, frame: int, rows: EmbeddingRows) -> Tensor:
        return rows.of_digits([int(digit) for digit in str(number)])

    def length(self, number: int, frame: int) -> int:
        return len(str(number))


class TextAnchors(AnchorsBetweenFrames):
    """The anchor's time in seconds, rounded to the time grid, as the target text writes it."""

    are_tokens = True

    def ids(self, number: int, frame: int) -> Sequence[int]:
        grid = self.setup.time_grid
        seconds = round(frame * self.setup.frame_seconds / grid) * grid
        return encode_text(self.setup.tokenizer, f"{seconds:.2f}")


class PlaceholderAnchors(AnchorsBetweenFrames):
    """A full stop for every anchor."""

    are_tokens = True

    def ids(self, number: int, frame: int) -> Sequence[int]:
        return encode_text(self.setup.tokenizer, ".")


class SinusoidalAnchors(Anchors):
    """Waves added to all frames, as large as the LLM's digits: the paper gives no size."""

    def insert(self, frames_PH: Tensor, rows: EmbeddingRows) -> Tensor:
        size = rows.digits_10H.detach().float().square().mean().sqrt() * 2**0.5
        return frames_PH + (size * sinusoids(*frames_PH.shape).to(size)).to(frames_PH)


ANCHORS: dict[str, type[Anchors]] = {
    "numeric": NumericAnchors,
    "text": TextAnchors,
    "placeholder": PlaceholderAnchors,
    "sinusoidal": SinusoidalAnchors,
    "none": NoAnchors,
}


def build_anchors(form: str, setup: AnchorSetup) -> Anchors:
    """The anchors of a stream. Raises `InputError` for a form that is not a row of `ANCHORS`."""
    if form not in ANCHORS:
        raise InputError(f"prompt.anchors: must be one of {', '.join(ANCHORS)}, got {form!r}")
    return ANCHORS[form](setup)


def sinusoids(frames: int, hidden: int) -> Tensor:
    """Waves of the position of each frame, (P, H), from -1 to 1; sines and cosines alternate."""
    positions_P1 = torch.arange(frames, dtype=torch.float)[:, None]
    periods = LONGEST_PERIOD ** (torch.arange(0, hidden, 2) / hidden)
    angles = positions_P1 / periods
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[:, :hidden]


def anchor_layout(frames: int, interval: int) -> list[int | tuple[int, int]]:
    """The order of anchors and frames in a stream of `frames` projected frames.

    An int n is anchor n, a pair (start, stop) a range of frames. 16 frames at interval 8 are
    `1, (0, 8), 2, (8, 16), 3`; 9 are `1, (0, 8), 2, (8, 9), 3`; 0 frames have no anchor.
    """
    layout: list[int | tuple[int, int]] = []
    for number, start in enumerate(range(0, frames, interval), 1):
        layout += [number, (start, min(start + interval, frames))]
    if frames:
        layout.append(-(-frames // interval) + 1)
    return layout
