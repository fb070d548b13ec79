"""SegLST: the JSON list of meeteval, with keys added; keeps segments exactly.

    gender                        "m", "f" or "u"
    confidence, word_confidences  where known: of the words together and of each, from 0 to 1

Transcripts of other tools are read too: lists of objects with start, end, text and perhaps speaker
(WhisperX, VibeVoice, MOSS), alone, as the `segments` of an object, or one a line (`.jsonl`).

Own code rather than meeteval's, as for the other formats here: a few lines that name the entry
and the remedy where something is wrong. A test holds that meeteval reads what is written.
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

# What keys are called elsewhere, in lower case and letters only: `Start time` is `starttime`.
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
    """The list, one segment a line."""
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
    return row


def parse(text: str, file: str, session: str) -> list[Segment]:
    """The segments; `session` is that of entries that name none; other keys are ignored.

    So is `confidence`, which follows from `word_confidences`. An entry without a speaker whose
    text is a tag such as [Silence] is left out, with a warning. Where no entry has a speaker,
    texts may begin with one, as in subtitles.
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
            "%s: %d entries without a speaker hold only a tag such as [Silence] and are left out",
            *(silent[0], len(silent)),
        )
    if has_speakers or any(item.word_confidences is not None for item in segments):
        return segments
    found = split_speakers([item.words for item in segments], file)
    return [
        item if one.speaker is None else replace(item, speaker=one.speaker, words=one.words)
        for item, (one,) in zip(segments, found, strict=True)
    ]


def _entries(text: str, file: str) -> Iterator[tuple[str, Any]]:
    """("FILE, entry N", entry) of every entry of a JSON list."""
    value = _json(text, file)
    lists = [value] if isinstance(value, list) else list(_segment_lists(value))
    if len(lists) != 1:
        raise InputError(f"{file}: wants a JSON list of segments, or an object with one `segments`")
    for number, row in enumerate(lists[0], 1):
        yield f"{file}, entry {number}", row


def _lines(text: str, file: str) -> Iterator[tuple[str, Any]]:
    """("FILE, line N", entry) of every line that is not empty."""
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            where = f"{file}, line {number}"
            yield where, _json(line, where)


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # also of a number with thousands of digits
        raise InputError(f"{where}: is not JSON: {error}; SegLST is a JSON list") from error


def _segment_lists(value: Any) -> Iterator[list[Any]]:
    """The lists called `segments` in an object, or in objects inside it."""
    for key, inner in value.items() if isinstance(value, dict) else ():
        if key == "segments" and isinstance(inner, list):
            yield inner
        else:
            yield from _segment_lists(inner)


def _values(row: Any, where: str) -> dict[str, Any]:
    """The values of an entry by the keys of `_KEYS`, None where it has none.

    Raises `InputError` for what is no entry.
    """
    if not isinstance(row, dict):
        raise InputError(f"{where}: wants an object with start_time, end_time, speaker, words")
    own = {re.sub("[^a-z]", "", name.lower()): value for name, value in row.items()}
    words = own.get("words")
    if isinstance(words, list) and (not words or isinstance(words[0], dict)):
        del own["words"]  # of WhisperX: each word with its times; the text stands beside them
    values = {
        key: next((own[name] for name in names if own.get(name) is not None), None)
        for key, names in _KEYS.items()
    }
    if "start_time" not in row and None in (values["start"], values["end"], values["words"]):
        raise InputError(
            f"{where}: wants an object with speaker, start, end, text and perhaps gender, session"
        )
    return values


def _segment(row: dict[str, Any], values: dict[str, Any], where: str, session: str) -> Segment:
    gender = values["gender"]
    if "start_time" not in row:
        gender = gender_of(gender, where)
    elif gender is not None and gender not in GENDERS:
        raise InputError(f"{where}: gender is {gender!r}; wants one of {', '.join(GENDERS)}")
    item = segment(
        where,
        session if values["session"] is None else str(values["session"]),
        UNKNOWN_SPEAKER if values["speaker"] is None else str(values["speaker"]),
        _time(values["start"], "start_time", where),
        _time(values["end"], "end_time", where),
        _words(values),
    )
    item = replace(item, gender=gender or "u")
    sure = row.get("word_confidences")
    if sure is None:
        return item
    if not isinstance(sure, list) or not all(isinstance(one, (int, float)) for one in sure):
        raise InputError(f"{where}: word_confidences is {sure!r}; wants a list of numbers")
    try:
        return replace(item, word_confidences=tuple(map(float, sure)))
    except (ValueError, OverflowError) as error:
        raise InputError(f"{where}: word_confidences: {error}; correct or remove them") from error


def _words(values: dict[str, Any]) -> str:
    words = values["words"]
    return " ".join(map(str, words)) if isinstance(words, list) else str(words or "")


def _time(value: Any, key: str, where: str) -> float:
    """The number `value`; as CHiME writes it, it may be a string."""
    try:
        if isinstance(value, (int, float, str)) and math.isfinite(time := float(value)):
            return time
    except (ValueError, OverflowError):
        pass  # a string or an integer that is no float is refused as any other value is
    raise InputError(f"{where}: {key} is {value!r}; wants seconds")
