"""What the formats share: whole milliseconds, names that survive a separator, clear errors."""

from __future__ import annotations

import re
from decimal import Decimal
from urllib.parse import quote, unquote

from tagspeech.errors import InputError
from tagspeech.segments import Segment
from tagspeech.serialize import grid_steps


def by_session(segments: list[Segment]) -> list[Segment]:
    """Sorted by session, then start, then end; what is equal keeps the order it has."""
    return sorted(segments, key=lambda item: (item.session, item.start, item.end))


def one_session(segments: list[Segment], format: str) -> None:
    """Raises `InputError` when a format without a place for sessions is given several."""
    sessions = sorted({item.session for item in segments})
    if len(sessions) > 1:
        raise InputError(
            f"{format} holds one session, not {len(sessions)} ({', '.join(sessions[:3])}, ...): "
            "choose seglst, rttm, stm or ctm, or give one session at a time"
        )


def milliseconds(item: Segment) -> tuple[int, int]:
    """Start and end rounded half up to whole milliseconds, never equal."""
    return grid_steps(item, Decimal("0.001"))


def seconds(time: int) -> str:
    """Milliseconds as seconds with three decimals."""
    return f"{time // 1000}.{time % 1000:03}"


def segment(
    where: str, session: str, speaker: str, start: float, end: float, words: str = ""
) -> Segment:
    """A segment read at `where` ("FILE, line 3"), white space in its words collapsed.

    Raises `InputError` when it is none: times that are negative, equal or the wrong way round.
    """
    try:
        return Segment(session, speaker, start, end, " ".join(words.split()))
    except ValueError as error:
        raise InputError(f"{where}: {error}; correct or remove it") from error


def encode_name(name: str, unsafe: str) -> str:
    """`name` with every match of the pattern `unsafe`, and every %, as %XX (UTF-8 bytes)."""
    return re.sub(f"%|{unsafe}", lambda match: quote(match[0], safe=""), name)


def decode_name(name: str, unsafe: str) -> str:
    """Undoes `encode_name`; a name that it cannot have written, such as "50%", stays."""
    decoded = unquote(name)
    return decoded if encode_name(decoded, unsafe) == name else name
