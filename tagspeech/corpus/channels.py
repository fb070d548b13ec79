"""Ids of recordings that are one channel of a file, and channel fields of NIST's formats.

With `--channel each`, channel 0 of the audio `call` is the recording `call-ch0`, channel 1 is
`call-ch1`. In STM, CTM and RTTM, the field after the session can name the channel.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Set

FIELDS = {"stm": (0, 1), "ctm": (0, 1), "rttm": (1, 2)}  # indices of session and channel


def channel_id(name: str, channel: int) -> str:
    """The id of a channel, counted from 0, of the recording `name`."""
    return f"{name}-ch{channel}"


def name_sides(text: str, format: str) -> str:
    """Replaces sessions in the text of an STM, CTM or RTTM file by ids of channels.

    A letter is a channel; A is the first. A number is a channel only if the session has different
    numbers, because many tools write the same number on every line; numbers count from 0 if 0
    occurs, else from 1. Other lines do not change.
    """
    session, channel = FIELDS[format]
    labels: defaultdict[str, set[str]] = defaultdict(set)
    lines = text.split("\n")
    for line in lines:
        fields = line.split(maxsplit=channel + 1)
        if len(fields) > channel:
            labels[fields[session]].add(fields[channel])
    for number, line in enumerate(lines):
        fields = line.split(maxsplit=channel + 1)
        if len(fields) <= channel or line.startswith(";"):
            continue
        side = _side(fields[channel], labels[fields[session]])
        if side is not None:
            fields[session] = channel_id(fields[session], side)
            lines[number] = " ".join(fields)
    return "\n".join(lines)


def _side(label: str, labels: Set[str]) -> int | None:
    """The channel of a label, given all labels of its session; None if it names no channel."""
    if len(label) == 1 and "A" <= label.upper() <= "Z":
        return ord(label.upper()) - ord("A")
    if len(labels) > 1 and all(label.isdecimal() for label in labels):
        return int(label) - (0 if "0" in labels else 1)
    return None
