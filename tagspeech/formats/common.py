"""What the formats share: whole milliseconds, names that survive a separator, clear errors."""

from __future__ import annotations

import re
from decimal import Decimal
from urllib.parse import quote, unquote

from tagspeech.errors import InputError
from tagspeech.segments import Segment
from tagspeech.serialize import grid_steps

GENDERS = {"m": "m", "male": "m", "f": "f", "female": "f", "u": "u", "unknown": "u", "": "u"}


def by_session(segments: list[Segment]) -> list[Segment]:
    """Sorted by session, then start; what starts together keeps its order."""
    return sorted(segments, key=lambda item: (item.session, item.start))


def one_session(segments: list[Segment], format: str) -> None:
    """Raises `InputError` when a format without a place for sessions is given several."""
    sessions = sorted({item.session for item in segments})
    if len(sessions) > 1:
        raise InputError(
            f"{format} holds one session, not {len(sessions)} ({', '.join(sessions[:3])}, ...): "
            "choose seglst, rttm, stm or ctm, or give one session at a time"
        )


def milliseconds(item: Segment, may_be_equal: bool = False) -> tuple[int, int]:
    """Start and end rounded half up to whole milliseconds.

    Args:
        may_be_equal: Whether a segment of zero duration stays one. Every other segment lasts a
            millisecond at least, and so does that one in a format that holds no zero duration.
    """
    start, end = grid_steps(item, Decimal("0.001"))
    return start, start if may_be_equal and item.start == item.end else end


def seconds(time: int) -> str:
    """Milliseconds as seconds with three decimals."""
    return f"{time // 1000}.{time % 1000:03}"


def segment(
    where: str, session: str, speaker: str, start: float, end: float, words: str = ""
) -> Segment:
    """A segment read at `where` ("FILE, line 3"), white space in its words collapsed.

    Raises `InputError` when it is none: times that are negative or the wrong way round.
    """
    try:
        return Segment(session, speaker, start, end, " ".join(words.split()))
    except ValueError as error:
        raise InputError(f"{where}: {error}; correct or remove it") from error


def gender_of(value: object, where: str) -> str:
    """m, f or u. Raises `InputError` for what is none of `GENDERS`."""
    gender = GENDERS.get(str("" if value is None else value).lower())
    if gender is None:
        raise InputError(f"{where}: gender is {value!r}; wants m, f or u")
    return gender


def encode_name(name: str, unsafe: str) -> str:
    """`name` with every match of the pattern `unsafe`, and every %, as %XX (UTF-8 bytes)."""
    return re.sub(f"%|{unsafe}", lambda match: quote(match[0], safe=""), name)


def decode_name(name: str, unsafe: str) -> str:
    """Undoes `encode_name`; a name that it cannot have written, such as "50%", stays."""
    decoded = unquote(name)
    return decoded if encode_name(decoded, unsafe) == name else name
