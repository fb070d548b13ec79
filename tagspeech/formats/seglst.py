"""SegLST: the JSON list of meeteval, with keys added; keeps segments exactly.

    gender                        "m", "f" or "u"
    confidence, word_confidences  where known: of the words together and of each, from 0 to 1

Own code rather than meeteval's, as for the other formats here: a few lines that name the entry
and the remedy where something is wrong. A test holds that meeteval reads what is written.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

from tagspeech.errors import InputError
from tagspeech.formats.common import by_session, segment
from tagspeech.segments import GENDERS, Segment
from tagspeech.serialize import UNKNOWN_SPEAKER


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
    """The segments; `session` is that of entries without `session_id`; other keys are ignored.

    So is `confidence`, which follows from `word_confidences`.
    """
    try:
        rows = json.loads(text)
    except ValueError as error:  # also of a number with thousands of digits
        raise InputError(f"{file}: is not JSON: {error}; SegLST is a JSON list") from error
    if not isinstance(rows, list):
        raise InputError(f"{file}: wants a JSON list of segments")
    return [_segment(row, f"{file}, entry {number}", session) for number, row in enumerate(rows, 1)]


def _segment(row: Any, where: str, session: str) -> Segment:
    if not isinstance(row, dict):
        raise InputError(f"{where}: wants an object with start_time, end_time, speaker, words")
    gender = row.get("gender", "u")
    if gender not in GENDERS:
        raise InputError(f"{where}: gender is {gender!r}; wants one of {', '.join(GENDERS)}")
    item = segment(
        where,
        _text(row, "session_id", session),
        _text(row, "speaker", UNKNOWN_SPEAKER),
        _time(row, "start_time", where),
        _time(row, "end_time", where),
        _text(row, "words", ""),
    )
    sure = row.get("word_confidences")
    if sure is None:
        return replace(item, gender=gender)
    if not isinstance(sure, list) or not all(isinstance(one, (int, float)) for one in sure):
        raise InputError(f"{where}: word_confidences is {sure!r}; wants a list of numbers")
    try:
        return replace(item, gender=gender, word_confidences=tuple(map(float, sure)))
    except (ValueError, OverflowError) as error:
        raise InputError(f"{where}: word_confidences: {error}; correct or remove them") from error


def _text(row: dict[str, Any], key: str, default: str) -> str:
    value = row.get(key)
    return default if value is None else str(value)


def _time(row: dict[str, Any], key: str, where: str) -> float:
    """The number at `key`; as CHiME writes it, it may be a string."""
    value = row.get(key)
    try:
        if isinstance(value, (int, float, str)) and math.isfinite(time := float(value)):
            return time
    except (ValueError, OverflowError):
        pass  # a string or an integer that is no float is refused as any other value is
    raise InputError(f"{where}: {key} is {value!r}; wants seconds")
