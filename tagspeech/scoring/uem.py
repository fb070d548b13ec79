"""NIST's UEM files, which list the stretches of each recording to score."""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Collection
from itertools import pairwise
from pathlib import Path, PurePosixPath
from unicodedata import normalize

from tagspeech.errors import InputError
from tagspeech.files import read_text
from tagspeech.scoring.diarization import Stretch

log = logging.getLogger(__name__)


def read_uem(path: str | Path, sessions: Collection[str]) -> dict[str, list[Stretch]]:
    """The sorted stretches (start, end), in seconds, of each of `sessions` in the file.

    A line has session, channel, start and end; `;` and `#` begin a comment line. If no session has
    the full name in the first column, its folder and extension are ignored. Sessions without a line
    and lines of other sessions are reported by a warning.

    Raises:
        InputError: A line is malformed, stretches of a session overlap or differ between channels,
            or none of `sessions` has a line.
    """
    found = _read(Path(path))
    known = {normalize("NFC", session): session for session in sessions}
    named = {name: known.get(name, known.get(PurePosixPath(name).stem)) for name in found}
    unknown = [name for name, session in named.items() if session is None]
    if len(unknown) == len(found):
        raise InputError(
            f"{path}: none of its sessions is in the reference, such as {unknown[0]!r}; "
            "its first column must be the names of sessions"
        )
    uem: dict[str, list[Stretch]] = {}
    for name, session in named.items():
        if session is None:
            continue
        if session in uem:
            raise InputError(f"{path}: session {session!r} is named in two ways; keep one of them")
        uem[session] = found[name]
    missing = [name for name in sessions if name not in uem]
    for names, text in (
        (missing, "has no line for session %r (%d such); all of it is scored"),
        (unknown, "session %r (%d such) is not in the reference; its lines are not used"),
    ):
        if names:
            log.warning(f"%s: {text}", path, names[0], len(names))
    return uem


def _read(path: Path) -> dict[str, list[Stretch]]:
    """The stretches of each name in the file, sorted."""
    channels: defaultdict[str, defaultdict[str, list[Stretch]]]
    channels = defaultdict(lambda: defaultdict(list))
    for number, line in enumerate(read_text(path).splitlines(), 1):
        fields = line.split()
        if not fields or fields[0][0] in ";#":
            continue
        where = f"{path}, line {number}"
        if len(fields) != 4:
            raise InputError(
                f"{where}: must have session, channel, start and end, got {len(fields)} fields"
            )
        name, channel, *times = fields
        start, end = (_seconds(time, where) for time in times)
        if start >= end:
            raise InputError(f"{where}: start must be before its end, got {start:g} and {end:g}")
        channels[normalize("NFC", name)][channel].append((start, end))
    if not channels:
        raise InputError(f"{path}: has no line that names a session; score without --uem")
    return {name: _merge_channels(path, name, times) for name, times in channels.items()}


def _seconds(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise InputError(f"{where}: a time must be seconds from 0, got {text!r}")
    return value


def _merge_channels(path: Path, name: str, channels: dict[str, list[Stretch]]) -> list[Stretch]:
    """The stretches of a recording. Segments have no channel, so all channels must agree."""
    stretches, *others = map(sorted, channels.values())
    if any(other != stretches for other in others):
        raise InputError(
            f"{path}: session {name!r} has other times on channels {' and '.join(channels)}; "
            "they must be the same"
        )
    for (_, end), (start, after) in pairwise(stretches):
        if start < end:
            raise InputError(
                f"{path}: session {name!r}: {start:g}-{after:g} must not overlap with what is "
                f"before it, to {end:g}"
            )
    return stretches
