"""An output that is held to the target language while it is written."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from tagspeech.decoding.vocabulary import Vocabulary
from tagspeech.grammar import State

SPEAKERS = 64  # tokens left for speakers where the lines of an output use up the others


class Held:
    """What is written so far, and which tokens may follow."""

    def __init__(self, vocabulary: Vocabulary, state: State) -> None:
        self.vocabulary, self.state = vocabulary, state
        self.line: list[int] = []  # tokens since the last newline that ended one

    @property
    def in_words(self) -> bool:
        """Whether nearly all tokens may follow."""
        return self.state.in_words

    @property
    def whole(self) -> bool:
        """Whether nothing follows."""
        return self.state.whole

    def add(self, ids: Sequence[int]) -> None:
        """Adds tokens that may follow."""
        for token in ids:
            piece = self.vocabulary.pieces[token]
            ahead = self.state.after(piece)
            assert ahead is not None, piece
            self.state = ahead
            self.line = [] if piece.endswith("\n") else [*self.line, token]

    def best(self, logits_V: Tensor, likely: int) -> int:
        """The likeliest token that may follow, in words; `likely` is so of all."""
        return self.vocabulary.best(self.state, logits_V, likely)

    def allowed(self) -> list[int]:
        """All tokens that may follow, outside of words."""
        return self.vocabulary.allowed(self.state)

    def forced(self) -> list[int]:
        """The tokens that follow in any case."""
        return self.vocabulary.forced(self.state, self.line)

    def ending(self, token: int, limit: int, left: int) -> list[int]:
        """What must follow in place of `token`: the end of a block; empty as long as there is room.

        limit, left  tokens that the output may have, and those left of them
        """
        ahead = self.state.after(self.vocabulary.pieces[token])
        assert ahead is not None, self.vocabulary.pieces[token]
        left -= 1
        in_text = ahead.block in ("open", "text")
        if in_text:
            left -= min(SPEAKERS, limit // 8)
        # The count is exact and slow: only where the end can be near.
        if left > 100 + 20 * len(ahead.ranges) or left >= self.vocabulary.length(ahead.shortest()):
            return []
        ending = self.state.shortest()
        if in_text:
            ending = "".join(ending.partition("</text>\n")[:2])
        return self.vocabulary.cut(ending, self.line)
