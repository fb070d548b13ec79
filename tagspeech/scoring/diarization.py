"""DER of one session by spy-der, and gender accuracy over the matched time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import spyder

from tagspeech.segments import Segment, by_time

Turn = tuple[str, float, float]  # speaker, start, end
Stretch = tuple[float, float]  # start, end

# spy-der crashes if the reference is empty, and returns 0/0 if the collar covers all of it. So a
# second of speech is added to the end of both sides and subtracted from the result.
PAD_GAP, PAD_SECONDS = 1.0, 1.0
# Speakers of that second by scored region: everything, where several reference speakers talk at
# once, or where at most one talks.
PAD_SPEAKERS = {"all": ("\0",), "overlap": ("\0", "\1"), "nonoverlap": ("\0",)}
# Name: (collar in seconds on each side of a boundary, region).
DER_KINDS = {
    "der": (0.0, "all"),
    "der_overlap": (0.0, "overlap"),
    "der_nonoverlap": (0.0, "nonoverlap"),
    "der_collar_025": (0.25, "all"),
}
# spy-der merges adjacent turns of a speaker; this gap prevents it and disappears in rounding.
TURN_GAP = 1e-9


@dataclass(frozen=True)
class Diarization:
    """The parts of DER in seconds of speech; overlapped speech counts once per speaker.

    Attributes:
        scored: Reference speech outside the collar.
        missed: Missed speech.
        false_alarm: Speech that is not in the reference.
        confusion: Speech of the wrong speaker.
        mapping: The reference speaker of each matched hypothesis speaker.
    """

    scored: float = 0.0
    missed: float = 0.0
    false_alarm: float = 0.0
    confusion: float = 0.0
    mapping: dict[str, str] = field(default_factory=dict)

    @property
    def errors(self) -> float:
        """Seconds of all three kinds of error."""
        return self.missed + self.false_alarm + self.confusion

    def __add__(self, other: Diarization) -> Diarization:
        """Adds the seconds and drops the mappings, which belong to one session."""
        return Diarization(
            self.scored + other.scored,
            self.missed + other.missed,
            self.false_alarm + other.false_alarm,
            self.confusion + other.confusion,
        )


def turns(segments: Sequence[Segment]) -> tuple[list[Turn], int]:
    """Merges overlapping segments of the same speaker to turns; also returns their number."""
    merged: dict[str, list[Turn]] = defaultdict(list)
    overlaps = 0
    for segment in by_time(list(segments)):
        if segment.start == segment.end:
            continue  # no speech, as in md-eval
        speaker_turns = merged[segment.speaker]
        if speaker_turns and segment.start < speaker_turns[-1][2]:
            overlaps += 1
            _, start, end = speaker_turns.pop()
            speaker_turns.append((segment.speaker, start, max(end, segment.end)))
        else:
            speaker_turns.append((segment.speaker, segment.start, segment.end))
    return [turn for speaker_turns in merged.values() for turn in speaker_turns], overlaps


def diarization_kinds(
    ref: Sequence[Segment], hyp: Sequence[Segment], uem: Sequence[Stretch] | None
) -> dict[str, Diarization]:
    """The parts of DER of one session for each of `DER_KINDS`."""
    # Self-overlaps are not merged, since each boundary has a collar.
    sides = ([(s.speaker, s.start, s.end) for s in side] for side in (ref, hyp))
    ref_turns, hyp_turns = sides
    return {
        key: diarization(ref_turns, hyp_turns, *kind, uem=uem) for key, kind in DER_KINDS.items()
    }


def diarization(
    ref: Sequence[Turn],
    hyp: Sequence[Turn],
    collar: float,
    region: str = "all",
    uem: Sequence[Stretch] | None = None,
) -> Diarization:
    """The parts of DER of one session.

    Speakers are matched once for all regions and collars, so the parts of "overlap" and
    "nonoverlap" add up to those of "all".

    Args:
        ref: Reference turns.
        hyp: Hypothesis turns.
        collar: Seconds (less than 0.5) on EACH side of every boundary in `ref` that are not scored,
            as in md-eval-22, including boundaries between touching turns of one speaker.
        region: One of `PAD_SPEAKERS`.
        uem: Disjoint stretches to score. By default from the first to the last speech of either
            side, so speech before and after the reference is false alarm.
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
    """Splits turns wherever a turn of the same speaker starts or ends, `TURN_GAP` apart."""
    pieces = []
    for speaker, times in _by_speaker(turns).items():
        times.sort()
        begun, reach = 0, 0.0
        for start, end in pairwise(sorted({time for turn in times for time in turn})):
            while begun < len(times) and times[begun][0] <= start:
                reach = max(reach, times[begun][1])
                begun += 1
            if reach > start and end - start > TURN_GAP:
                pieces.append((speaker, start, end - TURN_GAP))
    return pieces


def matched_gender(
    ref: Sequence[Segment], hyp: Sequence[Segment], mapping: dict[str, str]
) -> tuple[float, float]:
    """Seconds with the correct gender, and all seconds, in which matched speakers both talk.

    A speaker has the gender of most of their speech; "u" (unknown) is never correct. `mapping` is
    that of `diarization`.
    """
    ref_gender, hyp_gender = _genders(ref), _genders(hyp)
    ref_times, hyp_times = _by_speaker(turns(ref)[0]), _by_speaker(turns(hyp)[0])
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


def _by_speaker(turns: Sequence[Turn]) -> dict[str, list[Stretch]]:
    times: dict[str, list[Stretch]] = defaultdict(list)
    for speaker, start, end in turns:
        times[speaker].append((start, end))
    return times


def _genders(segments: Sequence[Segment]) -> dict[str, str]:
    genders: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for segment in segments:
        genders[segment.speaker][segment.gender] += segment.duration
    return {name: max(sorted(time), key=time.__getitem__) for name, time in genders.items()}
