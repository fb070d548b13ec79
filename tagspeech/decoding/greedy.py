"""Greedy generation of target texts (docs/paper.md), held to the target language or free.

Each forward pass takes every row on by one token and by all that follow in any case; where only a
few tokens may follow, only their logits are computed.

Shape suffixes: L positions of a prompt, K new ones, R rows, H hidden size, V vocabulary.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from tagspeech.decoding.held import Held
from tagspeech.decoding.rows import Row, forward
from tagspeech.decoding.vocabulary import Vocabulary
from tagspeech.errors import InputError, is_out_of_memory
from tagspeech.grammar import begin
from tagspeech.models.tagspeech import Frames, TagSpeechModel

log = logging.getLogger(__name__)

PREFILL = 1024  # positions of prompts in a pass, or one prompt
ROWS = 8  # that share a pass through the LLM's output: a CPU is slower with more
TOKENS = 100, 40  # most of an output: so many, and so many for each second of audio


@dataclass
class Output:
    """What the LLM wrote for one item.

    ids        token ids without the end of the turn
    log_probs  of each of them: in words and without a grammar among all tokens, else among those
               that could follow; 0 where it was the only one
    passes     forward passes that wrote them
    """

    ids: list[int] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)
    passes: int = 0


_Start = tuple[Tensor, int, Held | None]  # prompt, most tokens, to what the output is held


class _Writer:
    """One row: its output, keys and values."""

    def __init__(self, prompt_LH: Tensor, limit: int, held: Held | None) -> None:
        self.limit = limit
        self.held = copy(held)  # short of memory, outputs begin anew
        self.prompt: Tensor | None = prompt_LH  # until it has gone through the LLM
        self.read = 0  # tokens of the output that have
        self.row, self.output = Row(), Output()
        self.hidden = prompt_LH[-1]  # the last state of the LLM (H,), after the first pass
        self.done = False

    def new_inputs(self, model: TagSpeechModel) -> Tensor:
        """What has not gone through the LLM yet, embedded (K, H). It goes now."""
        inputs_KH = model.embed(self.output.ids[self.read :])
        if self.prompt is not None:
            inputs_KH = torch.cat([self.prompt, inputs_KH])
        self.prompt, self.read = None, len(self.output.ids)
        self.output.passes += 1
        return inputs_KH

    def choose(self, token: int, log_prob: float) -> None:
        """Adds a token that may follow and those that follow it in any case.

        Where there would be no room for the end of the text then, the end takes its place.
        """
        left = self.limit - len(self.output.ids)
        ending = self.held.ending(token, self.limit, left) if self.held is not None else []
        self._add(ending or [token], 0.0 if ending else log_prob)
        self.add_forced()

    def add_forced(self) -> None:
        """Adds the tokens that follow in any case."""
        if self.held is not None and not self.done:
            self._add(self.held.forced())

    def _add(self, ids: Sequence[int], log_prob: float = 0.0) -> None:
        self.output.ids += ids
        self.output.log_probs += [log_prob] * len(ids)
        if self.held is None:
            self.done = len(self.output.ids) >= self.limit
        else:
            self.held.add(ids)
            self.done = self.held.whole


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
        return _run_or_halve(model, [(one, max_new_tokens, None) for one in prompts])
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
            Held(vocabulary, begin(seconds, model.config.target.time_grid)),
        )
        for prompt_LH, seconds in zip(prompts, durations, strict=True)
    ]
    return _run_or_halve(model, starts)


_VOCABULARIES: WeakKeyDictionary[TagSpeechModel, Vocabulary] = WeakKeyDictionary()


def _vocabulary(model: TagSpeechModel) -> Vocabulary:
    """The tokens of a model, read once: with a large vocabulary it takes seconds."""
    if model not in _VOCABULARIES:
        size = model.llm.get_output_embeddings().weight.shape[0]
        _VOCABULARIES[model] = Vocabulary(model.tokenizer, size)
    return _VOCABULARIES[model]


def _run_or_halve(model: TagSpeechModel, starts: Sequence[_Start]) -> list[Output]:
    try:
        return _run(model, starts)
    except (MemoryError, RuntimeError) as error:
        if len(starts) == 1 or not is_out_of_memory(error):
            raise
    half = len(starts) // 2
    log.warning("out of memory with %d rows at a time; goes on with %d", len(starts), half)
    return [
        output for part in (starts[:half], starts[half:]) for output in _run_or_halve(model, part)
    ]


def _run(model: TagSpeechModel, starts: Sequence[_Start]) -> list[Output]:
    """Writes all outputs; rows that are done leave."""
    writers = [_Writer(*start) for start in starts]
    for writer in writers:
        writer.add_forced()
    for rows in _prefills(writers):
        _step(model, rows)
    while at_work := [writer for writer in writers if not writer.done]:
        _choose(model, at_work)
        for writer in at_work:
            if writer.done:
                writer.row.layers.clear()
        _step(model, [writer for writer in at_work if not writer.done])
    return [writer.output for writer in writers]


def _prefills(writers: list[_Writer]) -> list[list[_Writer]]:
    """Rows whose prompts go through the LLM together."""
    batches, room = list[list[_Writer]](), 0
    for writer in writers:
        assert writer.prompt is not None
        room -= len(writer.prompt)
        if room < 0:
            batches.append([])
            room = PREFILL - len(writer.prompt)
        batches[-1].append(writer)
    return batches


def _step(model: TagSpeechModel, writers: list[_Writer]) -> None:
    """One pass of these rows."""
    if not writers:
        return
    inputs = [writer.new_inputs(model) for writer in writers]
    hidden_RH = forward(model.llm, [writer.row for writer in writers], inputs)
    for writer, hidden_H in zip(writers, hidden_RH, strict=True):
        writer.hidden = hidden_H


def _choose(model: TagSpeechModel, writers: list[_Writer]) -> None:
    """Adds to each row its likeliest token and those that follow it in any case."""
    head, end = model.llm.get_output_embeddings(), model.prompt.ending[0]
    others = [(one, one.held) for one in writers if one.held is not None and not one.held.in_words]
    in_words = [one for one in writers if one.held is None or one.held.in_words]
    for some in _evenly(in_words, ROWS):
        hidden_RH = torch.stack([writer.hidden for writer in some])
        for writer, log_probs_V in zip(some, _log_probs(head, hidden_RH), strict=True):
            token = int(log_probs_V.argmax())
            if writer.held is not None:
                token = writer.held.best(log_probs_V, token)
            elif token == end:
                writer.done = True
                continue
            writer.choose(token, float(log_probs_V[token]))
    for writer, held in others:
        choices = held.allowed()
        (log_probs,) = _log_probs(head, writer.hidden[None], choices)
        place = int(log_probs.argmax())
        writer.choose(choices[place], float(log_probs[place]))


def _evenly(writers: list[_Writer], most: int) -> Iterator[list[_Writer]]:
    """In parts of nearly equal sizes: few rows cost nearly as much as many."""
    parts = -(-len(writers) // most)
    for part in range(parts):
        start, stop = (len(writers) * n // parts for n in (part, part + 1))
        yield writers[start:stop]


def _log_probs(head: Any, hidden_RH: Tensor, ids: list[int] | None = None) -> Iterator[Tensor]:
    """Of each row, the log-probabilities (V,) of all tokens, or of `ids` among themselves.

    Refuses logits that are no numbers: the best of such would be a text from nowhere.
    """
    weight_VH, bias_V = head.weight, getattr(head, "bias", None)
    if ids is not None:
        weight_VH, bias_V = weight_VH[ids], None if bias_V is None else bias_V[ids]
    # In this order a CPU takes half the time of head(hidden_RH), and for two rows half that of one.
    rows_RH = hidden_RH if len(hidden_RH) > 1 else hidden_RH.repeat(2, 1)
    logits_RV = (weight_VH @ rows_RH.T).T[: len(hidden_RH)].contiguous()
    for logits_V in logits_RV if bias_V is None else logits_RV + bias_V:
        log_probs_V = logits_V.float().log_softmax(-1)
        if not log_probs_V.amax().isfinite():
            name = str(logits_V.dtype).removeprefix("torch.")
            raise InputError(
                f"the LLM overflows in {name}: its output is no number; "
                "use bfloat16 or float32 (--dtype, or from_pretrained(..., dtype=...))"
            )
        yield log_probs_V


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
