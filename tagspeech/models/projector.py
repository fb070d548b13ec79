"""The projector of one stream, and the time anchors put between its frames.

Shape suffixes: B batch, T encoder frames (25 Hz), P projected frames (6.25 Hz), S stream positions
(projected frames and anchors), D encoder channels, H hidden size of the LLM.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


class Projector(nn.Module):
    """Stack `stack` frames, Linear, ReLU, Linear (docs/paper.md): (B, T, D) -> (B, P, H).

    P = T // stack: frames of a last, incomplete stack are dropped.
    """

    def __init__(self, encoder_dim: int, hidden_size: int, stack: int) -> None:
        super().__init__()
        self.stack = stack
        self.linear1 = nn.Linear(encoder_dim * stack, hidden_size)
        self.linear2 = nn.Linear(hidden_size, hidden_size)

    def forward(self, frames_BTD: Tensor) -> Tensor:
        batch, frames, channels = frames_BTD.shape
        count = frames // self.stack
        stacked = frames_BTD[:, : count * self.stack].reshape(batch, count, channels * self.stack)
        return self.linear2(torch.relu(self.linear1(stacked)))


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
