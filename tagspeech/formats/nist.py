"""RTTM, STM and CTM: NIST's line formats, one segment (CTM: one word) a line.

Their fields are separated by white space, so names of sessions and speakers carry white space
as %XX (`John%20Smith`), reversibly. A name without a character has no place: `InputError`.
Times have three decimals.

    rttm   no words, no gender
    stm    no gender
    ctm    words without speakers; read back, every word is a segment of speaker "?". A sixth field
           is a word's confidence from 0 to 1, where known, with three decimals
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import accumulate

from tagspeech.errors import InputError
from tagspeech.formats.common import (
    by_session,
    decode_name,
    encode_name,
    milliseconds,
    seconds,
    segment,
)
from tagspeech.segments import Segment
from tagspeech.serialize import UNKNOWN_SPEAKER

_UNSAFE = r"\s|^;"  # a line that begins with ; is a comment
CTM_COMMENT = ";; word times are estimates: each segment's time spread over its characters\n"


def render_rttm(segments: list[Segment]) -> str:
    """SPEAKER lines."""
    lines = []
    for item in by_session(segments):
        start, end = milliseconds(item)
        lines.append(
            f"SPEAKER {_name(item.session, 'rttm')} 1 {seconds(start)} {seconds(end - start)}"
            f" <NA> <NA> {_name(item.speaker, 'rttm')} <NA> <NA>\n"
        )
    return "".join(lines)


def parse_rttm(text: str, file: str, session: str) -> list[Segment]:
    """The SPEAKER lines; lines of other types are skipped."""
    segments = []
    for where, line in _lines(text, file):
        fields = line.split()
        if fields[0] != "SPEAKER":
            continue
        if len(fields) not in (9, 10):
            raise InputError(f"{where}: has {len(fields)} fields; RTTM wants 9 or 10")
        start, duration = _times(fields[3:5], where)
        name = decode_name(fields[1], _UNSAFE)
        speaker = decode_name(fields[7], _UNSAFE)
        segments.append(segment(where, name, speaker, start, round(start + duration, 6)))
    return segments


def render_stm(segments: list[Segment]) -> str:
    """`session 1 speaker start end words`."""
    lines = []
    for item in by_session(segments):
        start, end = milliseconds(item)
        names = f"{_name(item.session, 'stm')} 1 {_name(item.speaker, 'stm')}"
        lines.append(f"{names} {seconds(start)} {seconds(end)} {item.words}".rstrip() + "\n")
    return "".join(lines)


def parse_stm(text: str, file: str, session: str) -> list[Segment]:
    """All lines. A label such as <o,f0,male> before the words counts as a word."""
    segments = []
    for where, line in _lines(text, file):
        fields = line.split(maxsplit=5)
        if len(fields) < 5:
            raise InputError(
                f"{where}: has {len(fields)} fields; STM wants session, channel, speaker, "
                "start, end, words"
            )
        start, end = _times(fields[3:5], where)
        name, speaker = decode_name(fields[0], _UNSAFE), decode_name(fields[2], _UNSAFE)
        segments.append(segment(where, name, speaker, start, end, "".join(fields[5:])))
    return segments


def render_ctm(segments: list[Segment]) -> str:
    """`session 1 start duration word`, and the word's confidence where known.

    Word times are estimates: a segment's time is spread over its words by their characters.
    A comment in the first line says so.
    """
    words = []
    for item in by_session(segments):
        start, end = milliseconds(item)
        spoken = item.words.split()
        sure = [f" {one:.3f}" for one in item.word_confidences or ()] or [""] * len(spoken)
        lengths = [len(word) for word in spoken]
        total = sum(lengths) or 1
        # Edges in whole milliseconds; integer arithmetic, so that the last edge is the end.
        edges = [start + (end - start) * n // total for n in accumulate(lengths, initial=0)]
        for left, right, word, known in zip(edges[:-1], edges[1:], spoken, sure, strict=True):
            line = word + known
            words.append((_name(item.session, "ctm"), left, max(right - left, 1), line))
    words.sort(key=lambda word: word[:2])
    lines = [
        f"{name} 1 {seconds(left)} {seconds(long)} {line}\n" for name, left, long, line in words
    ]
    return CTM_COMMENT + "".join(lines)


def parse_ctm(text: str, file: str, session: str) -> list[Segment]:
    """One segment of speaker "?" a word."""
    segments = []
    for where, line in _lines(text, file):
        fields = line.split()
        if len(fields) not in (5, 6):
            raise InputError(
                f"{where}: has {len(fields)} fields; CTM wants session, channel, start, "
                "duration, word and perhaps a confidence"
            )
        start, duration = _times(fields[2:4], where)
        name, end = decode_name(fields[0], _UNSAFE), round(start + duration, 6)
        word = segment(where, name, UNKNOWN_SPEAKER, start, end, fields[4])
        segments.append(replace(word, word_confidences=_confidence(fields[5:], where)))
    return segments


def _confidence(fields: list[str], where: str) -> tuple[float] | None:
    """Of a word, by the sixth field of its line, which may be missing or NA."""
    if not fields or fields[0].upper() == "NA":
        return None
    try:
        value = float(fields[0])
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise InputError(
            f"{where}: {fields[0]} is no confidence; wants a number from 0 to 1, or NA"
        )
    return (value,)


def _name(name: str, format: str) -> str:
    if not name:
        raise InputError(f"a session or speaker has an empty name; {format} wants one: name it")
    return encode_name(name, _UNSAFE)


def _lines(text: str, file: str) -> Iterator[tuple[str, str]]:
    """("FILE, line N", line) of every line that is neither empty nor a comment."""
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip() and not line.startswith(";"):
            yield f"{file}, line {number}", line


def _times(fields: list[str], where: str) -> list[float]:
    try:
        return [float(field) for field in fields]
    except ValueError as error:
        raise InputError(f"{where}: {' and '.join(fields)} are no times; wants seconds") from error
