"""What the encoders give, and what the LLM reads of it.

Shape suffixes: B batch, T encoder frames, S stream positions, D encoder channels, H hidden size.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Frames(NamedTuple):
    """Output of the two encoders: (B, T, D) each, valid lengths (B,)."""

    semantic: Tensor
    semantic_lens: Tensor
    voice: Tensor
    voice_lens: Tensor


class Streams(NamedTuple):
    """Input streams of the LLM, anchors included: (B, S, H) each, zero after the lengths (B,)."""

    semantic: Tensor
    semantic_lens: Tensor
    voice: Tensor
    voice_lens: Tensor
