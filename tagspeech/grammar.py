"""The grammar of target texts (`serialize.to_target`), one character at a time.

    <text>
    0.35-3.14>words of line one         times within the audio, (start, end) strictly increasing
    2.90-5.21>words
    </text>
    <speaker>
    <spk id="1" g="m" t="0.35-3.14"/>   each range of the text block once, speakers numbered by
    <spk id="2" g="f" t="2.90-5.21"/>   first appearance, the ranges of each in order
    </speaker>

A `State` is a prefix of a target text. It says which characters may follow; there is always at
least one until the text is complete. Times are in hundredths of a second.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

from tagspeech.serialize import END

CHARACTERS = 20, 40  # the words of a line have at most 20 characters plus 40 per second
_HEAD = '<spk id="{}" g="'
_MIDDLE = '" t="'
_CLOSING = "/>"
_GENDERS = "mfu"
_NOTHING = (-1, 0)  # the range before the first


@dataclass(frozen=True, slots=True)
class State:
    """A prefix of an output.

    Attributes:
        latest: The duration of the audio in hundredths of a second; the largest end.
        block: "open" before `<text>`, "text", "between" before `<speaker>`, or "speakers".
        ranges: In the text block those of its lines; in the speaker block those that no complete
            line has.
        number: The next speaker's number.
        rest: The incomplete line.
    """

    latest: int
    block: str = "open"
    ranges: tuple[str, ...] = ()
    number: int = 1
    rest: str = ""

    @property
    def whole(self) -> bool:
        """Whether this is a complete target text, which nothing may follow."""
        return self.block == "speakers" and self.rest == END

    @property
    def in_words(self) -> bool:
        """Whether any character may follow, not only those of `following`."""
        return self.block == "text" and ">" in self.rest and self.rest[0] != "<"

    @property
    def room(self) -> int:
        """The number of characters that may be added to the words of the incomplete line."""
        times, _, words = self.rest.partition(">")
        start, end = _hundredths(times)
        base, per_second = CHARACTERS
        return base + per_second * (end - start) // 100 - len(words)

    def following(self) -> str:
        """The characters that may follow; within words only the newline."""
        if self.block == "open":
            return _next_of("<text>", self.rest)
        if self.block == "between":
            return _next_of("<speaker>", self.rest)
        return self._in_text() if self.block == "text" else self._in_speakers()

    def after(self, piece: str) -> State | None:
        """The state after `piece`; None if `piece` may not follow."""
        head, *tails = piece.split("\n")
        state = self._after_part(head)
        for part in tails:
            if state is None or "\n" not in state.following():
                return None
            state = state.next_line()._after_part(part)
        return state

    def forced(self) -> str:
        """The characters that must follow."""
        state, text = self, ""
        while not state.in_words or state.room <= 0:
            following = state.following()
            if len(following) != 1:
                break
            text += following
            state = state.next_line() if following == "\n" else state._with(following)
        return text

    def shortest(self) -> str:
        """The shortest completion, without further lines, and with one further speaker at most."""
        state, text = self, ""
        while state.rest or state.block not in ("text", "between"):
            if state.block == "speakers":
                return text + state._shortest_speakers()
            character = state._soonest()
            text += character
            state = state.next_line() if character == "\n" else state._with(character)
        text += "</text>\n" if state.block == "text" else ""
        speakers = replace(state, block="speakers", number=1)
        return text + "<speaker>\n" + speakers._shortest_speakers()

    def _soonest(self) -> str:
        """The next character of the shortest completion of a line outside the speaker block."""
        following = self.following()
        return "<" if self.block == "text" and not self.rest else following[0]

    def _shortest_speakers(self) -> str:
        """The shortest completion in the speaker block: its line takes what ranges it can."""
        rest, head = self.rest, _HEAD.format(self.number)
        if not self.ranges:
            return END[len(rest) :]
        last, unclaimed, place = self._claimed()
        left = unclaimed
        _, quote, end = rest[len(head) + 1 + len(_MIDDLE) :].partition('"')
        if quote:
            written = _CLOSING[len(end) :]
        else:
            written = f"{head}u{_MIDDLE}"[len(rest) :]
            if last not in self.ranges:  # incomplete, or nothing yet
                place = next(
                    n for n, r in enumerate(unclaimed) if n >= place and r.startswith(last)
                )
                written += unclaimed[place][len(last) :]
                unclaimed = (*unclaimed[:place], *unclaimed[place + 1 :])
            written += "".join("," + r for r in unclaimed[place:]) + '"' + _CLOSING
            left = unclaimed[:place]
        after = replace(self, rest="", ranges=left, number=self.number + 1)
        return written + "\n" + after._shortest_speakers()

    def _with(self, character: str) -> State:
        return replace(self, rest=self.rest + character)

    def _after_part(self, part: str) -> State | None:
        """The state after `part`, which has no newline; None if `part` may not follow."""
        state = self
        for place, character in enumerate(part):
            if state.in_words:
                words = part[place:]
                fits = len(words) <= state.room
                return replace(state, rest=state.rest + words) if fits else None
            if character not in state.following():
                return None
            state = state._with(character)
        return state

    def next_line(self) -> State:
        """The state after the newline that ends the incomplete line."""
        line, blank = self.rest, replace(self, rest="")
        if self.block == "open":
            return replace(blank, block="text")
        if self.block == "between":
            return replace(blank, block="speakers")
        if self.block == "text":
            if line == "</text>":
                return replace(blank, block="between")
            return replace(blank, ranges=(*self.ranges, line.partition(">")[0]))
        return replace(blank, ranges=self._claimed()[1], number=self.number + 1)

    def _in_text(self) -> str:
        rest = self.rest
        if rest.startswith("<"):
            return _next_of("</text>", rest)
        if ">" in rest:
            return "\n"
        digits = _digits(*self.time())
        return digits if rest else "<" + digits

    def time(self) -> tuple[str, int, int, str]:
        """The incomplete time of a line of the text block before its words.

        Returns:
            What is written of it, its least and largest value in hundredths of a second, and the
            character that follows it.
        """
        before = _hundredths(self.ranges[-1]) if self.ranges else _NOTHING
        start, dash, end = self.rest.partition("-")
        if not dash:
            # If the last range ends with the audio, no other can have its start.
            return start, max(0, before[0] + (before[1] >= self.latest)), self.latest - 1, "-"
        begin = _hundredth(start)
        return end, (before[1] if begin == before[0] else begin) + 1, self.latest, ">"

    @property
    def in_time(self) -> bool:
        """Whether `time` may go on."""
        return self.block == "text" and ">" not in self.rest and not self.rest.startswith("<")

    def _in_speakers(self) -> str:
        rest, head = self.rest, _HEAD.format(self.number)
        if not self.ranges:
            return _next_of(END, rest).replace("\n", "")
        if len(rest) < len(head):
            return head[len(rest)]
        if len(rest) == len(head):
            return _GENDERS
        body = rest[len(head) + 1 :]
        if len(body) < len(_MIDDLE):
            return _MIDDLE[len(body)]
        times, quote, end = body[len(_MIDDLE) :].partition('"')
        if quote:
            return _next_of(_CLOSING, end)
        last, unclaimed, place = self._claimed()
        if last in self.ranges:  # the range is complete; the speaker may have later ones
            return ',"' if place < len(unclaimed) else '"'
        choices = unclaimed[place:] if "," in times else unclaimed[:1]
        return "".join(sorted({r[len(last)] for r in choices if r.startswith(last)}))

    def _claimed(self) -> tuple[str, tuple[str, ...], int]:
        """The last range of the incomplete speaker line, which may be incomplete itself; the ranges
        that the line leaves to other speakers; the index in these of the next range."""
        times = self.rest[len(_HEAD.format(self.number)) + 1 + len(_MIDDLE) :].partition('"')[0]
        ranges = times.split(",")
        unclaimed, place = list(self.ranges), 0
        for claimed in ranges:
            if claimed in unclaimed:
                place = unclaimed.index(claimed)
                del unclaimed[place]
        return ranges[-1], tuple(unclaimed), place


def begin(duration: float, time_grid: float = 0.01) -> State:
    """The empty output for `duration` seconds of audio, rounded up to `time_grid` seconds."""
    steps = -(-round(duration * 10000) // round(time_grid * 10000))
    return State(latest=max(1, steps) * round(time_grid * 100))


def is_target(text: str, duration: float = 9999.0) -> bool:
    """Whether `text` is a complete target text for `duration` seconds of audio."""
    state = begin(duration).after(text)
    return state is not None and state.whole


def _next_of(literal: str, written: str) -> str:
    """The next character of the line `literal`, including its newline, after `written`."""
    return literal[len(written)] if len(written) < len(literal) else "\n"


def _hundredth(time: str) -> int:
    return int(time.replace(".", ""))


def _hundredths(times: str) -> tuple[int, int]:
    start, _, end = times.partition("-")
    return _hundredth(start), _hundredth(end)


@lru_cache(100_000)
def _digits(written: str, least: int, most: int, then: str) -> str:
    """The characters that may follow `written`, a prefix of a time from `least` to `most`, or
    `then` if the time is complete."""
    if written[-3:-2] == ".":
        return then
    if least > most:
        return ""
    return "".join(char for char in "0123456789." if _reaches(written + char, least, most))


def _reaches(written: str, least: int, most: int) -> bool:
    """Whether `written` is a prefix of a time from `least` to `most` hundredths."""
    whole, point, decimals = written.partition(".")
    if not whole or "." in decimals or (len(whole) > 1 and whole[0] == "0"):
        return False
    if point:
        scale = 10 ** (2 - len(decimals))
        low = int(whole + decimals) * scale
        return low <= most and low + scale - 1 >= least
    scale = 100
    while int(whole) * scale <= most:
        if (int(whole) + 1) * scale - 1 >= least:
            return True
        if whole == "0":
            return False
        scale *= 10
    return False
