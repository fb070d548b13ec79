"""What of a corpus is not used: a list with reasons, a table of it, and a limit.

    rejected.jsonl   {"split": "train", "reason": "it has no speaker", "seconds": 1.2, "id": ...}
    rejected.txt     count, seconds and share of each reason

`seconds` are those of speech with words that are lost: 0 for a segment without words, and for a
recording, whose segments have rows of their own.

The preparation of a published corpus leaves out more, without saying so: Lhotse's preparers give
manifests of what they can use. `write_left_out` compares these with the annotation, which the
recipe reads once more (`egs/*/local/left_out_*.py`).
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

ROUNDING = 0.01  # seconds behind the end of a recording that say nothing
OUTSIDE = "it starts outside its recording"
GOES_ON = "it goes on behind the end of its recording"  # only the rest of it is lost


def write_rows(path: Path, rows: Sequence[Rejection]) -> None:
    """Writes a list of what is rejected, in one step."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def write_rejected(path: Path, rows: Sequence[Rejection], *, kept: float, most: float) -> None:
    """Writes `rows` to `path` and their table beside it, as .txt; logs it where there are any.

    kept  seconds of speech with words that are used
    most  the largest share of all seconds that may be lost

    Raises `InputError` where more is lost; both files are written then.
    """
    lost = sum(row["seconds"] for row in rows)
    text = table(rows, kept + lost)
    write_rows(path, rows)
    write_text(path.with_suffix(".txt"), text)
    if rows:
        log.warning("rejected; each is listed in %s\n%s", path, text.rstrip("\n"))
    if lost > most * (kept + lost):
        seconds = _sums(rows)
        _, reason = max(seconds, key=seconds.__getitem__)
        raise InputError(
            f"{path}: {100 * lost / (kept + lost):.1f} % of the speech is rejected, more than "
            f"{100 * most:g} %, most of it because {reason}; mend the corpus, or allow more with "
            "--max-rejected SHARE"
        )


def table(rows: Sequence[Rejection], whole: float) -> str:
    """A line for each reason of each split, those that cost most first; `whole` in seconds."""
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
    """The seconds of each reason of each split."""
    seconds: Counter[tuple[str, str]] = Counter()
    for row in rows:
        seconds[row["split"], row["reason"]] += row["seconds"]
    return seconds


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
