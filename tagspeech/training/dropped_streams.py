"""Drops streams and anchors in training (`drop`), so that the LLM learns to work without them."""

from __future__ import annotations

import torch
from torch import Tensor

from tagspeech.config import DropConfig


class StreamDrops:
    """Draws from torch's generator, whose state checkpoints keep, unless a chance is 0."""

    def __init__(self, config: DropConfig) -> None:
        self.config = config

    def __call__(
        self, projected: list[tuple[Tensor, Tensor]]
    ) -> tuple[list[tuple[Tensor, Tensor]], list[bool]]:
        """Returns both streams of each item, (P, H), some empty, and whether items have anchors."""
        config = self.config
        kept = [
            (
                semantic[:0] if _happens(config.semantic) else semantic,
                voice[:0] if _happens(config.voice) else voice,
            )
            for semantic, voice in projected
        ]
        return kept, [not _happens(config.anchors) for _ in projected]


def _happens(chance: float) -> bool:
    return chance > 0 and torch.rand(()).item() < chance
