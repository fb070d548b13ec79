"""Unused parts of a corpus: a list with reasons, a table, and a limit.

    rejected.jsonl   {"split": "train", "reason": "it has no speaker", "seconds": 1.2, "id": ...}
    rejected.txt     count, seconds and share of each reason

`seconds` is the lost speech with words: 0 for a segment without words and for a recording, whose
segments have separate rows.

Lhotse's preparers of published corpora leave out what they cannot use without a message.
`write_left_out` compares their manifests with the annotation, which the recipe reads again
(`egs/*/local/left_out_*.py`).
"""

from __future__ import annotations

import json
import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from tagspeech.corpus.manifests import read_manifest
from tagspeech.errors import InputError
from tagspeech.files import write_text

log = logging.getLogger(__name__)

Rejection = dict[str, Any]

ROUNDING = 0.01  # seconds past the end of a recording that rounding explains
OUTSIDE = "it starts outside its recording"
PAST_END = "it extends past the end of its recording"  # the part before the end is used


def write_rows(path: Path, rows: Sequence[Rejection]) -> None:
    """Writes the list of rejections, atomically."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def write_rejected(path: Path, rows: Sequence[Rejection], *, kept: float, most: float) -> None:
    """Writes `rows` to `path` and their table next to it as .txt; logs the table if not empty.

    Args:
        path: The list, `rejected.jsonl`.
        rows: Its rows.
        kept: Seconds of used speech with words.
        most: Maximum share of all seconds that may be lost.

    Raises:
        InputError: More is lost. Both files are written before.
    """
    lost = sum(row["seconds"] for row in rows)
    text = table(rows, kept + lost)
    write_rows(path, rows)
    write_text(path.with_suffix(".txt"), text)
    if rows:
        log.warning("rejected; %s lists each\n%s", path, text.rstrip("\n"))
    if lost > most * (kept + lost):
        seconds = _sums(rows)
        _, reason = max(seconds, key=seconds.__getitem__)
        raise InputError(
            f"{path}: {100 * lost / (kept + lost):.1f} % of the speech is rejected, more than "
            f"{100 * most:g} %, most of it because {reason}; mend the corpus, or allow more with "
            "--max-rejected SHARE"
        )


def table(rows: Sequence[Rejection], whole: float) -> str:
    """One line per split and reason, the most seconds first; `whole` is all speech in seconds."""
    counts = Counter((row["split"], row["reason"]) for row in rows)
    seconds = _sums(rows)
    ranked = sorted(seconds, key=lambda key: (-seconds[key], key))
    cells = [(key[0], counts[key], seconds[key], key[1]) for key in ranked]
    cells.append(("all", len(rows), seconds.total(), f"of {whole:.1f} s of speech"))
    lines = ["split    count    seconds  share %  reason"]
    lines += [
        f"{split:<5}  {count:>7}  {spent:>9.1f}  {100 * spent / (whole or 1):>7.2f}  {reason}"
        for split, count, spent, reason in cells
    ]
    return "\n".join(lines) + "\n"


def _sums(rows: Sequence[Rejection]) -> Counter[tuple[str, str]]:
    """The seconds per split and reason."""
    seconds: Counter[tuple[str, str]] = Counter()
    for row in rows:
        seconds[row["split"], row["reason"]] += row["seconds"]
    return seconds


@dataclass(frozen=True)
class AnnotatedSpeech:
    """A word of an annotation, or a segment without word times.

    Attributes:
        split: Name of the split.
        recording: Id of the recording.
        speaker: Speaker as in the manifests.
        segment: Name of the segment; empty if the word is in none.
        times: Start and end in seconds, or None.
        text: Text; may be empty.
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
    """Writes rows with reasons about speech that is not in the manifests.

    Args:
        spoken: All speech of the annotation. Consecutive lost words of a segment become one row.
        manifests: Folder of `SPLIT_{recordings,supervisions}.jsonl.gz`.
        output: File for the rows.
        missing: Reason for speech of recordings that the manifests lack.
    """
    everything = list(spoken)
    taken: defaultdict[tuple[str, str, float], list[float]] = defaultdict(list)  # end times
    ends: dict[str, float] = {}
    for split in sorted({speech.split for speech in everything}):
        for recording in read_manifest(manifests / f"{split}_recordings.jsonl.gz"):
            ends[recording.id] = recording.duration
        for segment in read_manifest(manifests / f"{split}_supervisions.jsonl.gz"):
            for item in (segment.alignment or {}).get("word") or [segment]:
                taken[segment.recording_id, segment.speaker, round(item.start, 3)].append(item.end)

    def is_taken(speech: AnnotatedSpeech, start: float, end: float) -> bool:
        """Whether the manifests have it, at least up to the end of the recording."""
        found = taken.get((speech.recording, speech.speaker, round(start, 3)), ())
        return any(abs(other - min(end, ends[speech.recording])) < ROUNDING for other in found)

    def loss(speech: AnnotatedSpeech) -> tuple[str, float]:
        """The reason (empty if nothing is lost) and the lost seconds."""
        if speech.recording not in ends:
            reason = missing
        elif speech.times is None:
            reason = "it has no times"
        elif is_taken(speech, *speech.times):
            start, end = speech.times
            lost = end - max(start, ends[speech.recording])
            return (PAST_END, lost) if lost > ROUNDING else ("", 0.0)
        else:
            reason = _reason(speech, *speech.times, ends[speech.recording])
        return reason, max(0.0, speech.times[1] - speech.times[0]) if speech.times else 0.0

    write_rows(output, list(_rows((speech, *loss(speech)) for speech in everything)))


def _reason(speech: AnnotatedSpeech, start: float, end: float, recording_end: float) -> str:
    """The most likely reason why the supervisions lack it."""
    if start >= recording_end:
        return OUTSIDE
    if not speech.text:
        return "it has no words"
    if end < start:
        return "it ends before it starts"
    if end == start:
        return "it has zero duration"
    return "Lhotse leaves it out" if speech.segment else "no segment holds it"


def _rows(losses: Iterable[tuple[AnnotatedSpeech, str, float]]) -> Iterator[Rejection]:
    def key(item: tuple[AnnotatedSpeech, str, float]) -> tuple[str, ...]:
        speech, reason, _ = item
        return speech.split, speech.recording, speech.speaker, speech.segment, reason

    for (split, recording, speaker, segment, reason), items in groupby(losses, key):
        if reason:
            lost = list(items)
            times = [time for speech, _, _ in lost for time in speech.times or ()]
            yield {
                "split": split,
                "reason": reason,
                "seconds": round(sum(seconds for speech, _, seconds in lost if speech.text), 3),
                "id": segment,
                "recording_id": recording,
                "speaker": speaker,
                "start": min(times, default=None),
                "end": max(times, default=None),
                "text": " ".join(speech.text for speech, _, _ in lost),
            }
