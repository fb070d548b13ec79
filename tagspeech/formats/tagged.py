"""The target text of one session as a file: `tagspeech.serialize` plus a final newline."""

from __future__ import annotations

import logging

from tagspeech.errors import InputError
from tagspeech.formats.common import one_session
from tagspeech.segments import Segment
from tagspeech.serialize import parse_target, to_target


def render(segments: list[Segment]) -> str:
    """The target text, times with two decimals. Raises `InputError` for several sessions."""
    one_session(segments, "tagged")
    return to_target(segments) + "\n"


def parse(text: str, file: str, session: str) -> list[Segment]:
    """Reads as many segments as can be parsed and logs each problem as a warning.

    Raises:
        InputError: The text has problems and no segment.
    """
    parsed = parse_target(text, session)
    if parsed.malformed and not parsed.segments:
        raise InputError(f"{file}: is no target text: {parsed.problems[0]}")
    for problem in parsed.problems:
        logging.warning("%s: %s", file, problem)
    return parsed.segments
