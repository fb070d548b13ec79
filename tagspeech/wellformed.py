"""Which unfinished outputs can still become a target text: what constrained decoding asks.

The grammar is that of `serialize.to_target`, with all it knows beyond a list of lines: lines are
sorted by start and end after they begin; the speaker block says every range of the text block once,
speakers in order of their first line, the lines of each in order.
"""

from __future__ import annotations

import re

from tagspeech.serialize import END

_RANGE = re.compile(r"((?:0|[1-9]\d{0,3})\.\d\d)-((?:0|[1-9]\d{0,3})\.\d\d)")
_NUMBER = re.compile(r"(?:0|[1-9]\d{0,3})(?:\.\d{0,2})?")
_OPENING = ("<text>", "</text>", "<speaker>")
_GENDERS = "mfu"


def is_whole(text: str) -> bool:
    """Whether `text` is a target text; nothing may follow it then."""
    return text.endswith(f"\n{END}") and goes_on(text)


def goes_on(text: str) -> bool:
    """Whether `text` is a target text or becomes one if the right characters follow."""
    *lines, rest = text.split("\n")
    if not lines:
        return "<text>".startswith(rest)
    if lines[0] != "<text>":
        return False
    ranges: list[str] = []
    number = 1
    while number < len(lines) and lines[number] != "</text>":
        previous = ranges[-1] if ranges else ""
        times, mark, _ = lines[number].partition(">")
        if not mark or not _is_range(times, previous):
            return False
        ranges.append(times)
        number += 1
    if number == len(lines):
        return "</text>".startswith(rest) or _begins_line(rest, ranges[-1] if ranges else "")
    if number + 1 == len(lines):
        return "<speaker>".startswith(rest)
    if lines[number + 1] != "<speaker>":
        return False
    return _speakers(lines[number + 2 :], rest, ranges)


def _begins_line(rest: str, previous: str) -> bool:
    """Whether `rest` begins a line of the text block that follows the range `previous`."""
    times, mark, _ = rest.partition(">")
    if mark:
        return _is_range(times, previous)
    start, dash, end = times.partition("-")
    if not dash:
        return _reaches(start, _start(previous), or_equal=True)
    if not _is_start(start, previous):
        return False
    return not end or _reaches(end, float(start), or_equal=False)


def _is_start(start: str, previous: str) -> bool:
    whole = _NUMBER.fullmatch(start) and start[-3:-2] == "."
    return bool(whole) and float(start) >= _start(previous)


def _is_range(times: str, previous: str) -> bool:
    match = _RANGE.fullmatch(times)
    return match is not None and _start(previous) <= float(match[1]) < float(match[2])


def _start(times: str) -> float:
    return float(times.partition("-")[0] or 0)


def _reaches(digits: str, least: float, or_equal: bool) -> bool:
    """Whether a number of two decimals that begins with `digits` can be at, or above, `least`."""
    if not digits:
        return True
    if not _NUMBER.fullmatch(digits):
        return False
    whole, _, decimals = digits.partition(".")
    if "." not in digits and whole != "0":
        whole = whole.ljust(4, "9")
    most = float(f"{whole}.{decimals.ljust(2, '9')}")
    return most >= least if or_equal else most > least


def _speakers(lines: list[str], rest: str, ranges: list[str]) -> bool:
    """Whether the lines of the speaker block and the beginning of one more can go on."""
    left = list(ranges)
    for number, line in enumerate(lines, 1):
        if not _claim(line, number, left, whole=True):
            return False
    if not left:
        return END.startswith(rest)
    return _claim(rest, len(lines) + 1, left, whole=False)


def _claim(line: str, number: int, left: list[str], whole: bool) -> bool:
    """Whether `line` is the entry of speaker `number`, or begins it; takes its ranges off `left`.

    The first range is the first that is left: speakers are numbered by first appearance.
    """
    head = f'<spk id="{number}" g="'
    if len(line) <= len(head):
        return not whole and head.startswith(line)
    middle = '" t="'
    gender, body = line[len(head)], line[len(head) + 1 :]
    if not line.startswith(head) or gender not in _GENDERS or not left:
        return False
    if len(body) < len(middle) or (not whole and body == middle):
        return not whole and middle.startswith(body)
    if not body.startswith(middle):
        return False
    times, quote, closing = body[len(middle) :].partition('"')
    if quote and not (closing == "/>" if whole else "/>".startswith(closing)):
        return False
    if whole and not quote:
        return False
    *claimed, last = times.split(",")
    if quote:
        claimed.append(last)
    place = 0
    for index, one in enumerate(claimed):
        found = left[:1] if index == 0 else left[place:]
        if one not in found:
            return False
        place += found.index(one)
        del left[place]
    if quote:
        return True
    follows = left[:1] if not claimed else left[place:]
    return any(one.startswith(last) for one in follows)
