"""What a decoder may write: target texts, and nothing else (the grammar of `serialize.to_target`).

    <text>
    0.35-3.14>words of line one         times in the audio, (start, end) strictly increasing
    2.90-5.21>words
    </text>
    <speaker>
    <spk id="1" g="m" t="0.35-3.14"/>   each range of the text block once, speakers numbered by
    <spk id="2" g="f" t="2.90-5.21"/>   first appearance, the ranges of each in order
    </speaker>

A `State` is what is written: whole lines, condensed to what the rest depends on, and a line that is
not finished. It knows which characters may follow; there is always one, until the text is whole.
Times are counted in hundredths of a second.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

from tagspeech.serialize import END

CHARACTERS = 20, 40  # most in the words of a line: so many, and so many for each of its seconds
_HEAD = '<spk id="{}" g="'
_MIDDLE = '" t="'
_CLOSING = "/>"
_GENDERS = "mfu"
_NOTHING = (-1, 0)  # the range before the first


@dataclass(frozen=True, slots=True)
class State:
    """An output as far as it is written.

    latest  hundredths of a second that no end exceeds: the audio's duration
    block   open: before `<text>`; text; between: before `<speaker>`; speakers
    ranges  in the text block: those of its lines; in the speaker block: those of no speaker yet,
            when the unfinished line began
    number  of the speaker whose line is to come
    rest    the unfinished line
    """

    latest: int
    block: str = "open"
    ranges: tuple[str, ...] = ()
    number: int = 1
    rest: str = ""

    @property
    def whole(self) -> bool:
        """Whether it is a target text. Nothing follows then."""
        return self.block == "speakers" and self.rest == END

    @property
    def in_words(self) -> bool:
        """Whether any character may follow; else only those of `following`."""
        return self.block == "text" and ">" in self.rest and self.rest[0] != "<"

    @property
    def room(self) -> int:
        """Characters that the words of the unfinished line may still have."""
        times, _, words = self.rest.partition(">")
        start, end = _hundredths(times)
        few, each = CHARACTERS
        return few + each * (end - start) // 100 - len(words)

    def following(self) -> str:
        """The characters that may follow; of words, which may be any, only the newline."""
        if self.block == "open":
            return _next_of("<text>", self.rest)
        if self.block == "between":
            return _next_of("<speaker>", self.rest)
        return self._in_text() if self.block == "text" else self._in_speakers()

    def after(self, piece: str) -> State | None:
        """What is written when `piece` follows; None if it may not."""
        state = self
        head, newline, tail = piece.partition("\n")
        while True:
            ahead = state._after_part(head)
            if ahead is None or not newline:
                return ahead
            if "\n" not in ahead.following():
                return None
            state = ahead._next_line()
            head, newline, tail = tail.partition("\n")

    def forced(self) -> str:
        """The characters that follow in any case."""
        state, text = self, ""
        while not state.in_words or state.room <= 0:
            following = state.following()
            if len(following) != 1:
                break
            text += following
            state = state._next_line() if following == "\n" else state._with(following)
        return text

    def shortest(self) -> str:
        """The characters of the shortest way to a whole text: no more lines, no more speakers."""
        state, text = self, ""
        while not state.whole:
            character = state._soonest()
            text += character
            state = state._next_line() if character == "\n" else state._with(character)
        return text

    def _soonest(self) -> str:
        following = self.following()
        if self.block == "text" and not self.rest:
            return "<"
        if following == _GENDERS:
            return "u"
        for character in ',"':
            if character in following:
                return character
        if len(following) > 1 and self.block == "speakers":
            last, left, place = self._claimed()
            return next(one[len(last)] for one in left[place:] if one.startswith(last))
        return following[0]

    def _with(self, character: str) -> State:
        return replace(self, rest=self.rest + character)

    def _after_part(self, part: str) -> State | None:
        """What is written when `part`, without a newline, follows."""
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

    def _next_line(self) -> State:
        """The state behind the newline that ends the unfinished line."""
        line, blank = self.rest, replace(self, rest="")
        if self.block == "open":
            return replace(blank, block="text")
        if self.block == "between":
            return replace(blank, block="speakers")
        if self.block == "text":
            if line == "</text>":
                return replace(blank, block="between")
            return replace(blank, ranges=(*self.ranges, line.partition(">")[0]))
        _, left, _ = self._claimed()
        return replace(blank, ranges=left, number=self.number + 1)

    def _in_text(self) -> str:
        rest = self.rest
        if rest.startswith("<"):
            return _next_of("</text>", rest)
        if ">" in rest:
            return "\n"
        before = _hundredths(self.ranges[-1]) if self.ranges else _NOTHING
        start, dash, end = rest.partition("-")
        if not dash:
            # behind a range that ends with the audio no other can begin where it does
            first = max(0, before[0] + (before[1] >= self.latest))
            digits = _digits(start, first, self.latest - 1, "-")
            return digits if rest else "<" + digits
        begin = _hundredth(start)
        return _digits(end, (before[1] if begin == before[0] else begin) + 1, self.latest, ">")

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
        last, left, place = self._claimed()
        if last in self.ranges:  # whole: the speaker has more of those behind it, or not
            return ',"' if place < len(left) else '"'
        choices = left[place:] if "," in times else left[:1]
        return "".join(sorted({one[len(last)] for one in choices if one.startswith(last)}))

    def _claimed(self) -> tuple[str, tuple[str, ...], int]:
        """Of the unfinished line of a speaker: the last of its ranges, perhaps unfinished; the
        ranges that its whole ones leave to others; the place in these that it has reached."""
        times = self.rest[len(_HEAD.format(self.number)) + 1 + len(_MIDDLE) :].partition('"')[0]
        *_, last = ranges = times.split(",")
        left, place = list(self.ranges), 0
        for one in ranges:
            if one in left:
                place = left.index(one)
                del left[place]
        return last, tuple(left), place


def begin(duration: float, time_grid: float = 0.01) -> State:
    """Where an output for `duration` seconds of audio begins.

    time_grid  seconds; the last time is the end of the audio, rounded up to it
    """
    steps = -(-round(duration * 10000) // round(time_grid * 10000))
    return State(latest=max(1, steps) * round(time_grid * 100))


def is_target(text: str, duration: float = 9999.0) -> bool:
    """Whether `text` is a target text for `duration` seconds of audio."""
    state = begin(duration).after(text)
    return state is not None and state.whole


def _next_of(literal: str, written: str) -> str:
    """The next character of a line that is to be `literal`, its newline included."""
    return literal[len(written)] if len(written) < len(literal) else "\n"


def _hundredth(time: str) -> int:
    return int(time.replace(".", ""))


def _hundredths(times: str) -> tuple[int, int]:
    start, _, end = times.partition("-")
    return _hundredth(start), _hundredth(end)


@lru_cache(100_000)
def _digits(written: str, least: int, most: int, then: str) -> str:
    """What may follow `written` in a number of two decimals from `least` to `most` hundredths."""
    if written[-3:-2] == ".":
        return then
    if least > most:
        return ""
    return "".join(one for one in "0123456789." if _reaches(written + one, least, most))


def _reaches(written: str, least: int, most: int) -> bool:
    """Whether a number of two decimals that begins so can lie from `least` to `most`."""
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
