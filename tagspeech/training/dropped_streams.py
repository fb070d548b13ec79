"""Streams that are empty and items without anchors, in training only (`drop`).

The LLM learns to do without what a recording, or another way of prompting it, does not give.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tagspeech.config import DropConfig


class StreamDrops:
    """Draws from torch's generator, whose state checkpoints keep; not where a chance is 0."""

    def __init__(self, config: DropConfig) -> None:
        self.config = config

    def __call__(
        self, projected: list[tuple[Tensor, Tensor]]
    ) -> tuple[list[tuple[Tensor, Tensor]], list[bool]]:
        """Both streams of each item, (P, H), some of them empty; and which items have anchors."""
        config = self.config
        heard = [
            (
                semantic[:0] if _happens(config.semantic) else semantic,
                voice[:0] if _happens(config.voice) else voice,
            )
            for semantic, voice in projected
        ]
        return heard, [not _happens(config.anchors) for _ in projected]


def _happens(chance: float) -> bool:
    return chance > 0 and torch.rand(()).item() < chance
