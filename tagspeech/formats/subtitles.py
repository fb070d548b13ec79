"""SRT and WebVTT: subtitles of one session, times in milliseconds, no gender.

    srt   cue text `speaker: words`. SRT escapes nothing, so a colon in a name is written %3A. A
          cue from elsewhere without a colon is of speaker "?"; what stands before a colon is taken
          for a speaker.
    vtt   cue text `<v speaker>words` with `&`, `<`, `>` escaped. A cue from elsewhere without a
          voice is of speaker "?".
White space in names other than a plain space inside is written %XX in both.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import escape, unescape

from tagspeech.errors import InputError
from tagspeech.formats.common import (
    decode_name,
    encode_name,
    milliseconds,
    one_session,
    segment,
)
from tagspeech.segments import Segment, by_time
from tagspeech.serialize import UNKNOWN_SPEAKER

_UNSAFE_VTT = r"[^\S ]|^ +| +$"
_UNSAFE_SRT = f":|{_UNSAFE_VTT}"
_TIME = r"(?:([0-9]{1,4}):)?([0-9]{1,2}):([0-9]{1,2})[.,]([0-9]{3})"
_TIMES = re.compile(rf"\s*{_TIME}\s*-->\s*{_TIME}(?:\s.*)?")
_BLOCK = re.compile(r"(?:[^\S\n]*\S[^\n]*(?:\n|$))+")
_NO_CUE = re.compile(r"(?:WEBVTT|NOTE|STYLE|REGION)(?:\s|$)")
_VOICE = re.compile(r"<v(?:\.[^\s>]*)?(?:[ \t]([^>]*))?>")
_MARKUP = re.compile(r"<[^>]*>")


def render_srt(segments: list[Segment]) -> str:
    """Numbered cues. Raises `InputError` for several sessions."""
    one_session(segments, "srt")
    cues = []
    for number, item in enumerate(by_time(segments), 1):
        name = encode_name(item.speaker, _UNSAFE_SRT)
        text = f"{name}: {item.words}".rstrip(" ")
        cues.append(f"{number}\n{_range(item, ',')}\n{text}\n")
    return "\n".join(cues)


def parse_srt(text: str, file: str, session: str) -> list[Segment]:
    """One segment a cue."""
    segments = []
    for where, start, end, cue in _cues(text, file):
        name, colon, words = cue.partition(":")
        if not colon:
            name, words = UNKNOWN_SPEAKER, cue
        speaker = decode_name(name, _UNSAFE_SRT)
        segments.append(segment(where, session, speaker, start, end, words))
    return segments


def render_vtt(segments: list[Segment]) -> str:
    """Cues with voices. Raises `InputError` for several sessions."""
    one_session(segments, "vtt")
    cues = ["WEBVTT\n"]
    for item in by_time(segments):
        name = escape(encode_name(item.speaker, _UNSAFE_VTT), quote=False)
        text = f"<v {name}>{escape(item.words, quote=False)}"
        cues.append(f"{_range(item, '.')}\n{text}\n")
    return "\n".join(cues)


def parse_vtt(text: str, file: str, session: str) -> list[Segment]:
    """One segment a voice of a cue; notes, styles and regions are skipped, markup is removed."""
    if not text.startswith("WEBVTT"):
        raise InputError(f"{file}, line 1: wants WEBVTT; is it another format?")
    segments = []
    for where, start, end, cue in _cues(text, file):
        before, *voices = _VOICE.split(cue)
        spoken = list(zip(voices[::2], voices[1::2], strict=True))
        if before.strip() or not spoken:
            spoken.insert(0, (UNKNOWN_SPEAKER, before))
        for name, words in spoken:
            speaker = decode_name(unescape(name or ""), _UNSAFE_VTT)
            words = unescape(_MARKUP.sub("", words))
            segments.append(segment(where, session, speaker, start, end, words))
    return segments


def _range(item: Segment, mark: str) -> str:
    return " --> ".join(_clock(time, mark) for time in milliseconds(item))


def _clock(time: int, mark: str) -> str:
    whole, rest = divmod(time, 1000)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}{mark}{rest:03}"


def _cues(text: str, file: str) -> Iterator[tuple[str, float, float, str]]:
    """("FILE, line N", start, end, text) of every cue, a block of lines set off by empty ones.

    Its first or, after a number or name, its second line has the times. Raises `InputError` for
    a block without them that is no part of WebVTT either.
    """
    for found in _BLOCK.finditer(text):
        block = found[0].rstrip("\n").split("\n")
        if _NO_CUE.match(block[0]):
            continue
        at = 0 if "-->" in block[0] or len(block) == 1 else 1
        where = f"{file}, line {text.count(chr(10), 0, found.start()) + at + 1}"
        match = _TIMES.fullmatch(block[at])
        if not match:
            raise InputError(f"{where}: {block[at]!r}; wants 00:00:01.000 --> 00:00:02.000")
        start, end = _seconds(match.groups()[:4]), _seconds(match.groups()[4:])
        yield where, start, end, " ".join(block[at + 1 :])


def _seconds(fields: tuple[str | None, ...]) -> float:
    hours, minutes, whole, thousandths = (int(field or 0) for field in fields)
    return (hours * 3_600_000 + minutes * 60_000 + whole * 1000 + thousandths) / 1000
