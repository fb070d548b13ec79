"""SegLST: the JSON list of meeteval, with further keys. Holds segments without loss.

    gender                        "m", "f" or "u"
    confidence, word_confidences  of the segment and of each word, from 0 to 1, if known
    word_times, word_spans        "aligned" and [start, end] of each word, if they were measured

Also reads transcripts of other tools (WhisperX, VibeVoice, MOSS): objects with start, end, text and
optionally speaker, as a list, as the `segments` of an object, or one per line (`.jsonl`).

meeteval's reader is not used because its errors do not name the entry and the remedy.
"""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from tagspeech.errors import InputError
from tagspeech.formats.common import by_session, gender_of, segment
from tagspeech.formats.prefixes import split_speakers
from tagspeech.segments import GENDERS, Segment
from tagspeech.serialize import UNKNOWN_SPEAKER

log = logging.getLogger(__name__)

# Names of keys in other tools, in lower case and without other characters than letters.
_KEYS = {
    "session": ("sessionid", "session", "recordingid"),
    "speaker": ("speaker", "speakerid", "speakerlabel"),
    "start": ("starttime", "start", "starts"),  # the last is `start_s`
    "end": ("endtime", "end", "ends"),
    "words": ("words", "text", "content", "transcript"),
    "gender": ("gender",),
}
_NO_SPEECH = re.compile(r"\s*\[[^\[\]]*\]\s*")  # [Silence], [Music]


def render(segments: list[Segment]) -> str:
    """The list, with one segment per line."""
    rows = [json.dumps(_row(item), ensure_ascii=False) for item in by_session(segments)]
    lines = ",\n".join("  " + row for row in rows)
    return f"[\n{lines}\n]\n" if lines else "[]\n"


def _row(item: Segment) -> dict[str, Any]:
    row: dict[str, Any] = {
        "session_id": item.session,
        "speaker": item.speaker,
        "start_time": item.start,
        "end_time": item.end,
        "words": item.words,
        "gender": item.gender,
    }
    if item.word_confidences is not None:
        row |= {"confidence": item.confidence, "word_confidences": item.word_confidences}
    if item.word_spans is not None:
        row |= {"word_times": "aligned", "word_spans": item.word_spans}
    return row


def parse(text: str, file: str, session: str) -> list[Segment]:
    """Reads the segments; `session` is for entries that name none.

    Unknown keys are ignored, and `confidence` and `word_times`, which follow from others. An entry
    without a speaker whose text is a tag such as [Silence] is dropped with a warning. If no entry
    has a speaker, texts may begin with one, as in subtitles.
    """
    rows = _lines(text, file) if file.lower().endswith(".jsonl") else _entries(text, file)
    segments, silent, has_speakers = [], [], False
    for where, row in rows:
        values = _values(row, where)
        has_speakers |= values["speaker"] is not None
        if values["speaker"] is None and _NO_SPEECH.fullmatch(_words(values)):
            silent.append(where)
        else:
            segments.append(_segment(row, values, where, session))
    if silent:
        log.warning(
            "%s: dropped %d entries without a speaker whose text is a tag such as [Silence]",
            *(silent[0], len(silent)),
        )
    if has_speakers or any(item.word_confidences is not None for item in segments):
        return segments
    found = split_speakers([item.words for item in segments], file)
    return [
        item if part.speaker is None else replace(item, speaker=part.speaker, words=part.words)
        for item, (part,) in zip(segments, found, strict=True)
    ]


def _entries(text: str, file: str) -> Iterator[tuple[str, Any]]:
    """Yields ("FILE, entry N", entry) for each entry of a JSON list."""
    value = _json(text, file)
    lists = [value] if isinstance(value, list) else list(_segment_lists(value))
    if len(lists) != 1:
        raise InputError(
            f"{file}: must be a JSON list of segments, or an object with one list `segments`"
        )
    for number, row in enumerate(lists[0], 1):
        yield f"{file}, entry {number}", row


def _lines(text: str, file: str) -> Iterator[tuple[str, Any]]:
    """Yields ("FILE, line N", entry) for each line that is not empty."""
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            where = f"{file}, line {number}"
            yield where, _json(line, where)


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # includes numbers with thousands of digits
        raise InputError(f"{where}: is not JSON: {error}; SegLST is a JSON list") from error


def _segment_lists(value: Any) -> Iterator[list[Any]]:
    """Yields the lists named `segments` in an object and the objects inside it."""
    for key, inner in value.items() if isinstance(value, dict) else ():
        if key == "segments" and isinstance(inner, list):
            yield inner
        else:
            yield from _segment_lists(inner)


def _values(row: Any, where: str) -> dict[str, Any]:
    """The values of an entry by the keys of `_KEYS`; None if missing.

    Raises:
        InputError: `row` is not an entry.
    """
    if not isinstance(row, dict):
        raise InputError(f"{where}: must be an object with start_time, end_time, speaker, words")
    fields = {re.sub("[^a-z]", "", name.lower()): value for name, value in row.items()}
    words = fields.get("words")
    if isinstance(words, list) and (not words or isinstance(words[0], dict)):
        del fields["words"]  # WhisperX: word times, beside "text"
    values = {
        key: next((fields[name] for name in names if fields.get(name) is not None), None)
        for key, names in _KEYS.items()
    }
    if "start_time" not in row and None in (values["start"], values["end"], values["words"]):
        raise InputError(
            f"{where}: must be an object with speaker, start, end, text, optionally gender, session"
        )
    return values


def _segment(row: dict[str, Any], values: dict[str, Any], where: str, session: str) -> Segment:
    gender = values["gender"]
    if "start_time" not in row:
        gender = gender_of(gender, where)
    elif gender is not None and gender not in GENDERS:
        raise InputError(f"{where}: gender must be one of {', '.join(GENDERS)}, got {gender!r}")
    item = segment(
        where,
        session if values["session"] is None else str(values["session"]),
        UNKNOWN_SPEAKER if values["speaker"] is None else str(values["speaker"]),
        _time(values["start"], "start_time", where),
        _time(values["end"], "end_time", where),
        _words(values),
    )
    item = replace(item, gender=gender or "u")
    return _with_spans(_with_confidences(item, row, where), row, where)


def _with_confidences(item: Segment, row: dict[str, Any], where: str) -> Segment:
    confidences = row.get("word_confidences")
    if confidences is None:
        return item
    if not isinstance(confidences, list) or not all(
        isinstance(v, (int, float)) for v in confidences
    ):
        raise InputError(
            f"{where}: word_confidences must be a list of numbers, got {confidences!r}"
        )
    try:
        return replace(item, word_confidences=tuple(map(float, confidences)))
    except (ValueError, OverflowError) as error:
        raise InputError(f"{where}: word_confidences: {error}; correct or remove them") from error


def _with_spans(item: Segment, row: dict[str, Any], where: str) -> Segment:
    spans = row.get("word_spans")
    if spans is None:
        return item
    if not isinstance(spans, list) or not all(
        isinstance(span, list)
        and len(span) == 2
        and all(isinstance(edge, (int, float)) for edge in span)
        for span in spans
    ):
        raise InputError(
            f"{where}: word_spans must be a list of [start, end] in seconds, got {spans!r}"
        )
    try:
        return replace(item, word_spans=tuple((float(a), float(b)) for a, b in spans))
    except (ValueError, OverflowError) as error:
        raise InputError(f"{where}: word_spans: {error}; correct or remove them") from error


def _words(values: dict[str, Any]) -> str:
    words = values["words"]
    return " ".join(map(str, words)) if isinstance(words, list) else str(words or "")


def _time(value: Any, key: str, where: str) -> float:
    """`value` as seconds; it may be a string, as in CHiME."""
    try:
        if isinstance(value, (int, float, str)) and math.isfinite(time := float(value)):
            return time
    except (ValueError, OverflowError):
        pass  # falls through to the error
    raise InputError(f"{where}: {key} must be seconds, got {value!r}")
