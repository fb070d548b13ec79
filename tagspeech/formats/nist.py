"""RTTM, STM and CTM: NIST's line formats, one segment (CTM: one word) a line.

Their fields are separated by white space, so names of sessions and speakers carry white space
as %XX (`John%20Smith`), reversibly. A name without a character has no place: `InputError`.
Times have three decimals.

    rttm   no words, no gender
    stm    no gender. In files of others a label before the words (<o,f0,female>) is read for the
           gender, and a segment that is to be ignored in scoring is left out with a warning
    ctm    words without speakers; read back, every word is a segment of speaker "?". In files of
           others the second field is the speaker where it differs within a session. A sixth field
           is a word's confidence from 0 to 1, where known, with three decimals
"""

from __future__ import annotations

import logging
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from itertools import accumulate

from tagspeech.errors import InputError
from tagspeech.formats.common import (
    GENDERS,
    by_session,
    decode_name,
    encode_name,
    milliseconds,
    seconds,
    segment,
)
from tagspeech.segments import Segment
from tagspeech.serialize import UNKNOWN_SPEAKER

log = logging.getLogger(__name__)

CTM_COMMENT = ";; word times are estimates: each segment's time spread over its characters\n"
STM_IGNORED = "ignore_time_segment_in_scoring"
STM_GAP = "inter_segment_gap"  # the speaker of what lies between segments

_UNSAFE = r"\s|^;"  # a line that begins with ; is a comment
_LABEL = re.compile(r"<([^\s<>]+)>\s*")
_KNOWN_LABEL = re.compile(r".*,.*|NA|O|F0_[MF]", re.I)  # NIST's, and those of TED-LIUM
_DECLARED_LABEL = re.compile(r'^;;\s*LABEL\s+"([^"]+)"', re.I | re.M)
_NONE = ("<NA>", "NA")  # an RTTM field without a value
_RTTM_TYPES = (  # of the RT-09 evaluation plan
    *("SEGMENT", "NOSCORE", "NO_RT_METADATA", "LEXEME", "NON-LEX", "NON-SPEECH", "FILLER", "EDIT"),
    *("IP", "SU", "CB", "A/P", "SPEAKER", "SPKR-INFO"),
)


def render_rttm(segments: list[Segment]) -> str:
    """SPEAKER lines."""
    lines = []
    for item in by_session(segments):
        start, end = milliseconds(item, may_be_equal=True)
        lines.append(
            f"SPEAKER {_name(item.session, 'rttm')} 1 {seconds(start)} {seconds(end - start)}"
            f" <NA> <NA> {_name(item.speaker, 'rttm')} <NA> <NA>\n"
        )
    return "".join(lines)


def parse_rttm(text: str, file: str, session: str) -> list[Segment]:
    """The SPEAKER lines; lines of other types are left out, with a warning where they hold more
    than facts about speakers.

    Raises `InputError` for a line that is none, such as one with a space in a name.
    """
    segments = []
    others: Counter[str] = Counter()
    confidences: defaultdict[str, set[str]] = defaultdict(set)
    for where, line in _lines(text, file):
        fields = line.split()
        if fields[0] != "SPEAKER":
            if fields[0] not in _RTTM_TYPES:
                raise InputError(f"{where}: {fields[0]!r} is no type of RTTM, such as SPEAKER")
            others[fields[0]] += 1
            continue
        if len(fields) not in (9, 10):
            raise InputError(
                f"{where}: has {len(fields)} fields; RTTM wants 9 or 10, with %20 for a space in "
                "a name"
            )
        _check_values(fields, confidences[fields[7]], where)
        start, duration = _times(fields[3:5], where)
        name = decode_name(fields[1], _UNSAFE)
        speaker = decode_name(fields[7], _UNSAFE)
        segments.append(segment(where, name, speaker, start, round(start + duration, 6)))
    del others["SPKR-INFO"]
    if others:
        counts = ", ".join(f"{count} {name}" for name, count in others.most_common())
        log.warning("%s: lines of other types than SPEAKER are left out: %s", file, counts)
    return segments


def _check_values(fields: list[str], confidences: set[str], where: str) -> None:
    """Raises `InputError` where a SPEAKER line has a value in a field that is to have none.

    This is how a space in a name shows, which moves all fields behind it. `confidences` are those
    of the same speaker before: whole numbers that differ are part of names such as `Speaker 1`.
    """
    remedy = "does a name hold a space? Write it as %20"
    if fields[5].upper() not in _NONE:
        raise InputError(f"{where}: field 6 is {fields[5]!r}, must be <NA>; {remedy}")
    for place in range(8, len(fields)):
        value = fields[place]
        if value.upper() in _NONE:
            continue
        try:
            float(value)
        except ValueError as error:
            raise InputError(
                f"{where}: field {place + 1} is {value!r}, must be <NA> or a number; {remedy}"
            ) from error
    confidence = fields[8]
    if confidence.isdecimal():
        confidences.add(confidence)
        if int(confidence) > 1 or len(confidences) > 1:
            raise InputError(
                f"{where}: field 9 is {confidence!r}, must be <NA> or a confidence from 0 to 1; "
                f"is it part of the name '{fields[7]} {confidence}'? Write the space as %20"
            )


def render_stm(segments: list[Segment]) -> str:
    """`session 1 speaker start end words`.

    Words that begin with what would be read as a label follow the label <NA>.
    """
    lines = []
    for item in by_session(segments):
        start, end = milliseconds(item, may_be_equal=True)
        names = f"{_name(item.session, 'stm')} 1 {_name(item.speaker, 'stm')}"
        label = "<NA> " if _without_label(item.words, set())[0] != item.words else ""
        lines.append(f"{names} {seconds(start)} {seconds(end)} {label}{item.words}".rstrip() + "\n")
    return "".join(lines)


def parse_stm(text: str, file: str, session: str) -> list[Segment]:
    """All lines but those to be ignored in scoring, of which a warning says how many they are.

    A label before the words is no word; where it names a gender, the segment has it.
    """
    segments, ignored = [], []
    declared = {name.lower() for name in _DECLARED_LABEL.findall(text)}
    for where, line in _lines(text, file):
        fields = line.split(maxsplit=5)
        if len(fields) < 5:
            raise InputError(
                f"{where}: has {len(fields)} fields; STM wants session, channel, speaker, "
                "start, end, words"
            )
        start, end = _times(fields[3:5], where)
        name, speaker = decode_name(fields[0], _UNSAFE), decode_name(fields[2], _UNSAFE)
        words, gender = _without_label("".join(fields[5:]), declared)
        item = replace(segment(where, name, speaker, start, end, words), gender=gender)
        is_gap = not item.words and speaker.lower() == STM_GAP
        if is_gap or item.words.lower() == STM_IGNORED:
            ignored.append((where, item.duration))
        else:
            segments.append(item)
    if ignored:
        log.warning(
            "%s: %d segments (%.2f s) are %s and left out, as they are no speech of a speaker; "
            "words that a hypothesis has at their times are still scored",
            *(ignored[0][0], len(ignored), sum(time for _, time in ignored), STM_IGNORED),
        )
    return segments


def _without_label(words: str, declared: set[str]) -> tuple[str, str]:
    """The words without a label before them, and the gender that it names.

    `declared` are the labels that the file's header names, in lower case.
    """
    label = _LABEL.match(words)
    if not label or not (_KNOWN_LABEL.fullmatch(label[1]) or label[1].lower() in declared):
        return words, "u"
    parts = re.split("[,_]", label[1].lower())
    genders = [GENDERS[part] for part in parts if part in ("m", "male", "f", "female")]
    return words[label.end() :], genders[-1] if genders else "u"


def render_ctm(segments: list[Segment]) -> str:
    """`session 1 start duration word`, and the word's confidence where known.

    Word times are estimates: a segment's time is spread over its words by their characters.
    A comment in the first line says so.
    """
    words = []
    for item in by_session(segments):
        start, end = milliseconds(item, may_be_equal=True)
        spoken = item.words.split()
        sure = [f" {one:.3f}" for one in item.word_confidences or ()] or [""] * len(spoken)
        lengths = [len(word) for word in spoken]
        total = sum(lengths) or 1
        # Edges in whole milliseconds; integer arithmetic, so that the last edge is the end.
        edges = [start + (end - start) * n // total for n in accumulate(lengths, initial=0)]
        least = min(1, end - start)
        for left, right, word, known in zip(edges[:-1], edges[1:], spoken, sure, strict=True):
            line = word + known
            words.append((_name(item.session, "ctm"), left, max(right - left, least), line))
    words.sort(key=lambda word: word[:2])
    lines = [
        f"{name} 1 {seconds(left)} {seconds(long)} {line}\n" for name, left, long, line in words
    ]
    return CTM_COMMENT + "".join(lines)


def parse_ctm(text: str, file: str, session: str) -> list[Segment]:
    """One segment a word, of speaker "?", or of that in the second field.

    The second field is a channel, 1 or A, by the standard. Some tools write the speaker there, and
    a call has a side there: where it differs within a session, or is no number or letter, it is
    the speaker, and a warning says so.
    """
    words = []
    channels: defaultdict[str, set[str]] = defaultdict(set)
    for where, line in _lines(text, file):
        fields = line.split()
        if len(fields) not in (5, 6):
            raise InputError(
                f"{where}: has {len(fields)} fields; CTM wants session, channel, start, "
                "duration, word and perhaps a confidence"
            )
        start, duration = _times(fields[2:4], where)
        name, end = decode_name(fields[0], _UNSAFE), round(start + duration, 6)
        word = segment(where, name, decode_name(fields[1], _UNSAFE), start, end, fields[4])
        words.append(replace(word, word_confidences=_confidence(fields[5:], where)))
        channels[word.session].add(word.speaker)
    names = sorted(set().union(*channels.values()))
    if all(len(own) == 1 for own in channels.values()) and all(map(_is_channel, names)):
        return [replace(word, speaker=UNKNOWN_SPEAKER) for word in words]
    log.warning(
        "%s: its second field names speakers or sides (%s) and is read as the speaker",
        *(file, ", ".join(names[:3]) + (", ..." if names[3:] else "")),
    )
    return words


def _is_channel(name: str) -> bool:
    return re.fullmatch("[0-9]+|[A-Za-z]", name) is not None


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
