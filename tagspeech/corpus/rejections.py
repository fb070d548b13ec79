"""What of a corpus is not used: a list with reasons, a table of it, and a limit.

    rejected.jsonl   {"split": "train", "reason": "it has no speaker", "seconds": 1.2, "id": ...}
    rejected.txt     count, seconds and share of each reason

`seconds` are those of speech with words that are lost: 0 for a segment without words, and for a
recording, whose segments have rows of their own.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
