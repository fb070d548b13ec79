"""Word errors of one session in overlapped and in single speech."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from meeteval.wer.wer.error_rate import ErrorRate

from tagspeech.scoring.alignment import GAP, align
from tagspeech.scoring.diarization import Stretch, turns
from tagspeech.scoring.words import unit_rows
from tagspeech.segments import Segment, word_times


def errors_by_overlap(
    ref: Sequence[Segment],
    hyp: Sequence[Segment],
    cpwer: ErrorRate,
    language: str,
    normaliser: str,
) -> dict[str, ErrorRate]:
    """Divides the errors of cpWER: they add up to `cpwer`.

    A reference word is overlapped if several reference speakers talk at its middle; so is an
    inserted word, by its own middle. Word times are estimated from the segment (`word_times`).

    Args:
        ref: Reference of the session.
        hyp: Hypothesis of the session.
        cpwer: Its cpWER.
        language: As for `unit_rows`.
        normaliser: As for `unit_rows`.

    Returns:
        "cpwer_overlap" and "cpwer_nonoverlap".
    """
    stretches = _overlapped(ref)
    if not stretches:  # saves the alignment
        kinds = (cpwer.insertions, cpwer.deletions, cpwer.substitutions)
        whole = ErrorRate(cpwer.errors, cpwer.length, *kinds, None, None)
        return {"cpwer_overlap": ErrorRate.zero(), "cpwer_nonoverlap": whole}
    sides = [_middles(side, language, normaliser) for side in (ref, hyp)]
    counts: dict[bool, dict[str, int]] = {True: defaultdict(int), False: defaultdict(int)}
    for pair in align(ref, hyp, language, normaliser):
        ref_times, hyp_times = (
            iter(times[speaker]) for times, speaker in zip(sides, pair[:2], strict=True)
        )
        for said, heard in pair.words:
            heard_at = next(hyp_times) if heard != GAP else 0.0
            when = next(ref_times) if said != GAP else heard_at
            is_overlapped = any(start <= when < end for start, end in stretches)
            part = counts[is_overlapped]
            part["length"] += said != GAP
            part["insertions"] += said == GAP
            part["deletions"] += heard == GAP
            part["substitutions"] += GAP not in (said, heard) and said != heard
    return {
        "cpwer_overlap": _rate(counts[True]),
        "cpwer_nonoverlap": _rate(counts[False]),
    }


def _rate(part: dict[str, int]) -> ErrorRate:
    kinds = [part[kind] for kind in ("insertions", "deletions", "substitutions")]
    return ErrorRate(sum(kinds), part["length"], *kinds, None, None)


def _overlapped(ref: Sequence[Segment]) -> list[Stretch]:
    """The stretches in which several speakers talk."""
    talk = turns(ref)[0]
    edges = sorted([(start, 1) for _, start, _ in talk] + [(end, -1) for *_, end in talk])
    stretches: list[Stretch] = []
    talking, begin = 0, 0.0
    for time, step in edges:
        if talking == 1 and step == 1:
            begin = time
        elif talking == 2 and step == -1 and time > begin:
            stretches.append((begin, time))
        talking += step
    return stretches


def _middles(
    segments: Sequence[Segment], language: str, normaliser: str
) -> defaultdict[str | None, list[float]]:
    """The middle of each word of each speaker in seconds, in the order of `align`."""
    middles: defaultdict[str | None, list[float]] = defaultdict(list)
    for row in unit_rows(segments, language, normaliser):
        start, end = float(row["start_time"]), float(row["end_time"])
        units = Segment("", "", start, end, str(row["words"]))
        middles[str(row["speaker"])] += [(a + b) / 2 for a, b in word_times(units)]
    return middles
