"""Aligns the words of reference and hypothesis speakers for display."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import kaldialign
import numpy as np
from scipy.optimize import linear_sum_assignment

from tagspeech.scoring.normalisers import OWN
from tagspeech.scoring.words import unit_rows
from tagspeech.segments import Segment, by_time

GAP = ""  # in place of a deleted or inserted word


class Pair(NamedTuple):
    """Two speakers paired by cpWER (None: unpaired) and their aligned words, with `GAP`."""

    ref: str | None
    hyp: str | None
    words: list[tuple[str, str]]


def align(
    ref: Sequence[Segment], hyp: Sequence[Segment], language: str, normaliser: str = OWN
) -> list[Pair]:
    """Pairs the speakers of one session with the fewest errors, in order of appearance.

    Each speaker is in exactly one pair. The number of differing words equals cpWER's errors.
    """
    refs, hyps = (_words(side, language, normaliser) for side in (ref, hyp))
    # Empty rows and columns let any speaker stay unpaired.
    rows = [*refs.items(), *[(None, [])] * len(hyps)]
    columns = [*hyps.items(), *[(None, [])] * len(refs)]
    costs = [[kaldialign.edit_distance(r, h)["total"] for _, h in columns] for _, r in rows]
    pairs = []
    for row, column in zip(*linear_sum_assignment(np.array(costs, ndmin=2)), strict=True):
        (ref_speaker, ref_words), (hyp_speaker, hyp_words) = rows[row], columns[column]
        if ref_speaker is not None or hyp_speaker is not None:
            words = kaldialign.align(ref_words, hyp_words, GAP)
            pairs.append(Pair(ref_speaker, hyp_speaker, words))
    return pairs


def _words(segments: Sequence[Segment], language: str, normaliser: str) -> dict[str, list[str]]:
    words: dict[str, list[str]] = {s.speaker: [] for s in by_time(list(segments))}
    for row in unit_rows(segments, language, normaliser):
        words[str(row["speaker"])] += str(row["words"]).split()
    return words
