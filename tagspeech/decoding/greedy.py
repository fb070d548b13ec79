"""Greedy generation of target texts (PAPER, decoding), held to the target language or free.

Each forward pass takes every row on by one token and by all that follow in any case; where only a
few tokens may follow, only their logits are computed.

Shape suffixes: B batch, L positions of the prompt, R rows of a pass, H hidden size of the LLM,
V vocabulary.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from tagspeech.decoding.rows import Row, forward
from tagspeech.decoding.vocabulary import Vocabulary
from tagspeech.errors import InputError
from tagspeech.grammar import State, begin
from tagspeech.models.tagspeech import Frames, TagSpeechModel

log = logging.getLogger(__name__)

PREFILL = 1024  # positions of prompts in a pass, or one prompt
TOKENS = 100, 40  # most of an output: so many, and so many for each second of audio
SPEAKERS = 64  # tokens left for speakers where the lines of an output use up the others


@dataclass
class Output:
    """What the LLM wrote for one item.

    ids        token ids without the end of the turn
    log_probs  of each of them, among those that could follow; 0 where it was the only one
    passes     forward passes that wrote them
    """

    ids: list[int] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)
    passes: int = 0


_Start = tuple[Tensor, int, State | None]  # prompt, most tokens, where a held output begins


class _Writer:
    """One row: its output, keys and values, and with a grammar what may follow."""

    def __init__(
        self, vocabulary: Vocabulary | None, prompt_LH: Tensor, limit: int, state: State | None
    ) -> None:
        self.vocabulary, self.limit, self.state = vocabulary, limit, state
        self.pending = prompt_LH  # embedded, and not gone through the LLM yet
        self.row, self.output = Row(), Output()
        self.line: list[int] = []  # tokens since the last newline that ended one
        self.done = False

    @property
    def in_words(self) -> bool:
        """Whether nearly all tokens may follow."""
        return self.state is None or self.state.in_words

    def choose(self, token: int, log_prob: float) -> list[int]:
        """Adds a token that may follow and those that follow it in any case; gives what it added.

        Where there would be no room for the end of the text then, the end takes its place.
        """
        before = len(self.output.ids)
        if self.state is None or self.vocabulary is None:
            self._add([token], log_prob)
            self.done = before + 1 >= self.limit
        else:
            if ending := self._ending(token):
                self._add(self.vocabulary.cut(ending, self.line))
            else:
                self._add([token], log_prob)
            self.add_forced()
        return self.output.ids[before:]

    def add_forced(self) -> list[int]:
        """Adds the tokens that follow in any case."""
        ids: list[int] = []
        if self.state is not None and self.vocabulary is not None and not self.done:
            ids = self.vocabulary.forced(self.state, self.line)
            self._add(ids)
        return ids

    def _ending(self, token: int) -> str:
        """What must follow now in place of `token`; empty as long as there is room."""
        assert self.state is not None
        assert self.vocabulary is not None
        ahead = self.state.after(self.vocabulary.pieces[token])
        assert ahead is not None, self.vocabulary.pieces[token]
        left = self.limit - len(self.output.ids) - 1
        in_text = ahead.block in ("open", "text")
        if in_text:
            left -= min(SPEAKERS, self.limit // 8)
        # The count is exact and slow: only where the end can be near.
        if left > 100 + 20 * len(ahead.ranges) or left >= self.vocabulary.length(ahead.shortest()):
            return ""
        ending = self.state.shortest()
        return "".join(ending.partition("</text>\n")[:2]) if in_text else ending

    def _add(self, ids: Sequence[int], log_prob: float = 0.0) -> None:
        self.output.ids += ids
        self.output.log_probs += [log_prob] * len(ids)
        if self.state is None or self.vocabulary is None:
            return
        for token in ids:
            piece = self.vocabulary.pieces[token]
            ahead = self.state.after(piece)
            assert ahead is not None, piece
            self.state = ahead
            self.line = [] if piece.endswith("\n") else [*self.line, token]
        self.done = self.state.whole


@torch.inference_mode()
def generate(
    model: TagSpeechModel,
    frames: Frames,
    max_new_tokens: int,
    durations: Sequence[float] | None = None,
) -> list[Output]:
    """What the LLM writes for each item.

    durations  seconds of audio of each item, to which its output is held (`tagspeech.grammar`);
               None: anything can be written

    Where memory is short, the batch is halved, with a warning. Raises `InputError` where the LLM
    computes something that is no number: half precision overflowed, and for `max_new_tokens` in
    which no target text can be written.
    """
    prompts = model.prompts(model.add_anchors(model.project(frames)))
    if durations is None:
        return _run_or_halve(model, None, [(one, max_new_tokens, None) for one in prompts])
    vocabulary = _vocabulary(model)
    least = vocabulary.length(begin(0.0).shortest())
    if max_new_tokens < least:
        raise InputError(
            f"decode.max_new_tokens: {max_new_tokens}; an empty target text has {least}"
        )
    few, each = TOKENS
    starts: list[_Start] = [
        (
            prompt_LH,
            min(max_new_tokens, few + math.ceil(each * seconds)),
            begin(seconds, model.config.target.time_grid),
        )
        for prompt_LH, seconds in zip(prompts, durations, strict=True)
    ]
    return _run_or_halve(model, vocabulary, starts)


_VOCABULARIES: WeakKeyDictionary[TagSpeechModel, Vocabulary] = WeakKeyDictionary()


def _vocabulary(model: TagSpeechModel) -> Vocabulary:
    """The tokens of a model, read once: with a large vocabulary it takes seconds."""
    if model not in _VOCABULARIES:
        size = model.llm.get_output_embeddings().weight.shape[0]
        _VOCABULARIES[model] = Vocabulary(model.tokenizer, size)
    return _VOCABULARIES[model]


def _run_or_halve(
    model: TagSpeechModel, vocabulary: Vocabulary | None, starts: Sequence[_Start]
) -> list[Output]:
    try:
        return _run(model, vocabulary, starts)
    except (torch.OutOfMemoryError, MemoryError):
        if len(starts) == 1:
            raise
    half = len(starts) // 2
    log.warning("out of memory with %d rows at a time; goes on with %d", len(starts), half)
    return [
        output
        for part in (starts[:half], starts[half:])
        for output in _run_or_halve(model, vocabulary, part)
    ]


def _run(
    model: TagSpeechModel, vocabulary: Vocabulary | None, starts: Sequence[_Start]
) -> list[Output]:
    """Writes all outputs; rows that are done leave."""
    writers = [_Writer(vocabulary, *start) for start in starts]
    for writer in writers:
        if ids := writer.add_forced():
            writer.pending = torch.cat([writer.pending, model.embed(ids)])
    states = [_step(model, rows) for rows in _prefills(writers)]
    hidden_RH = torch.cat(states) if states else torch.empty(0)
    at_work = writers
    while at_work:
        _choose(model, at_work, hidden_RH)
        at_work = [writer for writer in at_work if not writer.done]
        if at_work:
            hidden_RH = _step(model, at_work)
    return [writer.output for writer in writers]


def _prefills(writers: list[_Writer]) -> list[list[_Writer]]:
    """Rows whose prompts go through the LLM together."""
    batches: list[list[_Writer]] = []
    for writer in writers:
        if not batches or sum(map(_new, batches[-1])) + _new(writer) > PREFILL:
            batches.append([])
        batches[-1].append(writer)
    return batches


def _new(writer: _Writer) -> int:
    return len(writer.pending)


def _step(model: TagSpeechModel, writers: list[_Writer]) -> Tensor:
    """One pass: the last hidden state (R, H) of each row."""
    hidden_RH = forward(model.llm, [one.row for one in writers], [one.pending for one in writers])
    for writer in writers:
        writer.output.passes += 1
    return hidden_RH


def _choose(model: TagSpeechModel, writers: list[_Writer], hidden_RH: Tensor) -> None:
    """Adds to each row its likeliest token and those that follow it in any case."""
    head = model.llm.get_output_embeddings()
    free = [row for row, writer in enumerate(writers) if writer.in_words]
    logits = dict(zip(free, _finite(head(hidden_RH[free])), strict=True)) if free else {}
    for row, writer in enumerate(writers):
        token, log_prob = _likeliest(head, writer, hidden_RH[row], logits.get(row))
        if writer.state is None and token == model.prompt.ending[0]:
            writer.done = True
        else:
            writer.pending = model.embed(writer.choose(token, log_prob))


def _likeliest(
    head: Any, writer: _Writer, hidden_H: Tensor, logits_V: Tensor | None
) -> tuple[int, float]:
    """The likeliest token that may follow, and its log-probability among all that may.

    logits_V  where nearly all may
    """
    if writer.state is None or writer.vocabulary is None:
        assert logits_V is not None
        token = int(logits_V.argmax())
        return token, float(logits_V.log_softmax(-1)[token])
    if logits_V is not None:
        token = writer.vocabulary.best(writer.state, logits_V)
        return token, float(logits_V.log_softmax(-1)[token])
    choices = writer.vocabulary.allowed(writer.state)
    log_probs = _finite(_some(head, hidden_H, choices)).log_softmax(-1)
    place = int(log_probs.argmax())
    return choices[place], float(log_probs[place])


def _some(head: Any, hidden_H: Tensor, ids: list[int]) -> Tensor:
    """The logits of `ids` alone."""
    bias = getattr(head, "bias", None)
    return nn.functional.linear(hidden_H, head.weight[ids], None if bias is None else bias[ids])


def _finite(logits: Tensor) -> Tensor:
    """Logits in float32. Refuses such as are no numbers: the best would be a text from nowhere."""
    if not logits.isfinite().all():
        name = str(logits.dtype).removeprefix("torch.")
        raise InputError(
            f"the LLM overflows in {name}: its output is no number; "
            "use bfloat16 or float32 (--dtype, or from_pretrained(..., dtype=...))"
        )
    return logits.float()


def generate_texts(
    model: TagSpeechModel,
    frames: Frames,
    max_new_tokens: int,
    durations: Sequence[float] | None = None,
) -> list[str]:
    """The target text that the LLM writes for each item; arguments as of `generate`."""
    outputs = generate(model, frames, max_new_tokens, durations)
    return spell(model, [output.ids for output in outputs])


def spell(model: TagSpeechModel, rows: Sequence[Sequence[int]]) -> list[str]:
    """The text of each row of token ids, special tokens as they are written."""
    return [
        model.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        for ids in rows
    ]
