"""Targets with other times and speakers than a group has: they teach an LLM to copy and to count.

Between audio and text block a small LLM finds a time twice: it may hear the range of a line again
where it should copy it into the speaker block, and then the blocks differ. Where the LLM is given
other times than it hears, only copying is right. Nor does it see at first that each line has one
speaker: it hears for each speaker anew which lines are his. Where lines are given to other speakers
than it hears, only what is written already tells which lines are left.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import replace

from tagspeech.segments import Segment
from tagspeech.serialize import SPEAKER_BLOCK, to_target

MAX_SHIFT_SECONDS = 0.5  # seconds by which a start or an end is moved
MIN_SEGMENT_SECONDS = 0.1  # seconds that stay of a segment
_TIME = re.compile(r"\d+\.\d\d")
_GENDER = re.compile(r' g="(\w)"')
_NEXT_RANGE = re.compile(r'[,"](?:\d+\.\d\d-)?')  # what follows the end of a range


def perturbed_target(
    segments: Sequence[Segment], time_grid: float, *, moved: bool = False, swapped: bool = False
) -> str:
    """The target text of a group with every start and end moved at random, its lines handed to each
    other's speakers, or both.

    Lines and words stay as they are, in their order, and so does the number of speakers: where a
    change would not leave them so, it is not made. Draws come from Python's generator, whose state
    checkpoints keep.
    """
    segments = list(segments)
    if swapped:
        speakers = [one.speaker for one in segments]
        random.shuffle(speakers)
        others = [
            replace(one, speaker=speaker) for one, speaker in zip(segments, speakers, strict=True)
        ]
        if _text_block(to_target(others, time_grid)) == _text_block(to_target(segments, time_grid)):
            segments = others
    if moved:
        others = [_move(one) for one in segments]
        target, other = (to_target(one, time_grid) for one in (segments, others))
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
    """What is to be written where `given` is read: the text block of `target`, heard, and the
    speaker block of `given`, copied."""
    heard, begin, _ = target.partition(SPEAKER_BLOCK)
    return heard + begin + given.partition(SPEAKER_BLOCK)[2]


def unpredictable_spans(text: str) -> list[tuple[int, int]]:
    """Where in a target text with swapped speakers nothing before tells what comes.

    Spans of characters: genders, and whether and with which start a speaker's list goes on. His
    first range is told, it is the first that is left; so is every end, by its start; and so is
    the list of the last speaker, who has what is left.
    """
    before, begin, block = text.partition(SPEAKER_BLOCK)
    spans = []
    at = len(before) + len(begin)
    lines = block.splitlines(keepends=True)
    speakers = [line for line in lines if line.startswith("<spk ")]
    for line in lines:
        if line.startswith("<spk "):
            spans += [(at + one.start(1), at + one.end(1)) for one in _GENDER.finditer(line)]
            if line is not speakers[-1]:
                times = line.index(' t="') + len(' t="')
                spans += [
                    (at + one.start(), at + one.end()) for one in _NEXT_RANGE.finditer(line, times)
                ]
        at += len(line)
    return spans
