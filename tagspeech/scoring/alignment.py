"""Word by word: what a pair of speakers said and what was heard, to be looked at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import kaldialign
import numpy as np
from scipy.optimize import linear_sum_assignment

from tagspeech.scoring.words import unit_rows
from tagspeech.segments import Segment, by_time

NOTHING = ""  # stands where a word was deleted or inserted


class Pair(NamedTuple):
    """Two speakers that cpWER pairs, None for nobody; words of both, `NOTHING` for a gap."""

    ref: str | None
    hyp: str | None
    words: list[tuple[str, str]]


def align(ref: Sequence[Segment], hyp: Sequence[Segment], language: str) -> list[Pair]:
    """The speakers of one session in pairs of least errors, in order of appearance.

    Every speaker is in one pair. The words that differ are as many as cpWER's errors.
    """
    refs, hyps = _words(ref, language), _words(hyp, language)
    # A speaker may be paired with nobody: as many nobodies on either side as speakers on the other
    rows = [*refs.items(), *[(None, [])] * len(hyps)]
    columns = [*hyps.items(), *[(None, [])] * len(refs)]
    costs = [[kaldialign.edit_distance(r, h)["total"] for _, h in columns] for _, r in rows]
    pairs = []
    for row, column in zip(*linear_sum_assignment(np.array(costs, ndmin=2)), strict=True):
        (speaker, spoken), (other, heard) = rows[row], columns[column]
        if speaker is not None or other is not None:
            pairs.append(Pair(speaker, other, kaldialign.align(spoken, heard, NOTHING)))
    return pairs


def _words(segments: Sequence[Segment], language: str) -> dict[str, list[str]]:
    words: dict[str, list[str]] = {s.speaker: [] for s in by_time(list(segments))}
    for row in unit_rows(segments, language):
        words[str(row["speaker"])] += str(row["words"]).split()
    return words
