"""A page of whole meetings: who spoke when and for how long, to zoom into, search and listen to."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from tagspeech.errors import InputError
from tagspeech.files import write_text
from tagspeech.scoring.alignment import align
from tagspeech.scoring.files import read_side
from tagspeech.segments import Segment, by_time


def write_meeting_page(
    output: str | Path,
    title: str,
    hyp: Sequence[Segment],
    ref: Sequence[Segment] = (),
    *,
    audio: Mapping[str, str | Path] | None = None,
    language: str = "en",
) -> None:
    """Writes the page: one file that needs no other and no net, save for the recordings.

    hyp, ref  segments of one or several sessions; without `ref` the page shows what was heard
    audio     the recording of each session that has one; the page links to it, relative to `output`
    language  "en" or "zh": what a word is where speakers are paired as cpWER pairs them

    Raises `InputError` where there is no segment at all, and where a recording does not exist.
    """
    sessions = sorted({segment.session for segment in (*ref, *hyp)})
    if not sessions:
        raise InputError(f"{output}: a page wants segments, and there is none")
    folder = Path(output).parent
    meetings = []
    for name in sessions:
        sides = [by_time([s for s in side if s.session == name]) for side in (ref, hyp)]
        meetings.append(_meeting(name, *sides, language, (audio or {}).get(name), folder))
    content = {"title": title, "meetings": meetings}
    # "</script>" in a transcript must not end the element that holds it
    data = json.dumps(content, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    page = _part("html").replace("{{css}}", _part("css"), 1).replace("{{js}}", _part("js"), 1)
    write_text(output, page.replace("{{data}}", data, 1))


def meeting_page(
    hyp: Path, output: Path, ref: Path | None = None, audio: Sequence[Path] = ()
) -> None:
    """`tagspeech page`: files of segments in any format, and recordings named after sessions.

    A single recording is that of a single session, whatever their names.

    Raises `InputError` as `write_meeting_page`, and for a recording of no session.
    """
    heard, said = read_side(hyp)[0], read_side(ref)[0] if ref is not None else []
    sessions = {segment.session for segment in (*heard, *said)}
    recordings = {path.stem: path for path in audio}
    if len(sessions) == len(audio) == 1:
        recordings = dict.fromkeys(sessions, audio[0])
    for name, path in recordings.items():
        if name not in sessions:
            known = ", ".join(sorted(sessions))
            raise InputError(f"{path}: {hyp} has no session {name}, only {known}; rename one")
    title = next(iter(sessions)) if len(sessions) == 1 else output.stem
    write_meeting_page(output, title, heard, said, audio=recordings)


def _part(extension: str) -> str:
    return (
        files("tagspeech.report").joinpath(f"meeting.{extension}").read_text(encoding="utf-8")
    ).strip()


def _meeting(
    name: str,
    ref: Sequence[Segment],
    hyp: Sequence[Segment],
    language: str,
    audio: str | Path | None,
    folder: Path,
) -> dict[str, Any]:
    """What the page shows of one meeting; times in seconds from its beginning."""
    if ref and hyp:
        pairs = [[pair.ref, pair.hyp] for pair in align(ref, hyp, language)]
    else:
        pairs = [[s, None] for s in dict.fromkeys(s.speaker for s in ref)]
        pairs += [[None, s] for s in dict.fromkeys(s.speaker for s in hyp)]
    row: dict[str, Any] = {
        "name": name,
        "seconds": max(s.end for s in (*ref, *hyp)),
        "pairs": pairs,
        "ref": [_segment(s) for s in ref],
        "hyp": [_segment(s) for s in hyp],
    }
    if audio is not None:
        if not Path(audio).is_file():
            raise InputError(f"{audio}: does not exist; it is the recording of session {name}")
        row["audio"] = Path(os.path.relpath(audio, folder)).as_posix()
    return row


def _segment(segment: Segment) -> list[Any]:
    row = [segment.speaker, segment.start, segment.end, segment.words]
    return row if segment.confidence is None else [*row, segment.confidence]
