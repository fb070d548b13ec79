"""Targets whose times are moved: what teaches an LLM to copy them, whatever it hears.

Between audio and text block a small LLM finds a time twice: it may hear the range of a line again
where it should copy it into the speaker block, and then the blocks differ. Where the LLM is given
other times than it hears, only copying is right.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import replace

from tagspeech.segments import Segment
from tagspeech.serialize import SPEAKER_BLOCK, to_target

FURTHEST = 0.5  # seconds by which a start or an end is moved
SHORTEST = 0.1  # seconds that stay of a segment
_TIME = re.compile(r"\d+\.\d\d")


def move_times(segments: Sequence[Segment], time_grid: float) -> str:
    """The target text of a group with every start and end moved at random.

    Lines, words and speakers stay as they are, in their order: where the new times would change
    it, none is moved. Draws come from Python's generator, whose state checkpoints keep.
    """
    moved = []
    for segment in segments:
        start, end = (
            time + random.uniform(-FURTHEST, FURTHEST) for time in (segment.start, segment.end)
        )
        start = max(0.0, start)
        moved.append(replace(segment, start=start, end=max(end, start + SHORTEST)))
    target, other = (to_target(list(one), time_grid) for one in (segments, moved))
    return other if _TIME.sub("", other) == _TIME.sub("", target) else target


def scored_text(target: str, given: str) -> str:
    """What is to be written where `given` is read: the text block of `target`, heard, and the
    speaker block of `given`, copied."""
    heard, begin, _ = target.partition(SPEAKER_BLOCK)
    return heard + begin + given.partition(SPEAKER_BLOCK)[2]
