"""Who spoke when, of one session: DER by spy-der, and gender over the time it matches."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import spyder

from tagspeech.segments import Segment, by_time

Turn = tuple[str, float, float]  # speaker, start, end
Stretch = tuple[float, float]  # start, end of a part of a recording

# spy-der ends the process with a fault when the reference is empty, and gives a rate of 0/0 when
# the collar covers all of it. A second of speech that both sides share, beyond everything else,
# keeps both away; it is taken out of the result again.
PAD_GAP, PAD_SECONDS = 1.0, 1.0
# Who speaks it, by the part of the time that is scored: all of it, or where the reference has
# several speakers at once, or where it has one or none.
PAD_SPEAKERS = {"all": ("\0",), "overlap": ("\0", "\1"), "nonoverlap": ("\0",)}
# Name: collar (seconds on each side of a boundary), region.
DER_KINDS = {
    "der": (0.0, "all"),
    "der_overlap": (0.0, "overlap"),
    "der_nonoverlap": (0.0, "nonoverlap"),
    "der_collar_025": (0.25, "all"),
}
# spy-der merges turns of one speaker that touch; this keeps them apart, and is lost in rounding.
GAP = 1e-9


@dataclass(frozen=True)
class Diarization:
    """Seconds of speech, each counted once per speaker talking.

    scored  reference speech outside the collar
    mapping  hypothesis speaker -> reference speaker, of least confusion
    """

    scored: float = 0.0
    missed: float = 0.0
    false_alarm: float = 0.0
    confusion: float = 0.0
    mapping: dict[str, str] = field(default_factory=dict)

    @property
    def errors(self) -> float:
        """Seconds."""
        return self.missed + self.false_alarm + self.confusion

    def __add__(self, other: Diarization) -> Diarization:
        """Adds the seconds; speakers of different sessions have no common mapping."""
        return Diarization(
            self.scored + other.scored,
            self.missed + other.missed,
            self.false_alarm + other.false_alarm,
            self.confusion + other.confusion,
        )


def turns(segments: Sequence[Segment]) -> tuple[list[Turn], int]:
    """Turns with each speaker's overlaps with himself merged, and how many segments overlapped."""
    merged: dict[str, list[Turn]] = defaultdict(list)
    overlaps = 0
    for segment in by_time(list(segments)):
        if segment.start == segment.end:
            continue  # nobody talks for any time, as in md-eval
        own = merged[segment.speaker]
        if own and segment.start < own[-1][2]:
            overlaps += 1
            _, start, end = own.pop()
            own.append((segment.speaker, start, max(end, segment.end)))
        else:
            own.append((segment.speaker, segment.start, segment.end))
    return [turn for own in merged.values() for turn in own], overlaps


def diarization_kinds(
    ref: Sequence[Segment], hyp: Sequence[Segment], uem: Sequence[Stretch] | None
) -> dict[str, Diarization]:
    """DER's parts of each of `DER_KINDS`, of the segments of one session."""
    # As they are, also where a speaker overlaps with himself: each boundary has its collar
    spoken, heard = ([(s.speaker, s.start, s.end) for s in side] for side in (ref, hyp))
    return {key: diarization(spoken, heard, *kind, uem=uem) for key, kind in DER_KINDS.items()}


def diarization(
    ref: Sequence[Turn],
    hyp: Sequence[Turn],
    collar: float,
    region: str = "all",
    uem: Sequence[Stretch] | None = None,
) -> Diarization:
    """DER's parts over a region, one of `PAD_SPEAKERS`; "all" includes overlapped speech.

    `collar` < 0.5 seconds on EACH side of every boundary in `ref` are not scored, as md-eval-22
    does: 0.25 takes out 0.5 s per boundary, also where two turns of one speaker touch or overlap.
    `uem` has the stretches to score, which do not overlap. Without it the scored stretch reaches
    from the first to the last speech of either side, so speech before and after the reference's is
    false alarm.
    Speakers are matched once, over all regions and collars: the parts of "overlap" and "nonoverlap"
    add up to those of "all".
    """
    ref, hyp = ([turn for turn in side if turn[1] < turn[2]] for side in (ref, hyp))
    ends = [*(turn[2] for turn in (*ref, *hyp)), *(end for _, end in uem or ())]
    start = max(ends, default=0.0) + PAD_GAP
    speakers = PAD_SPEAKERS[region]
    pad = [(speaker, start, start + PAD_SECONDS) for speaker in speakers]
    result = spyder.DER(
        [*(_cut_at_boundaries(ref) if collar else ref), *pad],
        [*hyp, *pad],
        uem=None if uem is None else [*uem, (start, start + PAD_SECONDS)],
        regions=region,
        collar=collar,
    )

    def seconds(rate: float) -> float:
        return round(float(rate * result.duration), 6)

    matches = {label: speaker for speaker, label in result.ref_map.items()}
    padded = len(speakers) * (PAD_SECONDS - 2 * collar)
    return Diarization(
        scored=max(0.0, round(result.duration - padded, 6)),
        missed=seconds(result.miss),
        false_alarm=seconds(result.falarm),
        confusion=seconds(result.conf),
        mapping={
            speaker: matches[label]
            for speaker, label in result.hyp_map.items()
            if label in matches and speaker not in speakers
        },
    )


def _cut_at_boundaries(turns: Sequence[Turn]) -> list[Turn]:
    """The same speech, cut wherever a turn of the same speaker starts or ends, `GAP` between."""
    by_speaker: dict[str, list[Stretch]] = defaultdict(list)
    for speaker, start, end in turns:
        by_speaker[speaker].append((start, end))
    pieces = []
    for speaker, own in by_speaker.items():
        own.sort()
        begun, reach = 0, 0.0
        for start, end in pairwise(sorted({time for turn in own for time in turn})):
            while begun < len(own) and own[begun][0] <= start:
                reach = max(reach, own[begun][1])
                begun += 1
            if reach > start and end - start > GAP:
                pieces.append((speaker, start, end - GAP))
    return pieces


def matched_gender(
    ref: Sequence[Segment], hyp: Sequence[Segment], mapping: dict[str, str]
) -> tuple[float, float]:
    """Seconds with the right gender and seconds in all, where a speaker and his match both talk.

    `mapping` is that of `diarization`. A speaker has the gender he has for longest; "u" (unknown)
    is right for nobody, on neither side.
    """
    ref_gender, hyp_gender = _genders(ref), _genders(hyp)
    ref_times, hyp_times = _times(ref), _times(hyp)
    correct = matched = 0.0
    for speaker, target in mapping.items():
        seconds = sum(
            max(0.0, min(end, ref_end) - max(start, ref_start))
            for start, end in hyp_times[speaker]
            for ref_start, ref_end in ref_times[target]
        )
        matched += seconds
        if hyp_gender[speaker] == ref_gender[target] != "u":
            correct += seconds
    return round(correct, 6), round(matched, 6)


def _times(segments: Sequence[Segment]) -> dict[str, list[tuple[float, float]]]:
    times: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for speaker, start, end in turns(segments)[0]:
        times[speaker].append((start, end))
    return times


def _genders(segments: Sequence[Segment]) -> dict[str, str]:
    seconds: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for segment in segments:
        seconds[segment.speaker][segment.gender] += segment.duration
    return {speaker: max(sorted(own), key=own.__getitem__) for speaker, own in seconds.items()}
