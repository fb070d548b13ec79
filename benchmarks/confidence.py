"""Whether wrong words are less sure than right ones: confidences of a decoded test set.

    python benchmarks/confidence.py egs/mini/exp/tagspeech/greedy

prints, of the words in test.hyp.seglst.json, how many are right, the mean confidence of right and
of wrong ones, and the share of pairs of both in which the right one is surer (AUC, ties half).
Words are paired as cpWER pairs them, so that a word given to the wrong speaker is wrong.
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
    right, sure = [], []
    for session, segments in hyps.items():
        values = defaultdict(list)
        for one in by_time(segments):
            if scoring_units(one.words, "en").split() != one.words.split():
                raise SystemExit(f"{session}: words are not those that are scored: {one.words!r}")
            values[one.speaker] += one.word_confidences or ()
        for pair in align(refs[session], segments, "en"):
            if pair.hyp is not None:
                heard = [(ref == hyp) for ref, hyp in pair.words if hyp != GAP]
                right += heard
                sure += values[pair.hyp]
    is_right, confidence = np.array(right), np.array(sure)
    count, total = int(is_right.sum()), len(is_right)
    ranks = rankdata(confidence)[is_right].sum() - count * (count + 1) / 2
    print(
        f"{count} right words {confidence[is_right].mean():.3f}, "
        f"{total - count} wrong ones {confidence[~is_right].mean():.3f}, "
        f"AUC {ranks / (count * (total - count)):.3f}"
    )


if __name__ == "__main__":
    main()
