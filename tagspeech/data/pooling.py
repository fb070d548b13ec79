"""Output units at each encoder frame, and the frames in which each segment has no overlap.

Shape suffixes: B batch, T encoder frames, D encoder channels, N segments, S speakers at a time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:  # encoders import this file, and need no Lhotse
    from lhotse import CutSet, SupervisionSegment

# An item of a batch, the number of one of its segments, and indices of encoder frames.
Region = tuple[int, int, list[int]]
MIN_AUDIO_SECONDS = 0.09  # audio that an encoder needs for its first frame


def frame_units(
    groups: CutSet, num_frames: int, frames_per_second: float, encode: Callable[[str], list[int]]
) -> Tensor:
    """The units spoken at each encoder frame, (B, num_frames, 2), from the word times of Lhotse.

    Of two active segments, the one that started first comes first. The units of a word share its
    time evenly; silence is unit 0. Ignored frames are -1: those of three or more segments, after
    the end of the group, and of segments without word times.
    """
    units_BTS = torch.full((len(groups), num_frames, 2), -1)
    for item, cut in enumerate(groups):
        units_TS = units_BTS[item, : round(cut.duration * frames_per_second)]
        units_TS[:] = 0
        active_segments_T = torch.zeros(len(units_TS), dtype=torch.long)
        for segment in sorted(cut.supervisions, key=lambda segment: segment.start):
            spoken_T = _segment_units(segment, len(units_TS), frames_per_second, encode)
            active_T = spoken_T != _SILENT
            for place in range(2):
                here_T = active_T & (active_segments_T == place)
                units_TS[here_T, place] = spoken_T[here_T]
            active_segments_T += active_T
        units_TS[active_segments_T > 2] = -1
    return units_BTS


_SILENT = -2  # outside a segment


def _segment_units(
    segment: SupervisionSegment,
    num_frames: int,
    frames_per_second: float,
    encode: Callable[[str], list[int]],
) -> Tensor:
    """The units of one segment, (num_frames,): 0 between words, -1 without word times."""

    def frames(start: float, end: float) -> slice:
        return slice(
            max(0, round(start * frames_per_second)), max(0, round(end * frames_per_second))
        )

    units_T = torch.full((num_frames,), _SILENT)
    words = (segment.alignment or {}).get("word", [])
    units_T[frames(segment.start, segment.end)] = 0 if words else -1
    for word in words:
        units = encode(word.symbol)
        bounds = np.linspace(word.start, word.end, len(units) + 1)
        for unit, start, end in zip(units, bounds, bounds[1:], strict=False):
            units_T[frames(start, end)] = unit
    return units_T


def frames_alone(
    turns: Sequence[tuple[float, float, Hashable]], frames_per_second: float
) -> list[list[int]]:
    """The encoder frames in which each turn (start, end, speaker) has no other speaker.

    A turn that is overlapped throughout has all its frames, one shorter than a frame has none.
    """
    spans = [
        range(max(0, round(start * frames_per_second)), round(end * frames_per_second))
        for start, end, _ in turns
    ]
    speakers: defaultdict[int, set[Hashable]] = defaultdict(set)
    for span, (_, _, speaker) in zip(spans, turns, strict=True):
        for frame in span:
            speakers[frame].add(speaker)
    return [[frame for frame in span if len(speakers[frame]) == 1] or list(span) for span in spans]


def clean_regions(groups: CutSet, frames_per_second: float) -> list[Region]:
    """The frames without overlap of each segment: (item, supervision, frame indices).

    Segments shorter than a frame are left out, as are groups too short for an encoder frame.
    """
    return [
        (item, index, frames)
        for item, cut in enumerate(groups)
        if cut.duration >= MIN_AUDIO_SECONDS
        for index, frames in enumerate(
            frames_alone([(s.start, s.end, s.speaker) for s in cut.supervisions], frames_per_second)
        )
        if frames
    ]


def region_frames(frames_BTD: Tensor, lens_B: Tensor, regions: list[Region]) -> list[Tensor]:
    """The frames of each region, (frames, D). Indices past the end mean the last frame."""
    return [
        frames_BTD[item, torch.tensor(frames).clamp(max=int(lens_B[item]) - 1)]
        for item, _, frames in regions
    ]


def pool_regions(frames_BTD: Tensor, lens_B: Tensor, regions: list[Region]) -> Tensor:
    """Mean frame of each region, (N, D). Indices past the end mean the last frame."""
    means = [frames_RD.mean(0) for frames_RD in region_frames(frames_BTD, lens_B, regions)]
    return torch.stack(means) if means else frames_BTD.new_zeros(0, frames_BTD.shape[-1])
