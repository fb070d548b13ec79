"""SRT and WebVTT: subtitles of one session, times in milliseconds, no gender, no zero duration.

    srt   cue text `speaker: words`, or `[speaker]: words` in all cues where a name would not be
          read back from the plain form. A colon or bracket in a name is written %3A, %5B, %5D
    vtt   cue text `<v speaker>words` with `&`, `<`, `>` escaped
White space in names other than a plain space inside is written %XX in both.

In files from elsewhere both formats are read alike. A speaker is a voice (`<v Name>`) or, in a file
without voices, a prefix as in `tagspeech.formats.prefixes`; without either it is "?". Markup such
as <i> and {\\an8} is no word.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
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
_OVERRIDE = re.compile(r"\{\\[^{}]*\}")  # of Advanced SubStation, such as {\an8}
_ENTITY = re.compile(r"&(?:#[0-9]+|#x[0-9a-f]+|[a-z][a-z0-9]*);", re.I)
_REMEDY = "; --subtitle-speakers prefix or none decides otherwise"


def render_srt(segments: list[Segment]) -> str:
    """Numbered cues. Raises `InputError` for several sessions."""
    one_session(segments, "srt")
    names = {item.speaker: encode_name(item.speaker, _UNSAFE_SRT) for item in segments}
    form = "{}: {}" if all(map(reads_back, names.values())) else "[{}]: {}"
    cues = []
    for number, item in enumerate(by_start(segments), 1):
        text = _escape_srt(form.format(names[item.speaker], item.words).rstrip(" "))
        cues.append(f"{number}\n{_range(item, ',')}\n{text}\n")
    return "\n".join(cues)


def parse_srt(text: str, file: str, session: str, speakers: str = "auto") -> list[Segment]:
    """One segment a cue, or a speaker of it; `speakers` is one of `prefixes.MODES`."""
    cues = read_cues(text, file, is_vtt=False)
    return _segments(cues, _plain_srt, _UNSAFE_SRT, file, session, speakers)


def render_vtt(segments: list[Segment]) -> str:
    """Cues with voices. Raises `InputError` for several sessions."""
    one_session(segments, "vtt")
    cues = ["WEBVTT\n"]
    for item in by_start(segments):
        name = escape(encode_name(item.speaker, _UNSAFE_VTT), quote=False)
        words = escape(item.words, quote=False).replace("{\\", "&#123;\\")
        cues.append(f"{_range(item, '.')}\n<v {name}>{words}\n")
    return "\n".join(cues)


def parse_vtt(text: str, file: str, session: str, speakers: str = "auto") -> list[Segment]:
    """One segment a cue, or a speaker of it; `speakers` is one of `prefixes.MODES`."""
    if not text.startswith("WEBVTT"):
        raise InputError(f"{file}, line 1: wants WEBVTT; is it another format?")
    cues = read_cues(text, file, is_vtt=True)
    return _segments(cues, _plain_vtt, _UNSAFE_VTT, file, session, speakers)


def _segments(
    cues: list[Cue],
    plain: Callable[[str], str],
    unsafe: str,
    file: str,
    session: str,
    speakers: str,
) -> list[Segment]:
    """What is said in the cues. Where the file has voices, `speakers` must be "prefix" for prefixes
    to count too, in cues without a voice."""
    cues = without_repeats(cues, file)
    parts = [_voices(cue.lines, plain) for cue in cues]
    silent = [place for place, own in enumerate(parts) if own[0].speaker is None]
    if speakers != "auto" or len(silent) == len(cues):
        texts = [parts[place][0].words for place in silent]
        found = split_speakers(texts, file, speakers, _REMEDY)
        for place, own in zip(silent, found, strict=True):
            parts[place] = [*own, *parts[place][1:]]
    return [
        segment(
            cue.where,
            session,
            UNKNOWN_SPEAKER if one.speaker is None else decode_name(one.speaker, unsafe),
            *(cue.start, cue.end, one.words),
        )
        for cue, own in zip(cues, parts, strict=True)
        for one in own
    ]


def _voices(lines: Sequence[str], plain: Callable[[str], str]) -> list[Spoken]:
    """What each voice of a cue says, first what is said before any, by None."""
    before, *voices = _VOICE.split("\n".join(lines))
    spoken = [
        Spoken(unescape(name or ""), plain(words))
        for name, words in zip(voices[::2], voices[1::2], strict=True)
    ]
    head = plain(before)
    return [Spoken(None, head), *spoken] if head or not spoken else spoken


def _plain_vtt(text: str) -> str:
    """The text without markup and empty lines; every tag is markup."""
    return _trimmed(unescape(_OVERRIDE.sub("", _TAG.sub("", _BREAK.sub("\n", text)))))


def _plain_srt(text: str) -> str:
    """The text without markup and empty lines; what players know is markup."""
    text = _OVERRIDE.sub("", _KNOWN_TAG.sub("", _BREAK.sub("\n", text)))
    return _trimmed(_ENTITY.sub(lambda match: unescape(match[0]), text))


def _trimmed(text: str) -> str:
    return "\n".join(line.strip() for line in text.split("\n") if line.strip())


def _escape_srt(text: str) -> str:
    """The text with what would be read as markup or as an entity escaped; SRT itself has none."""
    text = _ENTITY.sub(lambda match: "&amp;" + match[0][1:], text)
    text = _KNOWN_TAG.sub(lambda match: "&lt;" + match[0][1:], text)
    return text.replace("{\\", "&#123;\\")


def _range(item: Segment, mark: str) -> str:
    return " --> ".join(_clock(time, mark) for time in milliseconds(item))


def _clock(time: int, mark: str) -> str:
    whole, rest = divmod(time, 1000)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}{mark}{rest:03}"
