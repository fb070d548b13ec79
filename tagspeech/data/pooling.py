"""What is said at each encoder frame, and the frames in which each segment is heard alone.

Shape suffixes: B batch, T encoder frames, D encoder channels, N segments, S speakers at a time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence

import numpy as np
import torch
from lhotse import CutSet, SupervisionSegment
from torch import Tensor

MIN_AUDIO_SECONDS = 0.09  # seconds of audio that give an encoder its first frame


def frame_units(
    groups: CutSet, num_frames: int, frames_per_second: float, encode: Callable[[str], list[int]]
) -> Tensor:
    """The units spoken at each encoder frame, (B, num_frames, 2), from the word times of Lhotse.

    First the unit of who of those talking began first, then that of who began next. A word's units
    share its time evenly; silence is unit 0. What does not count is -1: frames of three and more
    segments, frames behind the group, segments without word times.
    """
    units_BTS = torch.full((len(groups), num_frames, 2), -1)
    for item, cut in enumerate(groups):
        units_TS = units_BTS[item, : round(cut.duration * frames_per_second)]
        units_TS[:] = 0
        talking_T = torch.zeros(len(units_TS), dtype=torch.long)
        for one in sorted(cut.supervisions, key=lambda one: one.start):
            spoken_T = _segment_units(one, len(units_TS), frames_per_second, encode)
            active_T = spoken_T != _SILENT
            for place in range(2):
                here_T = active_T & (talking_T == place)
                units_TS[here_T, place] = spoken_T[here_T]
            talking_T += active_T
        units_TS[talking_T > 2] = -1
    return units_BTS


_SILENT = -2  # outside a segment


def _segment_units(
    segment: SupervisionSegment,
    num_frames: int,
    frames_per_second: float,
    encode: Callable[[str], list[int]],
) -> Tensor:
    """Unit of one segment at each frame, (num_frames,): 0 between words, -1 where unknown."""

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


def heard_alone(
    turns: Sequence[tuple[float, float, Hashable]], frames_per_second: float
) -> list[list[int]]:
    """The encoder frames in which each turn (start, end, speaker) is heard without other speakers.

    A turn that is overlapped throughout gives all its frames, one shorter than a frame none.
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


def clean_regions(groups: CutSet, frames_per_second: float) -> list[tuple[int, int, list[int]]]:
    """Where each segment is heard alone: (item, supervision, frame indices), in order.

    Segments shorter than a frame are left out, and groups of which an encoder has no frame.
    """
    return [
        (item, index, frames)
        for item, cut in enumerate(groups)
        if cut.duration >= MIN_AUDIO_SECONDS
        for index, frames in enumerate(
            heard_alone(
                [(one.start, one.end, one.speaker) for one in cut.supervisions], frames_per_second
            )
        )
        if frames
    ]


def pool_regions(
    frames_BTD: Tensor, lens_B: Tensor, regions: list[tuple[int, int, list[int]]]
) -> Tensor:
    """Mean of the encoder frames of each region: (N, D). A region beyond the end takes the last."""
    means = [
        frames_BTD[item, torch.tensor(frames).clamp(max=int(lens_B[item]) - 1)].mean(0)
        for item, _, frames in regions
    ]
    return torch.stack(means) if means else frames_BTD.new_zeros(0, frames_BTD.shape[-1])
