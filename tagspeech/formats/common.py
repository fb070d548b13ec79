"""Helpers for all formats: milliseconds, escaped names, errors."""

from __future__ import annotations

import re
from decimal import Decimal
from urllib.parse import quote, unquote

from tagspeech.errors import InputError, is_encodable
from tagspeech.segments import Segment
from tagspeech.serialize import grid_steps

GENDERS = {"m": "m", "male": "m", "f": "f", "female": "f", "u": "u", "unknown": "u", "": "u"}


def by_session(segments: list[Segment]) -> list[Segment]:
    """Sorted by session, then start; the sort is stable."""
    return sorted(segments, key=lambda item: (item.session, item.start))


def one_session(segments: list[Segment], format: str) -> None:
    """Raises `InputError` if `segments` have several sessions, of which `format` holds one."""
    sessions = sorted({item.session for item in segments})
    if len(sessions) > 1:
        raise InputError(
            f"{format} holds one session, not {len(sessions)} ({', '.join(sessions[:3])}, ...): "
            "choose seglst, rttm, stm or ctm, or write one session at a time"
        )


def milliseconds(item: Segment, may_be_equal: bool = False) -> tuple[int, int]:
    """Start and end in milliseconds, rounded half up, at least one apart.

    With `may_be_equal`, a segment of zero duration keeps it, for formats that can hold it.
    """
    start, end = grid_steps(item, Decimal("0.001"))
    return start, start if may_be_equal and item.start == item.end else end


def seconds(time: int) -> str:
    """Milliseconds as seconds with three decimals."""
    return f"{time // 1000}.{time % 1000:03}"


def segment(
    where: str, session: str, speaker: str, start: float, end: float, words: str = ""
) -> Segment:
    """A segment read at `where` ("FILE, line 3"); white space in `words` is collapsed.

    Raises:
        InputError: The times are negative or reversed, or UTF-8 cannot hold a text.
    """
    for text in (session, speaker, words):
        if not is_encodable(text):
            raise InputError(f"{where}: must be text that UTF-8 can hold, got {text[:80]!r}")
    try:
        return Segment(session, speaker, start, end, " ".join(words.split()))
    except ValueError as error:
        raise InputError(f"{where}: {error}; correct or remove it") from error


def gender_of(value: object, where: str) -> str:
    """The gender as m, f or u. Raises `InputError` if `value` is not one of `GENDERS`."""
    gender = GENDERS.get(str("" if value is None else value).lower())
    if gender is None:
        raise InputError(f"{where}: gender must be m, f or u, got {value!r}")
    return gender


def encode_name(name: str, unsafe: str) -> str:
    """Escapes `%` and each match of the pattern `unsafe` in `name` as %XX (UTF-8 bytes)."""
    return re.sub(f"%|{unsafe}", lambda match: quote(match[0], safe=""), name)


def decode_name(name: str, unsafe: str) -> str:
    """Undoes `encode_name`; keeps a name that it cannot have written, such as "50%"."""
    decoded = unquote(name)
    return decoded if encode_name(decoded, unsafe) == name else name
