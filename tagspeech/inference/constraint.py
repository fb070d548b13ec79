"""Which tokens of an LLM may follow an unfinished target text (`tagspeech.grammar`).

Nearly all tokens may follow inside words, so the likeliest is tried first. Elsewhere few may: a
tree of the tokens that consist of such characters finds them, and the LLM's output is computed for
these tokens alone.

Shape suffixes: V vocabulary.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import chain, takewhile
from typing import Any

import torch
from torch import Tensor

from tagspeech.data.transfer import int_tensors
from tagspeech.grammar import State
from tagspeech.llm.prompt import encode_text

# The characters of tokens outside words, up to the first character of words
_STRUCTURE = re.compile(r'[0-9.\-<>/=", \nadefgikmprstux]*')
_WHOLE_NUMBER = re.compile(r"(\.\d\d|[^0-9.])$")
_BEGINNINGS = (*"0123456789<", "")  # first characters of a line after words
_TIME = re.compile(r"(0|[1-9]\d*)\.(\d\d)([->]?)")
_KNOWN = 10_000  # texts of known lengths that are kept
_TOO_LONG = 10**9  # more characters than there is ever room for
SPEAKERS = 64  # tokens reserved for the speaker block of an output
_SPACE = "\u2581"  # how sentencepiece writes a space, which is lost when a token is decoded alone


class Vocabulary:
    """The tokens of a tokenizer and what they spell."""

    def __init__(self, tokenizer: Any, size: int) -> None:
        self.tokenizer = tokenizer
        special = set(tokenizer.all_special_ids)
        known = min(size, len(tokenizer))
        names = tokenizer.convert_ids_to_tokens(list(range(known)))
        self.pieces = [
            "" if token in special else self._spelt(token, names[token]) for token in range(known)
        ]
        self.pieces += [""] * (size - known)
        # In words a token may follow if what it adds to them has room, and if what it writes of the
        # next line may be its beginning: nothing (no newline), or one of `beginnings`.
        self.beginnings: list[str] = []
        lengths, kinds = [], []
        for piece in self.pieces:
            words, newline, beginning = piece.partition("\n")
            if newline and beginning not in self.beginnings and beginning[:1] in _BEGINNINGS:
                self.beginnings.append(beginning)
            known = beginning in self.beginnings if newline else bool(piece)
            lengths.append(len(words) if known else _TOO_LONG)
            kinds.append(1 + self.beginnings.index(beginning) if newline and known else 0)
        self.lengths_V, self.kinds_V = torch.tensor(lengths), torch.tensor(kinds)
        self.tree: dict[str, Any] = {}
        # Times have a tree of their own for the speaker block, and elsewhere lists of hundredths of
        # a second and tokens, by digits before the point and what follows: there can be thousands.
        self.tree_of_times: dict[str, Any] = {}
        self.times: defaultdict[tuple[int, str], list[tuple[int, int]]] = defaultdict(list)
        for token, piece in enumerate(self.pieces):
            match = _STRUCTURE.match(piece)
            if piece and match and (match.end() == len(piece) or ">" in match[0]):
                time = _TIME.fullmatch(piece)
                if time:
                    value = 100 * int(time[1]) + int(time[2])
                    self.times[len(time[1]), time[3]].append((value, token))
                node = self.tree_of_times if time else self.tree
                for character in piece:
                    node = node.setdefault(character, {})
                node.setdefault("", []).append(token)  # the tokens that end here
        for times in self.times.values():
            times.sort()
        self._lengths: dict[str, int] = {}  # of the texts that end an output

    def _spelt(self, token: int, name: str | None) -> str:
        text: str = self.tokenizer.decode([token], clean_up_tokenization_spaces=False)
        if name and name.startswith(_SPACE) and not text.startswith(" "):
            return " " + text
        return text

    def ruled_out(self, states: Sequence[State], like: Tensor) -> Tensor:
        """Which tokens may not follow each of some states in words, (R, V), where `like` is."""
        if self.lengths_V.device != like.device:
            self.lengths_V, self.kinds_V = (
                numbers_V.to(like.device) for numbers_V in (self.lengths_V, self.kinds_V)
            )
        lines = [state.next_line() for state in states]
        fit = [
            [1, *(line.after(beginning) is not None for beginning in self.beginnings)]
            for line in lines
        ]
        rooms_R, fit_RB = int_tensors(
            like.device, [state.room for state in states], chain.from_iterable(fit)
        )
        fit_RV = fit_RB.view(len(fit), -1).bool().index_select(1, self.kinds_V)
        return ~fit_RV | (self.lengths_V > rooms_R[:, None])

    def fits(self, state: State, token: int) -> bool:
        """Whether `token` may follow."""
        piece = self.pieces[token]
        return bool(piece) and state.after(piece) is not None

    def allowed(self, state: State) -> list[int]:
        """All tokens that may follow a state outside words."""
        found: list[int] = []
        trees = [self.tree]
        if not state.in_time:
            trees.append(self.tree_of_times)
        else:
            written, least, most, then = state.time()
            if "." not in written and written != "0":
                for (digits, after), times in self.times.items():
                    if after in ("", then):
                        before = int(written or "0") * 10**digits * 100
                        first = bisect_left(times, (least - before,))
                        stop = bisect_left(times, (most - before + 1,))
                        found += [token for _, token in times[first:stop]]
        for character in state.following():
            for tree in trees:
                if node := tree.get(character):
                    self._collect(node, state, character, found)
        return sorted(found)

    def _collect(self, node: dict[str, Any], state: State, written: str, found: list[int]) -> None:
        """Adds the tokens below `node`, which spells `written`, that may follow `state`."""
        found += node.get("", ())
        if len(node) == ("" in node):
            return
        ahead = state.after(written)
        assert ahead is not None
        if ahead.in_words:
            for token, rest in _below(node, ""):
                if rest and ahead.after(rest) is not None:
                    found.append(token)
            return
        for character in ahead.following():
            if child := node.get(character):
                self._collect(child, state, written + character, found)

    def forced(self, state: State, line: list[int]) -> list[int]:
        """The tokens that must follow, split as the tokenizer splits the whole text.

        A token whose end depends on the next choice is not among them.

        Args:
            state: What is written.
            line: The tokens since the last one that ended with a newline.
        """
        text = state.forced()
        if not text:
            return []
        ahead = state.after(text)
        assert ahead is not None
        nexts = list(ahead.following()) or [""]
        if ahead.in_words:  # some tokenizers put the > into the first word
            text, nexts = text[:-1], [">", ">a"]
        elif not _WHOLE_NUMBER.search(text):  # a number can be a single token
            text, nexts = text.rstrip("0123456789."), ["0.00", "12.34"]
        return self.cut(text, line, nexts) if text else []

    def cut(self, text: str, line: list[int], nexts: Sequence[str] = ("",)) -> list[int]:
        """The tokens of a text after the tokens `line`, valid whichever of `nexts` follows it."""
        written = "".join(self.pieces[token] for token in line)
        known = line
        common = _common([encode_text(self.tokenizer, written + text + after) for after in nexts])
        if common[: len(line)] != line:  # the LLM split the line otherwise than the tokenizer
            common = _common([encode_text(self.tokenizer, text + after) for after in nexts])
            known = []
        run = common[len(known) :]
        while len("".join(self.pieces[token] for token in run)) > len(text):
            run.pop()
        return run

    def length(self, text: str) -> int:
        """The number of tokens of a text."""
        return len(encode_text(self.tokenizer, text))

    def fits_in(self, text: str, left: int) -> bool:
        """Whether the text has at most `left` tokens; each has at least a byte."""
        if len(text.encode()) < left:
            return True
        if text not in self._lengths:
            if len(self._lengths) == _KNOWN:
                self._lengths.clear()
            self._lengths[text] = self.length(text)
        return self._lengths[text] <= left


def _below(node: dict[str, Any], written: str) -> Iterator[tuple[int, str]]:
    """Each token at or below `node`, and what it spells after `node`."""
    for character, child in node.items():
        if character:
            yield from _below(child, written + character)
        else:
            for token in child:
                yield token, written


def _common(lists: list[list[int]]) -> list[int]:
    """The common prefix of all lists."""
    same = takewhile(lambda tokens: len(set(tokens)) == 1, zip(*lists, strict=False))
    return [tokens[0] for tokens in same]


class Constraint:
    """The state of one output, and which tokens may follow it."""

    def __init__(self, vocabulary: Vocabulary, state: State) -> None:
        self.vocabulary, self.state = vocabulary, state
        self.line: list[int] = []  # tokens since the last one that ended with a newline

    @property
    def in_words(self) -> bool:
        """Whether nearly all tokens may follow."""
        return self.state.in_words

    @property
    def whole(self) -> bool:
        """Whether the output is complete."""
        return self.state.whole

    def add(self, ids: Sequence[int]) -> None:
        """Adds tokens, each of which may follow."""
        for token in ids:
            piece = self.vocabulary.pieces[token]
            ahead = self.state.after(piece)
            assert ahead is not None, piece
            self.state = ahead
            self.line = [] if piece.endswith("\n") else [*self.line, token]

    def fits(self, token: int) -> bool:
        """Whether `token` may follow."""
        return self.vocabulary.fits(self.state, token)

    def allowed(self) -> list[int]:
        """All tokens that may follow outside words."""
        return self.vocabulary.allowed(self.state)

    def forced(self) -> list[int]:
        """The tokens that must follow."""
        return self.vocabulary.forced(self.state, self.line)

    def ending(self, token: int, limit: int, left: int) -> list[int]:
        """The end of a block, which must replace `token`; empty while there is room.

        Args:
            token: The chosen token.
            limit: The largest number of tokens of the output.
            left: The number of tokens that are left.
        """
        ahead = self.state.after(self.vocabulary.pieces[token])
        assert ahead is not None, self.vocabulary.pieces[token]
        left -= 1
        in_text = ahead.block in ("open", "text")
        if in_text:
            left -= min(SPEAKERS, limit // 8)
        # The exact count is slow, so it is made only where the end can be near.
        if left > 100 + 20 * len(ahead.ranges) or self.vocabulary.fits_in(ahead.shortest(), left):
            return []
        ending = self.state.shortest()
        if in_text:
            ending = "".join(ending.partition("</text>\n")[:2])
        return self.vocabulary.cut(ending, self.line)
