"""Reads and writes segments in the file formats of other tools.

Each module says what its format cannot hold; that is lost in writing.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from tagspeech.errors import InputError
from tagspeech.files import read_text, write_text
from tagspeech.formats import ass, nist, seglst, subtitles, tagged, textgrid
from tagspeech.segments import Segment, by_start, composed

log = logging.getLogger(__name__)

# Name, extension (a file is DIR/<stem>.<extension>), writer, reader(text, file, session). Readers
# of `SUBTITLES` also take `speakers`.
_TABLE: list[tuple[str, str, Callable[[list[Segment]], str], Callable[..., list[Segment]]]] = [
    ("seglst", "seglst.json", seglst.render, seglst.parse),
    ("rttm", "rttm", nist.render_rttm, nist.parse_rttm),
    ("stm", "stm", nist.render_stm, nist.parse_stm),
    ("ctm", "ctm", nist.render_ctm, nist.parse_ctm),
    ("srt", "srt", subtitles.render_srt, subtitles.parse_srt),
    ("vtt", "vtt", subtitles.render_vtt, subtitles.parse_vtt),
    ("textgrid", "TextGrid", textgrid.render, textgrid.parse),
    ("tagged", "txt", tagged.render, tagged.parse),
]
FORMATS = tuple(row[0] for row in _TABLE)
SUBTITLES = ("srt", "vtt")
SESSIONLESS = ("srt", "vtt", "textgrid", "tagged")  # formats that name no session
EXTENSIONS = {row[0]: row[1] for row in _TABLE}
OUTPUTS = {**EXTENSIONS, "ass": "ass"}  # formats that are written, with their extensions
_RENDER: dict[str, Callable[..., str]] = {row[0]: row[2] for row in _TABLE}
_RENDER["ass"] = ass.render_ass
_PARSE = {row[0]: row[3] for row in _TABLE}
_OTHER_EXTENSIONS = (("json", "seglst"), ("jsonl", "seglst"))
# Files of this toolkit that end in .jsonl but hold no segments.
_OWN_LISTS = re.compile(r"(?:.*\.)?(?:raw|journal|rejected|curve)\.jsonl", re.I)


def check_format(format: str, known: Iterable[str] = FORMATS) -> None:
    """Raises `InputError` when `format` is not one of `known`."""
    if format not in known:
        raise InputError(f"format: must be one of {', '.join(known)}, got {format!r}")


def split_name(path: str | Path) -> tuple[str, str | None]:
    """The stem (normalised by `composed`) and the format of a file name; None: unknown format.

    `a/b.c.seglst.json` is ("b.c", "seglst"). Case is ignored; `.json` and `.jsonl` are seglst too.
    """
    name = composed(Path(path).name)
    standard = ((extension, format) for format, extension in EXTENSIONS.items())
    for extension, format in (*standard, *_OTHER_EXTENSIONS):
        if name.lower().endswith(f".{extension.lower()}") and not _OWN_LISTS.fullmatch(name):
            return name[: -len(extension) - 1], format
    return Path(name).stem, None


def render(segments: list[Segment], format: str, *, readable: bool = False) -> str:
    """The text of a file in `format`, sorted by time within each session.

    Args:
        segments: The segments.
        format: One of `OUTPUTS`.
        readable: Lay out `SUBTITLES` for people (`readable.readable_cues`), as `ass` always is;
            otherwise each segment is a cue with exact times.

    Raises:
        InputError: The format is unknown or cannot hold these sessions or names.
    """
    check_format(format, OUTPUTS)
    options = {"readable": readable} if format in SUBTITLES else {}
    return _RENDER[format](segments, **options)


def write(
    segments: list[Segment],
    path: str | Path,
    format: str | None = None,
    *,
    readable: bool = False,
) -> None:
    """Writes `segments` atomically, as `render`; `format` defaults to that of the extension."""
    write_text(path, render(segments, format or _format_of(path), readable=readable))


def read(
    path: str | Path,
    format: str | None = None,
    session: str | None = None,
    subtitle_speakers: str = "auto",
) -> list[Segment]:
    """Reads the segments of a file, sorted by start (stable).

    Args:
        path: A file in UTF-8 or UTF-16.
        format: One of `FORMATS`; by default that of the extension.
        session: For segments that name none (srt, vtt, textgrid, tagged, some JSON); by default
            the stem of the file name.
        subtitle_speakers: Whether a prefix in a subtitle is a speaker, one of `prefixes.MODES`.

    Raises:
        InputError: The file is malformed; the message names file, line and remedy.
    """
    if not Path(path).exists():
        raise InputError(f"{path}: No such file")
    format = format or _format_of(path)
    check_format(format)
    if session is None:
        session = split_name(path)[0]
    options = {"speakers": subtitle_speakers} if format in SUBTITLES else {}
    segments = _PARSE[format](read_text(path), str(path), session, **options)
    timeless = [item for item in segments if item.start == item.end]
    if timeless:
        log.warning(
            "%s: %d of %d segments or words have zero duration (the first: %s at %.2f s); their "
            "words count but add no time",
            *(path, len(timeless), len(segments), timeless[0].session, timeless[0].start),
        )
    return by_start(segments)


def _format_of(path: str | Path) -> str:
    format = split_name(path)[1]
    if format is None:
        known = ", ".join(f".{extension}" for extension in EXTENSIONS.values())
        raise InputError(f"{path}: its extension names no format ({known}); name the format")
    return format
