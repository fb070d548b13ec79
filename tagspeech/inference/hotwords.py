"""Hotwords: names and terms that the LLM favours while it writes words.

The token ids of all terms form a prefix tree. At each step, the tokens that begin a term, or that
continue one whose earlier tokens are written, get a bonus on their log-probability. Nothing is
taken back if a term remains unfinished, since decoding is greedy. Confidences are those without
the bonus.

Shape suffix: V vocabulary.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from tagspeech.errors import InputError
from tagspeech.llm.prompt import encode_text
from tagspeech.text import AS_IS, UNSPACED, normalise

log = logging.getLogger(__name__)

_LINE = "0.00-1.00>"  # what precedes the first word of a line


@dataclass
class _Node:
    """The tokens that may follow a prefix."""

    children: dict[int, _Node] = field(default_factory=dict)
    ids: Tensor | None = None  # the children, once asked for

    def add(self, ids: Sequence[int]) -> None:
        node = self
        for token in ids:
            node = node.children.setdefault(token, _Node())

    def following(self, device: torch.device) -> Tensor:
        if self.ids is None or self.ids.device != device:
            self.ids = torch.tensor(list(self.children), dtype=torch.long, device=device)
        return self.ids


class Hotwords:
    """The prefix tree of terms.

    A term is favoured as it is given and as training texts are normalised. One that the tokenizer
    cannot write is left out with a warning.

    Args:
        terms: Words or phrases.
        strength: The bonus, added to log-probabilities.
        tokenizer: Of the LLM.
        language: Of the model.
    """

    def __init__(
        self, terms: Sequence[str], strength: float, tokenizer: Any, language: str = AS_IS
    ) -> None:
        self.strength = strength
        self.anywhere, self.at_line = _Node(), _Node()
        left_out = []
        for term in terms:
            plain = term.lower() if language == AS_IS else normalise(term, language)
            forms = [form for form in dict.fromkeys([term, plain]) if form.strip()]
            if not [form for form in forms if self._add(form, tokenizer, language)]:
                left_out.append(term)
        if left_out:
            log.warning(
                "hotwords: %d of %d are left out, as the LLM's tokenizer cannot write them: %s",
                *(len(left_out), len(terms), ", ".join(map(repr, left_out[:5]))),
            )
        self.ends_mark = {
            token
            for token in encode_text(tokenizer, _LINE)
            if tokenizer.decode([token], clean_up_tokenization_spaces=False).endswith(">")
        }

    def _add(self, term: str, tokenizer: Any, language: str) -> bool:
        """Adds the ways in which a line can have `term`. False: the tokenizer cannot write it."""
        contexts = [(self.at_line, _LINE, ""), (self.anywhere, f"{_LINE}a", " ")]
        if language in UNSPACED:  # a word may follow another without a space
            contexts.append((self.anywhere, f"{_LINE}的", ""))
        can = False
        for node, before, space in contexts:
            try:
                known = encode_text(tokenizer, before)
                ids = encode_text(tokenizer, before + space + term)
            except InputError:
                continue
            text = tokenizer.decode(
                ids, skip_special_tokens=False, clean_up_tokenization_spaces=False
            )
            if ids[: len(known)] == known and text.endswith(space + term):
                node.add(ids[len(known) :])
                can = True
        return can

    def follow(self) -> Bias:
        """The bias of a new output."""
        return Bias(self)


class Bias:
    """The bonus of the tokens that may follow in one output."""

    def __init__(self, hotwords: Hotwords) -> None:
        self.hotwords = hotwords
        self.begun: list[_Node] = []  # of terms whose first tokens are written
        self.at_line = False

    def add(self, ids: Sequence[int]) -> None:
        """Follows tokens that were written."""
        for token in ids:
            nodes = [*self.begun, self._first]
            self.begun = [node.children[token] for node in nodes if token in node.children]
            self.at_line = token in self.hotwords.ends_mark

    def biased(self, log_probs_V: Tensor) -> Tensor:
        """Log-probabilities with the bonus; the argument stays as it is.

        A term that is begun is favoured alone: a token such as a space may begin all terms.
        """
        nodes = [node for node in self.begun if node.children] or [self._first]
        followings = [node.following(log_probs_V.device) for node in nodes]
        bonus_V = torch.zeros_like(log_probs_V)
        bonus_V[torch.cat(followings)] = self.hotwords.strength
        return log_probs_V + bonus_V

    @property
    def _first(self) -> _Node:
        """The tokens that begin a term here."""
        return self.hotwords.at_line if self.at_line else self.hotwords.anywhere
