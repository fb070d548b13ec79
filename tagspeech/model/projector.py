"""The projector of one stream.

Shape suffixes: B batch, T encoder frames (25 Hz), P projected frames (6.25 Hz), D encoder channels,
H hidden size of the LLM.
"""

from __future__ import annotations

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
