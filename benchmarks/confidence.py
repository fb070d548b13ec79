"""Compares the confidences of correct and wrong words of a decoded test set.

    python benchmarks/confidence.py egs/mini/exp/tagspeech/greedy

reads test.hyp.seglst.json and prints the number of correct and wrong words, the mean confidence of
both, and the share of pairs in which the correct word has the higher confidence (AUC, ties count
half). Words are aligned as for cpWER, so a word of the wrong speaker is wrong.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
from scipy.stats import rankdata

from tagspeech import formats
from tagspeech.scoring.alignment import GAP, align
from tagspeech.segments import Segment, by_time
from tagspeech.text import scoring_units


def by_session(path: Path) -> dict[str, list[Segment]]:
    sessions = defaultdict(list)
    for segment in formats.read(path):
        sessions[segment.session].append(segment)
    return sessions


def main() -> None:
    folder = Path(sys.argv[1])
    refs, hyps = (by_session(folder / f"test.{side}.seglst.json") for side in ("ref", "hyp"))
    correct: list[bool] = []
    confidences: list[float] = []
    for session, segments in hyps.items():
        values = defaultdict(list)
        for segment in by_time(segments):
            if scoring_units(segment.words, "en").split() != segment.words.split():
                raise SystemExit(f"{session}: words are not normalized: {segment.words!r}")
            values[segment.speaker] += segment.word_confidences or ()
        for pair in align(refs[session], segments, "en"):
            if pair.hyp is not None:
                correct += [ref == hyp for ref, hyp in pair.words if hyp != GAP]
                confidences += values[pair.hyp]
    is_correct, confidence = np.array(correct), np.array(confidences)
    count, total = int(is_correct.sum()), len(is_correct)
    ranks = rankdata(confidence)[is_correct].sum() - count * (count + 1) / 2
    print(
        f"{count} correct words {confidence[is_correct].mean():.3f}, "
        f"{total - count} wrong words {confidence[~is_correct].mean():.3f}, "
        f"AUC {ranks / (count * (total - count)):.3f}"
    )


if __name__ == "__main__":
    main()
