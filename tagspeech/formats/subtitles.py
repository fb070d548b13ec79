"""SRT and WebVTT: subtitles of one session, without gender and zero duration.

    srt   cue text `speaker: words`, or `[speaker]: words` in all cues if a name could not be read
          back otherwise. Colons and brackets in names are escaped as %3A, %5B, %5D
    vtt   cue text `<v speaker>words` with `&`, `<`, `>` escaped. Measured word times are written as
          time stamps before words, `<00:00:01.200>word`, which players may highlight; a note says
          so. They are not read back

In both, white space in names is escaped as %XX, except for single inner spaces. When reading, the
speaker is the voice (`<v Name>`) or, in a file without voices, a prefix (see
`tagspeech.formats.prefixes`), otherwise "?". Markup such as <i> and {\\an8} is removed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from html import escape, unescape

from tagspeech.errors import InputError
from tagspeech.formats.common import (
    decode_name,
    encode_name,
    milliseconds,
    one_session,
    segment,
)
from tagspeech.formats.cues import Cue, read_cues, without_repeats
from tagspeech.formats.prefixes import Spoken, reads_back, split_speakers
from tagspeech.formats.readable import columns, readable_cues
from tagspeech.segments import Segment, by_start
from tagspeech.serialize import UNKNOWN_SPEAKER

_UNSAFE_VTT = r"[^\S ]|^ +| +$"
_UNSAFE_SRT = rf"[:：\[\]]|{_UNSAFE_VTT}"
_VOICE = re.compile(r"<v(?:\.[^\s<>]*)?(?:[ \t]([^<>]*))?>")
_BREAK = re.compile(r"<br\s*/?>", re.I)
_TAG = re.compile(r"<[^>]*>")
_KNOWN_TAG = re.compile(
    r"</?(?:i|b|u|s|c|v|em|strong|font|ruby|rt|lang|span|p|br)\b[^<>]*>|<[0-9]+:[0-9:.]+>", re.I
)
_STAMP = re.compile(r"<[0-9]+:[0-9:.]+>")
_OVERRIDE = re.compile(r"\{\\[^{}]*\}")  # of Advanced SubStation, such as {\an8}
_ENTITY = re.compile(r"&(?:#[0-9]+|#x[0-9a-f]+|[a-z][a-z0-9]*);", re.I)
_WORD_TIMES = "NOTE word_times: aligned"
_REMEDY = "; change this with --subtitle-speakers prefix or none"


def render_srt(segments: list[Segment], readable: bool = False) -> str:
    """Numbered cues: the segments, or `readable_cues`. Raises `InputError` for several sessions."""
    one_session(segments, "srt")
    names = {item.speaker: encode_name(item.speaker, _UNSAFE_SRT) for item in segments}
    form = "{}: {}" if all(map(reads_back, names.values())) else "[{}]: {}"
    indent = {speaker: columns(form.format(name, "")) for speaker, name in names.items()}
    cues = []
    for number, (item, words) in enumerate(_cues(segments, readable, indent), 1):
        text = _escape_srt(form.format(names[item.speaker], words).rstrip(" "))
        cues.append(f"{number}\n{_range(item, ',')}\n{text}\n")
    return "\n".join(cues)


def parse_srt(text: str, file: str, session: str, speakers: str = "auto") -> list[Segment]:
    """A segment for each cue and speaker; `speakers` is one of `prefixes.MODES`."""
    cues = read_cues(text, file, is_vtt=False)
    return _segments(cues, _plain_srt, _UNSAFE_SRT, file, session, speakers)


def render_vtt(segments: list[Segment], readable: bool = False) -> str:
    """Cues with voices: as `render_srt`. Raises `InputError` for several sessions."""
    one_session(segments, "vtt")
    cues = ["WEBVTT\n"]
    if any(item.word_spans for item in segments):
        cues.append(f"{_WORD_TIMES}\n")
    for item, text in _cues(segments, readable, dict.fromkeys((s.speaker for s in segments), 0)):
        name = escape(encode_name(item.speaker, _UNSAFE_VTT), quote=False)
        words = _stamped(item, text)
        cues.append(f"{_range(item, '.')}\n<v {name}>{words}\n")
    return "\n".join(cues)


def _stamped(item: Segment, text: str) -> str:
    """The escaped text of a cue, with a time stamp before each word but the first.

    A stamp must lie within the cue and after the one before it; words without one follow at once.
    """
    spans = item.word_spans or ()
    previous, last = milliseconds(item)
    pieces = []
    for place, piece in enumerate(re.findall(r"\s*\S+", text)):
        word = piece.lstrip()
        space = piece[: len(piece) - len(word)]
        time = round(1000 * spans[place][0]) if place and place < len(spans) else previous
        stamp = ""
        if previous < time < last:
            previous, stamp = time, f"<{_clock(time, '.')}>"
        safe = escape(word, quote=False).replace("{\\", "&#123;\\")
        pieces.append(f"{space}{stamp}{safe}")
    return "".join(pieces)


def parse_vtt(text: str, file: str, session: str, speakers: str = "auto") -> list[Segment]:
    """A segment for each cue and speaker; `speakers` is one of `prefixes.MODES`."""
    if not text.startswith("WEBVTT"):
        raise InputError(f"{file}, line 1: must begin with WEBVTT; is it another format?")
    cues = read_cues(text, file, is_vtt=True)
    if f"\n{_WORD_TIMES}\n" in text:  # our own time stamps, not those of rolling captions
        cues = [replace(cue, lines=[_STAMP.sub("", line) for line in cue.lines]) for cue in cues]
    return _segments(cues, _plain_vtt, _UNSAFE_VTT, file, session, speakers)


def _cues(
    segments: list[Segment], readable: bool, indent: dict[str, int]
) -> list[tuple[Segment, str]]:
    """The segment and the text of each cue, by start."""
    if not readable:
        return [(item, item.words) for item in by_start(segments)]
    return [(cue.segment, "\n".join(cue.lines)) for cue in readable_cues(segments, indent)]


def _segments(
    cues: list[Cue],
    plain: Callable[[str], str],
    unsafe: str,
    file: str,
    session: str,
    speakers: str,
) -> list[Segment]:
    """The segments of the cues. In a file with voices, prefixes count only with "prefix"."""
    cues = without_repeats(cues, file)
    parts = [_voices(cue.lines, plain) for cue in cues]
    voiceless = [place for place, spoken in enumerate(parts) if spoken[0].speaker is None]
    if speakers != "auto" or len(voiceless) == len(cues):
        texts = [parts[place][0].words for place in voiceless]
        found = split_speakers(texts, file, speakers, _REMEDY)
        for place, spoken in zip(voiceless, found, strict=True):
            parts[place] = [*spoken, *parts[place][1:]]
    return [
        segment(
            cue.where,
            session,
            UNKNOWN_SPEAKER if part.speaker is None else decode_name(part.speaker, unsafe),
            *(cue.start, cue.end, part.words),
        )
        for cue, spoken in zip(cues, parts, strict=True)
        for part in spoken
    ]


def _voices(lines: Sequence[str], plain: Callable[[str], str]) -> list[Spoken]:
    """The words of each voice of a cue, preceded by words without a voice (speaker None)."""
    before, *voices = _VOICE.split("\n".join(lines))
    spoken = [
        Spoken(unescape(name or ""), plain(words))
        for name, words in zip(voices[::2], voices[1::2], strict=True)
    ]
    head = plain(before)
    return [Spoken(None, head), *spoken] if head or not spoken else spoken


def _plain_vtt(text: str) -> str:
    """Removes markup (any tag) and empty lines."""
    return _trimmed(unescape(_OVERRIDE.sub("", _TAG.sub("", _BREAK.sub("\n", text)))))


def _plain_srt(text: str) -> str:
    """Removes markup (the tags that players support) and empty lines."""
    text = _OVERRIDE.sub("", _KNOWN_TAG.sub("", _BREAK.sub("\n", text)))
    return _trimmed(_ENTITY.sub(lambda match: unescape(match[0]), text))


def _trimmed(text: str) -> str:
    return "\n".join(line.strip() for line in text.split("\n") if line.strip())


def _escape_srt(text: str) -> str:
    """Escapes text that would be read as markup or an entity; SRT itself defines no escapes."""
    text = _ENTITY.sub(lambda match: "&amp;" + match[0][1:], text)
    text = _KNOWN_TAG.sub(lambda match: "&lt;" + match[0][1:], text)
    return text.replace("{\\", "&#123;\\")


def _range(item: Segment, mark: str) -> str:
    return " --> ".join(_clock(time, mark) for time in milliseconds(item))


def _clock(time: int, mark: str) -> str:
    whole, rest = divmod(time, 1000)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}{mark}{rest:03}"
