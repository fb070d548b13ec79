"""Converts segments to the target text of the LLM and back (paper: serialized output).

    <text>
    0.35-3.14>words of line one
    2.90-5.21>words
    </text>
    <speaker>
    <spk id="1" g="m" t="0.35-3.14"/>
    <spk id="2" g="f" t="2.90-5.21"/>
    </speaker>

This is not XML but a grammar of lines. A line of the text block is `START-END>words`, and the words
are everything after the first `>`, so `&`, `<` and even `</text>` in them are words. A line is a
tag only if it consists of the tag alone.

Lines and speakers are paired by their range. Equal ranges pair in order of appearance, so
`to_target` writes lines of equal range in the order of their speakers' numbers.
"""

from __future__ import annotations

import re
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import ROUND_FLOOR, Decimal

from tagspeech.pairing import nearest_pairs
from tagspeech.segments import Segment, by_time

UNKNOWN_SPEAKER = "?"  # speaker of a line whose range is in no <spk>
TOLERANCE = 0.05  # seconds by which a range may differ between the two blocks
MOST_PAIRS = 10_000_000  # of lines and ranges whose times are compared
END = "</speaker>"  # last line of a complete output
SPEAKER_BLOCK = "<speaker>\n"  # start of the second block

_TAGS = {  # tag: (the block it belongs in, the block after it)
    "<text>": ("before", "text"),
    "</text>": ("text", "between"),
    "<speaker>": ("between", "speaker"),
    END: ("speaker", "after"),
}
_RANGE = re.compile(r" *([0-9]{1,7}(?:\.[0-9]{1,9})?) *- *([0-9]{1,7}(?:\.[0-9]{1,9})?) *")
_ATTRIBUTE = re.compile(r'([a-z]+) *= *"([^"]*)("|$)')
_STRUCTURE = re.compile(r"\s*(</?(?:text|speaker)>|<spk\b[^>]*>)\s*")


def grid_steps(segment: Segment, step: Decimal) -> tuple[int, int]:
    """Start and end in steps of `step` seconds, rounded half up, at least one step apart.

    The decimal number is rounded (59.995 becomes 60.00), not its binary neighbour.
    """
    start, end = (
        int((Decimal(str(float(time))) / step + Decimal("0.5")).to_integral_value(ROUND_FLOOR))
        for time in (segment.start, segment.end)
    )
    return start, max(end, start + 1)


def to_target(segments: list[Segment], time_grid: float = 0.01) -> str:
    """The target text of the segments of one session, without a final newline.

    Times are rounded half up to `time_grid` seconds. Lines are sorted by start, end, and number of
    the speaker. Speakers are numbered by first appearance. A speaker's gender is the first known
    gender among the speaker's segments.

    Raises:
        ValueError: The segments have several sessions, or `time_grid` is not a multiple of 0.01.
    """
    if len({segment.session for segment in segments}) > 1:
        raise ValueError("a target text must have one session")
    step = Decimal(str(time_grid))
    if step <= 0 or step % Decimal("0.01"):
        raise ValueError(f"time_grid: must be a positive multiple of 0.01 s, got {time_grid}")
    # Sorting by exact times first makes ties after rounding independent of the input order.
    lines = [(*grid_steps(segment, step), segment) for segment in by_time(segments)]
    lines.sort(key=lambda line: line[:2])
    numbers: dict[str, int] = {}
    for _, _, segment in lines:
        numbers.setdefault(segment.speaker, len(numbers) + 1)
    lines.sort(key=lambda line: (*line[:2], numbers[line[2].speaker]))

    genders = dict.fromkeys(numbers, "u")
    ranges: dict[str, list[str]] = {speaker: [] for speaker in numbers}
    text = []
    for start, end, segment in lines:
        if genders[segment.speaker] == "u":
            genders[segment.speaker] = segment.gender
        ranges[segment.speaker].append(f"{start * step:.2f}-{end * step:.2f}")
        text.append(f"{ranges[segment.speaker][-1]}>{segment.words}")
    speakers = [
        f'<spk id="{number}" g="{genders[speaker]}" t="{",".join(ranges[speaker])}"/>'
        for speaker, number in numbers.items()
    ]
    return "\n".join(["<text>", *text, "</text>", "<speaker>", *speakers, END])


@dataclass(frozen=True)
class ParsedTarget:
    """The result of parsing an output.

    Attributes:
        segments: Sorted by start, end, and line of the text block.
        problems: A sentence for each difference from the format of `to_target`.
    """

    segments: list[Segment]
    problems: list[str]

    @property
    def malformed(self) -> bool:
        """Whether the output has any problem."""
        return bool(self.problems)


def parse_target(
    text: str, session: str, confidences: Mapping[int, Sequence[float]] | None = None
) -> ParsedTarget:
    """Parses any `text` and keeps what can be parsed; never raises.

    - An unreadable line or range is dropped and quoted in a problem.
    - Words whose range is in no <spk> belong to `UNKNOWN_SPEAKER`; a range without a line becomes
      a segment without words. Both are problems.
    - Ranges that differ by up to `TOLERANCE` between the blocks, or that share at least half of
      their union, are paired, nearest first, with the times of the speaker block and a problem: a
      line more often has wrong times than no speaker.
    - Repeated lines are no problem if the speaker block repeats their range as often. Other exact
      repetitions (same range and words, or same range and speaker), as in an output caught in a
      loop, are dropped and quoted in a problem.
    - If no block tag is on a line of its own, lines are split at the tags, with a problem.
    - Text after `</speaker>` is ignored, with a problem.

    Args:
        text: The output.
        session: The session of the segments.
        confidences: Of the words of a line, by line number in `text` from 1.
    """
    reader = _Reader(session, confidences or {})
    reader.read(text)
    pairs = reader.pair()
    return ParsedTarget(by_time(pairs), reader.problems)


@dataclass
class _Reader:
    """Reads the two blocks of an output into half-filled segments, then pairs them."""

    session: str
    confidences: Mapping[int, Sequence[float]]
    lines: list[Segment] = field(default_factory=list)  # of the text block, speaker unknown
    owners: list[Segment] = field(default_factory=list)  # of the speaker block, words empty
    speakers: set[str] = field(default_factory=set)  # of the owners
    problems: list[str] = field(default_factory=list)

    def read(self, text: str) -> None:
        """Fills `lines` and `owners`, line by line."""
        rows = [row.strip() for row in text.split("\n")]
        if not {"<text>", "<speaker>"} & set(rows) and ("<text>" in text or "<speaker>" in text):
            self.problems.append("the blocks are not on lines of their own")
            rows = [row.strip() for row in _STRUCTURE.sub(r"\n\1\n", text).split("\n")]
            self.confidences = {}  # line numbers have changed
        block = "before"
        for number, row in enumerate(rows, 1):
            where = f"line {number}: "
            if not row:
                continue
            if block == "after":
                self.problems.append(f"{where}after {END}: {row!r}")
            elif row in _TAGS:
                expected, following = _TAGS[row]
                if block != expected:
                    self.problems.append(f"{where}{row} out of place")
                block = following
            elif row.startswith("<spk"):
                if block != "speaker":
                    self.problems.append(f"{where}a speaker outside the speaker block: {row!r}")
                self._speaker(row, where)
            else:
                self._line(row, number, block == "text")
        if block != "after":
            self.problems.append(f"it ends before {END}")

    def _line(self, row: str, number: int, in_place: bool) -> None:
        where = f"line {number}: "
        times, mark, words = row.partition(">")
        line = self._segment(times) if mark else None
        if line is None:
            self.problems.append(f"{where}is no START-END>words: {row!r}")
            return
        values = self.confidences.get(number)
        confidences = None if values is None else tuple(values)
        words = " ".join(words.split())
        self.lines.append(replace(line, words=words, word_confidences=confidences))
        if not in_place:
            self.problems.append(f"{where}words outside the text block: {row!r}")

    def _speaker(self, row: str, where: str) -> None:
        found = {name: (value, quote) for name, value, quote in _ATTRIBUTE.findall(row)}
        speaker, gender = (found.get(name, ("", ""))[0] for name in ("id", "g"))
        times, closed = found.get("t", ("", '"'))
        if not speaker:
            self.problems.append(f"{where}a speaker without id: {row!r}")
        if gender not in ("m", "f", "u"):
            self.problems.append(f"{where}gender is not m, f or u: {row!r}")
            gender = "u"
        if speaker in self.speakers:
            self.problems.append(f"{where}speaker {speaker} has two entries: {row!r}")
        if not row.endswith("/>"):
            self.problems.append(f"{where}the speaker's entry is cut off: {row!r}")
        ranges = times.split(",")
        # If the list is cut off, its last range is complete only with two decimals.
        if not closed and not re.search(r"-.*\.[0-9]{2}$", ranges[-1]):
            ranges.pop()
        for text in ranges:
            owner = self._segment(text)
            if owner is None:
                self.problems.append(f"{where}is no range: {text!r}")
            else:
                name = speaker or UNKNOWN_SPEAKER
                self.owners.append(replace(owner, speaker=name, gender=gender))
                self.speakers.add(name)

    def _segment(self, times: str) -> Segment | None:
        match = _RANGE.fullmatch(times)
        if not match or not float(match[1]) < float(match[2]):
            return None
        return Segment(self.session, UNKNOWN_SPEAKER, float(match[1]), float(match[2]), "")

    def pair(self) -> list[Segment]:
        """Joins the two blocks: the lines in order, then the ranges without a line."""
        waiting: dict[tuple[float, float], deque[int]] = defaultdict(deque)
        for index, owner in enumerate(self.owners):
            waiting[owner.start, owner.end].append(index)
        owner_of: dict[int, int] = {}
        for index, line in enumerate(self.lines):
            if waiting[line.start, line.end]:
                owner_of[index] = waiting[line.start, line.end].popleft()
        lines = self._unpaired(self.lines, set(owner_of))
        owners = self._unpaired(self.owners, set(owner_of.values()))
        for line_index, owner_index in self._nearest(lines, owners):
            owner_of[line_index] = owner_index
            line, owner = self.lines[line_index], self.owners[owner_index]
            text, speaker = (f"{half.start:.2f}-{half.end:.2f}" for half in (line, owner))
            self.problems.append(f"{text} in the text block is {speaker} in the speaker block")

        paired = []
        for index, line in enumerate(self.lines):
            if index in owner_of:
                owner, confidences = self.owners[owner_of[index]], line.word_confidences
                paired.append(replace(owner, words=line.words, word_confidences=confidences))
            elif index in lines:
                paired.append(line)
                self.problems.append(f"{line.start:.2f}-{line.end:.2f} has no speaker")
        for index in sorted(set(owners) - set(owner_of.values())):
            owner = self.owners[index]
            paired.append(owner)
            self.problems.append(
                f"{owner.start:.2f}-{owner.end:.2f} of speaker {owner.speaker} has no line of text"
            )
        return paired

    def _unpaired(self, halves: list[Segment], used: set[int]) -> list[int]:
        """Indices of `halves` that are not `used`, without exact repetitions."""
        seen = {halves[index] for index in used}
        unpaired = []
        for index, half in enumerate(halves):
            if index in used:
                continue
            if half in seen:
                who = half.words or half.speaker
                self.problems.append(f"{half.start:.2f}-{half.end:.2f} is repeated: {who!r}")
            else:
                seen.add(half)
                unpaired.append(index)
        return unpaired

    def _nearest(self, lines: list[int], owners: list[int]) -> list[tuple[int, int]]:
        """Pairs of unpaired lines and owners with similar times, nearest first."""
        if len(lines) * len(owners) > MOST_PAIRS:
            self.problems.append(
                f"{len(lines)} lines and {len(owners)} ranges are too many to pair by similar times"
            )
            return []
        pairs = nearest_pairs(
            [(self.lines[index].start, self.lines[index].end) for index in lines],
            [(self.owners[index].start, self.owners[index].end) for index in owners],
            TOLERANCE,
        )
        return [(lines[line], owners[owner]) for line, owner in pairs]
