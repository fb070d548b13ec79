"""What the encoders give, and what the LLM reads of it.

Shape suffixes: B batch, T encoder frames, P projected frames, S stream positions, D encoder
channels, H hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, overload

import torch
from torch import Tensor


class Frames(NamedTuple):
    """Output of the two encoders: (B, T, D) each, valid lengths (B,).

    Lengths on the CPU are read without a wait for the device.
    """

    semantic: Tensor
    semantic_lens: Tensor
    voice: Tensor
    voice_lens: Tensor


@dataclass(frozen=True)
class Projected(Sequence[tuple[Tensor, Tensor]]):
    """Projected frames of a batch: as a sequence, those of both streams of each item, (P, H) each.

    Attributes:
        semantic_BPH: Frames of the semantic stream; what follows an item's length is no frame.
        semantic_lens: Of each item.
        voice_BPH: The same of the voice stream.
        voice_lens: The same.
    """

    semantic_BPH: Tensor
    semantic_lens: list[int]
    voice_BPH: Tensor
    voice_lens: list[int]

    def __len__(self) -> int:
        return len(self.semantic_lens)

    @overload
    def __getitem__(self, item: int) -> tuple[Tensor, Tensor]: ...
    @overload
    def __getitem__(self, item: slice) -> list[tuple[Tensor, Tensor]]: ...
    def __getitem__(self, item: int | slice) -> tuple[Tensor, Tensor] | list[tuple[Tensor, Tensor]]:
        if isinstance(item, slice):
            return [self[n] for n in range(*item.indices(len(self)))]
        return (
            self.semantic_BPH[item, : self.semantic_lens[item]],
            self.voice_BPH[item, : self.voice_lens[item]],
        )

    def rows(self) -> Tensor:
        """The frames of both streams, those that are none included, (N, H)."""
        return torch.cat([self.semantic_BPH.flatten(0, 1), self.voice_BPH.flatten(0, 1)])

    @property
    def num_rows(self) -> int:
        """N of `rows`."""
        return len(self) * (self.semantic_BPH.shape[1] + self.voice_BPH.shape[1])

    def row_numbers(self) -> list[tuple[range, range]]:
        """The places of both streams of each item in `rows`."""
        semantic, voice = self.semantic_BPH.shape[1], self.voice_BPH.shape[1]
        first = len(self) * semantic
        lens = zip(self.semantic_lens, self.voice_lens, strict=True)
        return [
            (
                range(item * semantic, item * semantic + of_semantic),
                range(first + item * voice, first + item * voice + of_voice),
            )
            for item, (of_semantic, of_voice) in enumerate(lens)
        ]


class Streams(NamedTuple):
    """Input streams of the LLM, anchors included: (B, S, H) each, zero after the lengths (B,)."""

    semantic: Tensor
    semantic_lens: Tensor
    voice: Tensor
    voice_lens: Tensor
