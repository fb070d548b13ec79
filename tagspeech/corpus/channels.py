"""Ids of recordings that are one channel of a file, and the channels that NIST's files name.

With `--channel each`, channel 0 of the audio of `call` is the recording `call-ch0`, channel 1 is
`call-ch1`. In STM, CTM and RTTM the field after the session may say on which of them a line is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Set

FIELDS = {"stm": (0, 1), "ctm": (0, 1), "rttm": (1, 2)}  # of session and channel


def channel_id(name: str, channel: int) -> str:
    """The id of one channel, counted from 0, of the recording `name`."""
    return f"{name}-ch{channel}"


def name_sides(text: str, format: str) -> str:
    """Renames sessions in the text of an STM, CTM or RTTM file to the ids of their channels.

    Letters are channels: A is the first. Numbers are channels where one session has several of
    them, counted from 0 if one of them is 0, else from 1: many tools write the same number on
    every line, which means nothing. Other lines stay as they are.
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
    """The channel that a label means among all labels of its session; None: it means nothing."""
    if len(label) == 1 and "A" <= label.upper() <= "Z":
        return ord(label.upper()) - ord("A")
    if len(labels) > 1 and all(one.isdecimal() for one in labels):
        return int(label) - (0 if "0" in labels else 1)
    return None
