"""Target texts with wrong times and speakers, which teach an LLM to copy and to count.

The speaker block repeats the times of the text block. A small LLM tends to predict these times from
the audio again instead of copying them, so the blocks differ. If the text block has times that
disagree with the audio, only copying is right. In the same way a small LLM assigns lines to each
speaker from the audio, and some lines twice or never. If speakers are shuffled, only the ranges
written so far determine which lines are left.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import replace

from tagspeech.segments import Segment
from tagspeech.serialize import SPEAKER_BLOCK, to_target

MAX_SHIFT_SECONDS = 0.5  # maximum change of a start or an end
MIN_SEGMENT_SECONDS = 0.1  # minimum duration of a segment after a change
_TIME = re.compile(r"\d+\.\d\d")
_GENDER = re.compile(r' g="(\w)"')
_NEXT_RANGE = re.compile(r'[,"](?:\d+\.\d\d-)?')  # next in a list after the end of a range


def perturbed_target(
    segments: Sequence[Segment], time_grid: float, *, moved: bool = False, swapped: bool = False
) -> str:
    """Returns the target text of a group after random changes.

    A change that would alter lines, words, their order or the number of speakers is not made. Draws
    come from Python's generator, whose state checkpoints keep.

    Args:
        segments: Segments of the group.
        time_grid: Resolution of times, in seconds.
        moved: Move every start and end by up to `MAX_SHIFT_SECONDS`.
        swapped: Shuffle the speakers of the segments.
    """
    segments = list(segments)
    if swapped:
        speakers = [segment.speaker for segment in segments]
        random.shuffle(speakers)
        others = [
            replace(segment, speaker=speaker)
            for segment, speaker in zip(segments, speakers, strict=True)
        ]
        if _text_block(to_target(others, time_grid)) == _text_block(to_target(segments, time_grid)):
            segments = others
    if moved:
        others = [_move(segment) for segment in segments]
        target, other = (to_target(version, time_grid) for version in (segments, others))
        if _TIME.sub("", other) == _TIME.sub("", target):
            segments = others
    return to_target(segments, time_grid)


def _move(segment: Segment) -> Segment:
    start, end = (
        time + random.uniform(-MAX_SHIFT_SECONDS, MAX_SHIFT_SECONDS)
        for time in (segment.start, segment.end)
    )
    start = max(0.0, start)
    return replace(segment, start=start, end=max(end, start + MIN_SEGMENT_SECONDS))


def _text_block(target: str) -> str:
    return target.partition(SPEAKER_BLOCK)[0]


def scored_text(target: str, given: str) -> str:
    """Returns the labels for the input `given`: the text block of `target`, which the audio
    determines, and the speaker block of `given`, which copies the text block of `given`."""
    text_block, separator, _ = target.partition(SPEAKER_BLOCK)
    return text_block + separator + given.partition(SPEAKER_BLOCK)[2]


def unpredictable_spans(text: str) -> list[tuple[int, int]]:
    """Returns the character spans that cannot be predicted if speakers are swapped.

    They are genders, and the next start or the end of a speaker's list of ranges. A speaker's first
    range is predictable, as it is the first one left. The end of a range follows from its start,
    and the last speaker's list contains all ranges left.
    """
    text_block, separator, block = text.partition(SPEAKER_BLOCK)
    spans = []
    at = len(text_block) + len(separator)
    lines = block.splitlines(keepends=True)
    speakers = [line for line in lines if line.startswith("<spk ")]
    for line in lines:
        if line.startswith("<spk "):
            spans += [(at + match.start(1), at + match.end(1)) for match in _GENDER.finditer(line)]
            if line is not speakers[-1]:
                times = line.index(' t="') + len(' t="')
                spans += [
                    (at + match.start(), at + match.end())
                    for match in _NEXT_RANGE.finditer(line, times)
                ]
        at += len(line)
    return spans
