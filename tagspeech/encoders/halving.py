"""Encoding a batch in halves where memory does not suffice for all of it.

Shape suffixes: B batch, T frames, F bins, D channels.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from tagspeech.encoders.stream import StreamEncoder
from tagspeech.errors import InputError, is_out_of_memory

log = logging.getLogger(__name__)

FRAME = 0.01  # seconds of a feature frame


def encode(
    encoder: StreamEncoder,
    features_BTF: Tensor,
    lens_B: Tensor,
    names: Sequence[str] = (),
    learns: bool = False,
) -> tuple[Tensor, Tensor]:
    """Frames (B, T, D) and lengths (B,) of features, of as many items at a time as memory allows.

    Args:
        encoder: Semantic or voice.
        features_BTF: 100 frames a second.
        lens_B: Their lengths.
        names: Of the items, for the error.
        learns: Whether gradients are computed, if they are enabled: then of the whole batch.

    Raises:
        InputError: Memory does not suffice for a single item.
    """
    frames: tuple[Tensor, Tensor]
    if learns and torch.is_grad_enabled():
        frames = encoder(features_BTF, lens_B)
        return frames
    try:
        with torch.no_grad():
            frames = encoder(features_BTF, lens_B)
        return frames
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        if len(lens_B) == 1:
            seconds = FRAME * features_BTF.shape[1]
            raise InputError(
                f"{names[0] if names else 'an item of the batch'}: {seconds:.0f} s at once take "
                f"more memory than {features_BTF.device} has for an encoder; use shorter windows "
                "or groups, or a device with more memory"
            ) from error
    half = len(lens_B) // 2
    log.warning("out of memory encoding %d items at a time; continuing with %d", len(lens_B), half)
    parts = [
        encode(encoder, features_BTF[part, : int(lens_B[part].max())], lens_B[part], names[part])
        for part in (slice(0, half), slice(half, None))
    ]
    longest = max(frames_BTD.shape[1] for frames_BTD, _ in parts)
    padded = [pad(x_BTD, (0, 0, 0, longest - x_BTD.shape[1])) for x_BTD, _ in parts]
    return torch.cat(padded), torch.cat([part_lens_B for _, part_lens_B in parts])
