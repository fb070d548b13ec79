"""RTTM, STM and CTM: NIST's line formats, with one segment (CTM: one word) per line.

White space separates fields, so white space in names is escaped as %XX (`John%20Smith`). Empty
names raise `InputError`. Times have three decimals.

    rttm   no words, no gender
    stm    writes no gender. Reads the gender from a label before the words (<o,f0,female>); drops
           segments to be ignored in scoring, with a warning
    ctm    words without speakers; each word is read as a segment of speaker "?", or of the speaker
           in the second field if it varies within a session. The optional sixth field is the
           word's confidence from 0 to 1, with three decimals
"""

from __future__ import annotations

import logging
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from itertools import accumulate, pairwise

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

CTM_ALIGNED = ";; word_times: aligned\n"
CTM_COMMENT = ";; word_times: estimated (each segment's time spread over its characters)\n"
CTM_MIXED = ";; word_times: aligned, but estimated for {} of {} segments\n"
STM_IGNORED = "ignore_time_segment_in_scoring"
STM_GAP = "inter_segment_gap"  # the speaker of pauses between segments

_UNSAFE = r"\s|^;"  # a line that begins with ; is a comment
_LABEL = re.compile(r"<([^\s<>]+)>\s*")
_KNOWN_LABEL = re.compile(r".*,.*|NA|O|F0_[MF]", re.I)  # of NIST and TED-LIUM
_DECLARED_LABEL = re.compile(r'^;;\s*LABEL\s+"([^"]+)"', re.I | re.M)
_NONE = ("<NA>", "NA")  # an RTTM field without a value
_RTTM_TYPES = (  # of the RT-09 evaluation plan
    *("SEGMENT", "NOSCORE", "NO_RT_METADATA", "LEXEME", "NON-LEX", "NON-SPEECH", "FILLER", "EDIT"),
    *("IP", "SU", "CB", "A/P", "SPEAKER", "SPKR-INFO"),
)


def render_rttm(segments: list[Segment]) -> str:
    """The segments as SPEAKER lines."""
    lines = []
    for item in by_session(segments):
        start, end = milliseconds(item, may_be_equal=True)
        lines.append(
            f"SPEAKER {_name(item.session, 'rttm')} 1 {seconds(start)} {seconds(end - start)}"
            f" <NA> <NA> {_name(item.speaker, 'rttm')} <NA> <NA>\n"
        )
    return "".join(lines)


def parse_rttm(text: str, file: str, session: str) -> list[Segment]:
    """Reads SPEAKER lines; skips other types, with a warning except for SPKR-INFO.

    Raises:
        InputError: A line is malformed, for example by a space in a name.
    """
    segments = []
    others: Counter[str] = Counter()
    confidences: defaultdict[str, set[str]] = defaultdict(set)
    for where, line in _lines(text, file):
        fields = line.split()
        if fields[0] != "SPEAKER":
            if fields[0] not in _RTTM_TYPES:
                raise InputError(
                    f"{where}: {fields[0]!r} must be a type of RTTM line, such as SPEAKER"
                )
            others[fields[0]] += 1
            continue
        if len(fields) not in (9, 10):
            raise InputError(
                f"{where}: RTTM must have 9 or 10 fields, with %20 for a space in a name, got "
                f"{len(fields)}"
            )
        _check_values(fields, confidences[fields[7]], where)
        start, duration = _times(fields[3:5], where)
        name = decode_name(fields[1], _UNSAFE)
        speaker = decode_name(fields[7], _UNSAFE)
        segments.append(segment(where, name, speaker, start, round(start + duration, 6)))
    del others["SPKR-INFO"]
    if others:
        counts = ", ".join(f"{count} {name}" for name, count in others.most_common())
        log.warning("%s: skipped lines of types other than SPEAKER: %s", file, counts)
    return segments


def _check_values(fields: list[str], confidences: set[str], where: str) -> None:
    """Raises `InputError` if a field of a SPEAKER line that must be empty has a value.

    That happens if a space in a name shifts the fields. `confidences` collects the whole numbers in
    field 9 of a speaker; if they vary they are part of names such as `Speaker 1`.
    """
    remedy = "does a name contain a space? Write it as %20"
    if fields[5].upper() not in _NONE:
        raise InputError(f"{where}: field 6 must be <NA>, got {fields[5]!r}; {remedy}")
    for place in range(8, len(fields)):
        value = fields[place]
        if value.upper() in _NONE:
            continue
        try:
            float(value)
        except ValueError as error:
            raise InputError(
                f"{where}: field {place + 1} must be <NA> or a number, got {value!r}; {remedy}"
            ) from error
    confidence = fields[8]
    if confidence.isdecimal():
        confidences.add(confidence)
        if int(confidence) > 1 or len(confidences) > 1:
            raise InputError(
                f"{where}: field 9 must be <NA> or a confidence from 0 to 1, got {confidence!r}; "
                f"is it part of the name '{fields[7]} {confidence}'? Write the space as %20"
            )


def render_stm(segments: list[Segment]) -> str:
    """Lines of `session 1 speaker start end words`.

    The label <NA> precedes words that would otherwise be read as a label.
    """
    lines = []
    for item in by_session(segments):
        start, end = milliseconds(item, may_be_equal=True)
        names = f"{_name(item.session, 'stm')} 1 {_name(item.speaker, 'stm')}"
        label = "<NA> " if _without_label(item.words, set())[0] != item.words else ""
        lines.append(f"{names} {seconds(start)} {seconds(end)} {label}{item.words}".rstrip() + "\n")
    return "".join(lines)


def parse_stm(text: str, file: str, session: str) -> list[Segment]:
    """Reads all lines except those to be ignored in scoring, which a warning counts.

    A label before the words may give the gender of the segment.
    """
    segments, ignored = [], []
    declared = {name.lower() for name in _DECLARED_LABEL.findall(text)}
    for where, line in _lines(text, file):
        fields = line.split(maxsplit=5)
        if len(fields) < 5:
            raise InputError(
                f"{where}: STM must have session, channel, speaker, start, end, words, got "
                f"{len(fields)} fields"
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
            "%s: dropped %d segments (%.2f s) marked %s; hypothesis words at their times are still "
            "scored",
            *(ignored[0][0], len(ignored), sum(time for _, time in ignored), STM_IGNORED),
        )
    return segments


def _without_label(words: str, declared: set[str]) -> tuple[str, str]:
    """Splits a label from the words; returns the words and the gender in the label.

    `declared` has the labels declared in the header of the file, in lower case.
    """
    label = _LABEL.match(words)
    if not label or not (_KNOWN_LABEL.fullmatch(label[1]) or label[1].lower() in declared):
        return words, "u"
    parts = re.split("[,_]", label[1].lower())
    genders = [GENDERS[part] for part in parts if part in ("m", "male", "f", "female")]
    return words[label.end() :], genders[-1] if genders else "u"


def render_ctm(segments: list[Segment]) -> str:
    """Lines of `session 1 start duration word`, with the word's confidence if known.

    The comment in the first line says whether word times are measured ("aligned") or estimated.
    """
    words = []
    for item in by_session(segments):
        start, end = milliseconds(item, may_be_equal=True)
        texts = item.words.split()
        lengths = [len(word) for word in texts]
        if item.word_confidences:
            values = zip(texts, item.word_confidences, strict=True)
            texts = [f"{word} {confidence:.3f}" for word, confidence in values]
        if item.word_spans is not None:
            spans = [(round(1000 * a), round(1000 * b)) for a, b in item.word_spans]
        else:
            total = sum(lengths) or 1
            # Integer arithmetic in milliseconds makes the last edge the end.
            edges = [start + (end - start) * n // total for n in accumulate(lengths, initial=0)]
            spans = list(pairwise(edges))
        least = min(1, end - start)
        for (left, right), text in zip(spans, texts, strict=True):
            words.append((_name(item.session, "ctm"), left, max(right - left, least), text))
    words.sort(key=lambda word: word[:2])
    lines = [f"{name} 1 {seconds(left)} {seconds(d)} {text}\n" for name, left, d, text in words]
    return _ctm_comment(segments) + "".join(lines)


def _ctm_comment(segments: list[Segment]) -> str:
    spoken = [item for item in segments if item.words]
    estimated = sum(item.word_spans is None for item in spoken)
    if estimated == len(spoken):
        return CTM_COMMENT
    return CTM_MIXED.format(estimated, len(spoken)) if estimated else CTM_ALIGNED


def parse_ctm(text: str, file: str, session: str) -> list[Segment]:
    """Reads one segment per word, of speaker "?" or of the speaker in the second field.

    The standard puts the channel there (1 or A), some tools the speaker or the side of a call. If
    it varies within a session, or is not a number or letter, it is read as the speaker, with a
    warning.
    """
    words = []
    channels: defaultdict[str, set[str]] = defaultdict(set)
    for where, line in _lines(text, file):
        fields = line.split()
        if len(fields) not in (5, 6):
            raise InputError(
                f"{where}: CTM must have session, channel, start, duration, word and optionally a "
                f"confidence, got {len(fields)} fields"
            )
        start, duration = _times(fields[2:4], where)
        name, end = decode_name(fields[0], _UNSAFE), round(start + duration, 6)
        word = segment(where, name, decode_name(fields[1], _UNSAFE), start, end, fields[4])
        words.append(replace(word, word_confidences=_confidence(fields[5:], where)))
        channels[word.session].add(word.speaker)
    names = sorted(set().union(*channels.values()))
    if all(len(values) == 1 for values in channels.values()) and all(map(_is_channel, names)):
        return [replace(word, speaker=UNKNOWN_SPEAKER) for word in words]
    log.warning(
        "%s: the second field names speakers or sides (%s) and is read as the speaker",
        *(file, ", ".join(names[:3]) + (", ..." if names[3:] else "")),
    )
    return words


def _is_channel(name: str) -> bool:
    return re.fullmatch("[0-9]+|[A-Za-z]", name) is not None


def _confidence(fields: list[str], where: str) -> tuple[float] | None:
    """The confidence in the sixth field, if there is one; None if it is missing or NA."""
    if not fields or fields[0].upper() == "NA":
        return None
    try:
        value = float(fields[0])
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise InputError(
            f"{where}: confidence must be a number from 0 to 1, or NA, got {fields[0]}"
        )
    return (value,)


def _name(name: str, format: str) -> str:
    if not name:
        raise InputError(
            f"{format} must have a name for each session and speaker, got an empty name"
        )
    return encode_name(name, _UNSAFE)


def _lines(text: str, file: str) -> Iterator[tuple[str, str]]:
    """Yields ("FILE, line N", line) for each line that is not empty or a comment."""
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip() and not line.startswith(";"):
            yield f"{file}, line {number}", line


def _times(fields: list[str], where: str) -> list[float]:
    try:
        return [float(field) for field in fields]
    except ValueError as error:
        raise InputError(f"{where}: times must be seconds, got {' and '.join(fields)}") from error
