"""What the preparation of a published corpus leaves out without a word.

Lhotse's preparers give manifests of what they can use. Which words or segments of the annotation
are in none shows only when the annotation is read once more and compared. Reading it is the
recipe's part (`egs/*/local/left_out_*.py`), comparing is done here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from tagspeech.corpus.groups import read_manifest
from tagspeech.corpus.rejections import GOES_ON, OUTSIDE, ROUNDING, Rejection, write_rows


@dataclass(frozen=True)
class AnnotatedSpeech:
    """A word as an annotation has it, or a segment whose words have no times of their own.

    segment  its name; "" where no segment holds the word
    times    start and end in seconds; None where the annotation has none
    text     may be empty
    """

    split: str
    recording: str
    speaker: str
    segment: str
    times: tuple[float, float] | None
    text: str


def write_left_out(
    spoken: Iterable[AnnotatedSpeech], manifests: Path, output: Path, *, missing: str
) -> None:
    """Writes what is not in `manifests/SPLIT_supervisions.jsonl.gz`, with reasons, to `output`.

    Words of one segment that are left out together make one row. `missing` is the reason against
    what belongs to a recording that has no manifest.
    """
    everything = list(spoken)
    taken: defaultdict[tuple[str, str, float], list[float]] = defaultdict(list)  # to ends
    ends: dict[str, float] = {}
    for split in sorted({one.split for one in everything}):
        for recording in read_manifest(manifests / f"{split}_recordings.jsonl.gz"):
            ends[recording.id] = recording.duration
        for one in read_manifest(manifests / f"{split}_supervisions.jsonl.gz"):
            for item in (one.alignment or {}).get("word") or [one]:
                taken[one.recording_id, one.speaker, round(item.start, 3)].append(item.end)

    def is_taken(one: AnnotatedSpeech, start: float, end: float) -> bool:
        """Whether the manifests have it, perhaps only up to the end of the recording."""
        found = taken.get((one.recording, one.speaker, round(start, 3)), ())
        return any(abs(other - min(end, ends[one.recording])) < ROUNDING for other in found)

    def loss(one: AnnotatedSpeech) -> tuple[str, float]:
        """Why it is lost ("": it is not), and how many seconds of it."""
        if one.recording not in ends:
            reason = missing
        elif one.times is None:
            reason = "it has no times"
        elif is_taken(one, *one.times):
            start, end = one.times
            behind = end - max(start, ends[one.recording])
            return (GOES_ON, behind) if behind > ROUNDING else ("", 0.0)
        else:
            reason = _reason(one, *one.times, ends[one.recording])
        return reason, max(0.0, one.times[1] - one.times[0]) if one.times else 0.0

    write_rows(output, list(_rows((one, *loss(one)) for one in everything)))


def _reason(one: AnnotatedSpeech, start: float, end: float, recording_end: float) -> str:
    """Why the supervisions may lack it."""
    if start >= recording_end:
        return OUTSIDE
    if not one.text:
        return "it has no words"
    if end < start:
        return "it ends before it starts"
    if end == start:
        return "it lasts no time"
    return "Lhotse leaves it out" if one.segment else "no segment holds it"


def _rows(judged: Iterable[tuple[AnnotatedSpeech, str, float]]) -> Iterator[Rejection]:
    def together(item: tuple[AnnotatedSpeech, str, float]) -> tuple[str, ...]:
        one, reason, _ = item
        return one.split, one.recording, one.speaker, one.segment, reason

    for (split, recording, speaker, segment, reason), items in groupby(judged, together):
        if reason:
            lost = list(items)
            times = [time for one, _, _ in lost for time in one.times or ()]
            yield {
                "split": split,
                "reason": reason,
                "seconds": round(sum(seconds for one, _, seconds in lost if one.text), 3),
                "id": segment,
                "recording_id": recording,
                "speaker": speaker,
                "start": min(times, default=None),
                "end": max(times, default=None),
                "text": " ".join(one.text for one, _, _ in lost),
            }
