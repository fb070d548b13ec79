"""Drops streams and anchors in training (`drop`), so that the LLM learns to work without them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from tagspeech.config import DropConfig


class StreamDrops:
    """Draws from torch's generator, whose state checkpoints keep, unless a chance is 0."""

    def __init__(self, config: DropConfig) -> None:
        self.config = config

    def __call__(
        self, projected: Sequence[tuple[Any, Any]]
    ) -> tuple[list[tuple[Any, Any]], list[bool]]:
        """Returns both streams of each item, some empty, and whether items have anchors.

        Streams are whatever can be sliced: frames (P, H), or their row numbers.
        """
        config, count = self.config, len(projected)
        kept = [
            (semantic[:0] if no_semantic else semantic, voice[:0] if no_voice else voice)
            for (semantic, voice), (no_semantic, no_voice) in zip(
                projected, _draw(count, config.semantic, config.voice), strict=True
            )
        ]
        return kept, [not dropped for (dropped,) in _draw(count, config.anchors)]


def _draw(count: int, *chances: float) -> list[list[bool]]:
    """Whether each of `chances` happens to each of `count` items; a chance of 0 draws nothing."""
    drawn = iter(torch.rand(count * sum(chance > 0 for chance in chances)).tolist())
    return [[chance > 0 and next(drawn) < chance for chance in chances] for _ in range(count)]
