"""Windows that overlap hear the same words twice: where one hands over to the next.

    window 1   ... the report was not |ready on friday
    window 2             report wasn't|ready on friday and who ...
                                      seam

In the overlap the words of both are aligned; the seam lies before the pair of equal words that is
nearest to the middle, or at the middle where no word is equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import kaldialign
import numpy as np

from tagspeech.inference.recognizer import WindowResult
from tagspeech.segments import Segment, word_times

NOTHING = ""  # stands where a word has no partner


class _Word(NamedTuple):
    time: float  # of its middle
    start: float
    text: str


def join(results: Sequence[WindowResult]) -> list[WindowResult]:
    """The windows of a recording, in order, without what two of them heard twice.

    Word times are estimates, a segment's time spread over its characters. A segment across a seam
    is cut there: its parts end and begin at the same time, so that `mend` can put them together.
    """
    joined: list[WindowResult] = []
    for window in results:
        if joined and joined[-1].end > window.start:
            before = joined[-1]
            at = _seam(before, window)
            joined[-1] = _part(before, before.start, at)
            window = _part(window, at, window.end)
        joined.append(window)
    return joined


def mend(segments: Sequence[Segment]) -> list[Segment]:
    """Segments of one speaker of which one begins when the other ends are one segment."""
    mended: list[Segment] = []
    open_ended: dict[tuple[str, float], int] = {}  # speaker and end, place in `mended`
    for one in segments:
        place = open_ended.pop((one.speaker, one.start), None)
        if place is None:
            place = len(mended)
            mended.append(one)
        else:
            first = mended[place]
            sure = (
                None
                if first.word_confidences is None or one.word_confidences is None
                else first.word_confidences + one.word_confidences
            )
            words = f"{first.words} {one.words}".strip()
            mended[place] = replace(first, end=one.end, words=words, word_confidences=sure)
        open_ended[one.speaker, one.end] = place
    return mended


def _seam(before: WindowResult, after: WindowResult) -> float:
    middle = (after.start + before.end) / 2
    left, right = (
        [one for one in _words(window.segments) if after.start <= one.time <= before.end]
        for window in (before, after)
    )
    pairs = kaldialign.align([one.text for one in left], [one.text for one in right], NOTHING)
    times: list[float] = []
    places = [0, 0]
    for first, second in pairs:
        if first == second:
            starts = left[places[0]].start, right[places[1]].start
            times.append(sum(starts) / 2)
        places[0] += first != NOTHING
        places[1] += second != NOTHING
    nearest: float = min(times, key=lambda time: abs(time - middle), default=middle)
    return round(nearest, 3)


def _words(segments: Sequence[Segment]) -> list[_Word]:
    found = [word for one in segments for word in _words_of(one)]
    return sorted(found, key=lambda word: word.time)


def _words_of(segment: Segment) -> list[_Word]:
    return [
        _Word((start + end) / 2, start, word)
        for (start, end), word in zip(word_times(segment), segment.words.split(), strict=True)
    ]


def _part(window: WindowResult, start: float, end: float) -> WindowResult:
    """What of a window lies between two times: words by their middle, segments cut."""
    segments, kept = [], []
    for number, one in enumerate(window.segments):
        inside = [start <= word.time < end for word in _words_of(one)]
        begins, ends = max(one.start, start), min(one.end, end)
        if not any(inside) or begins >= ends:
            continue
        words = [word for word, here in zip(one.words.split(), inside, strict=True) if here]
        sure = one.word_confidences
        if sure is not None:
            sure = tuple(value for value, here in zip(sure, inside, strict=True) if here)
        segments.append(
            replace(one, start=begins, end=ends, words=" ".join(words), word_confidences=sure)
        )
        kept.append(number)
    vectors_ND = window.vectors[np.array(kept, dtype=int)]
    return WindowResult(start, end, tuple(segments), vectors_ND)
