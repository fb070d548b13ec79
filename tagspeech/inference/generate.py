"""Greedy generation of target texts, constrained to the output format or free.

Each forward pass extends every row by one chosen token and by all tokens that must follow it. Where
only a few tokens may follow, only their logits are computed.

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

from tagspeech.errors import InputError, is_out_of_memory
from tagspeech.grammar import begin
from tagspeech.inference.batched_attention import KeysAndValues, forward
from tagspeech.inference.constraint import Constraint, Vocabulary
from tagspeech.inference.hotwords import Hotwords
from tagspeech.model.frames import Frames
from tagspeech.model.tagspeech import TagSpeechModel

log = logging.getLogger(__name__)

PREFILL = 1024  # positions of prompts in one pass; a longer prompt has its own
ROWS = 8  # rows in one product with the LLM's output layer; more are slower on a CPU
TOKENS = 100, 40  # an output has at most 100 tokens, and 40 more for each second of audio


@dataclass
class Output:
    """What the LLM wrote for one item.

    Attributes:
        ids: Token ids without the end of the turn.
        log_probs: The log-probability of each token: over all tokens inside words or without a
            grammar, else over those that may follow; 0 for a token that must follow.
        passes: The number of forward passes that wrote them.
    """

    ids: list[int] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)
    passes: int = 0


# Prompt, most tokens, what may be written, what is favoured
_Start = tuple[Tensor, int, Constraint | None, Hotwords | None]


class _Writer:
    """One row of a batch: its output, keys and values."""

    def __init__(
        self,
        prompt_LH: Tensor,
        limit: int,
        constraint: Constraint | None,
        hotwords: Hotwords | None,
    ) -> None:
        self.limit = limit
        self.bias = hotwords.follow() if hotwords else None
        self.constraint = copy(constraint)  # a batch that runs out of memory starts again
        self.prompt: Tensor | None = prompt_LH  # until the LLM has read it
        self.read = 0  # tokens of the output that the LLM has read
        self.cache, self.output = KeysAndValues(), Output()
        self.hidden = prompt_LH[-1]  # the last state of the LLM (H,), after the first pass
        self.done = False

    def new_inputs(self, model: TagSpeechModel) -> Tensor:
        """The positions that the LLM has not read yet, embedded (K, H); they count as read now."""
        inputs_KH = model.embed(self.output.ids[self.read :])
        if self.prompt is not None:
            inputs_KH = torch.cat([self.prompt, inputs_KH])
        self.prompt, self.read = None, len(self.output.ids)
        self.output.passes += 1
        return inputs_KH

    def choose(self, token: int, log_prob: float) -> None:
        """Adds a token that may follow and the tokens that must follow it.

        If the end of the text would have no room after it, the end takes its place.
        """
        left = self.limit - len(self.output.ids)
        ending = self.constraint.ending(token, self.limit, left) if self.constraint else []
        self._add(ending or [token], 0.0 if ending else log_prob)
        self.add_forced()

    def add_forced(self) -> None:
        """Adds the tokens that must follow."""
        if self.constraint is not None and not self.done:
            self._add(self.constraint.forced())

    def _add(self, ids: Sequence[int], log_prob: float = 0.0) -> None:
        self.output.ids += ids
        self.output.log_probs += [log_prob] * len(ids)
        if self.bias is not None:
            self.bias.add(ids)
        if self.constraint is None:
            self.done = len(self.output.ids) >= self.limit
        else:
            self.constraint.add(ids)
            self.done = self.constraint.whole


@torch.inference_mode()
def generate(
    model: TagSpeechModel,
    frames: Frames,
    max_new_tokens: int,
    durations: Sequence[float] | None = None,
    hotwords: Hotwords | None = None,
) -> list[Output]:
    """What the LLM writes for each item of a batch.

    A batch that runs out of memory is halved, with a warning.

    Args:
        model: In eval mode.
        frames: The encoders' frames of the items.
        max_new_tokens: The largest number of tokens of an output.
        durations: Seconds of audio of each item; its output is constrained to target texts of
            that length (`tagspeech.grammar`). None: no constraint.
        hotwords: What is favoured inside words.

    Returns:
        The output of each item, in order.

    Raises:
        InputError: Half precision overflows, or `max_new_tokens` leaves no room for a target text.
    """
    prompts = model.prompts(model.add_anchors(model.project(frames)))
    if durations is None:
        free = [(prompt_LH, max_new_tokens, None, hotwords) for prompt_LH in prompts]
        return _run_or_halve(model, free)
    vocabulary = _vocabulary(model)
    least = vocabulary.length(begin(0.0).shortest())
    if max_new_tokens < least:
        raise InputError(
            f"decode.max_new_tokens: must be {least} or more, the length of an empty target text, "
            f"got {max_new_tokens}"
        )
    few, each = TOKENS
    starts: list[_Start] = [
        (
            prompt_LH,
            min(max_new_tokens, few + math.ceil(each * seconds)),
            Constraint(vocabulary, begin(seconds, model.config.target.time_grid)),
            hotwords,
        )
        for prompt_LH, seconds in zip(prompts, durations, strict=True)
    ]
    return _run_or_halve(model, starts)


_VOCABULARIES: WeakKeyDictionary[TagSpeechModel, Vocabulary] = WeakKeyDictionary()


def _vocabulary(model: TagSpeechModel) -> Vocabulary:
    """The tokens of a model, read once: a large vocabulary takes seconds."""
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
    log.warning("out of memory with %d rows at a time; continuing with %d", len(starts), half)
    return [
        output for part in (starts[:half], starts[half:]) for output in _run_or_halve(model, part)
    ]


def _run(model: TagSpeechModel, starts: Sequence[_Start]) -> list[Output]:
    """Writes all outputs; rows leave when they are done."""
    writers = [_Writer(*start) for start in starts]
    for writer in writers:
        writer.add_forced()
    for rows in _prefills(writers):
        _step(model, rows)
    while at_work := [writer for writer in writers if not writer.done]:
        _choose(model, at_work)
        for writer in at_work:
            if writer.done:
                writer.cache.layers.clear()
        _step(model, [writer for writer in at_work if not writer.done])
    return [writer.output for writer in writers]


def _prefills(writers: list[_Writer]) -> list[list[_Writer]]:
    """The rows whose prompts the LLM reads in one pass."""
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
    """One forward pass of these rows."""
    if not writers:
        return
    inputs = [writer.new_inputs(model) for writer in writers]
    hidden_RH = forward(model.llm, [writer.cache for writer in writers], inputs)
    for writer, hidden_H in zip(writers, hidden_RH, strict=True):
        writer.hidden = hidden_H


def _choose(model: TagSpeechModel, writers: list[_Writer]) -> None:
    """Adds to each row its likeliest token and the tokens that must follow it."""
    head, end = model.llm.get_output_embeddings(), model.prompt.ending[0]
    in_words, others = [], []
    for writer in writers:
        if writer.constraint is None or writer.constraint.in_words:
            in_words.append(writer)
        else:
            others.append((writer, writer.constraint))
    for some in _evenly(in_words, ROWS):
        hidden_RH = torch.stack([writer.hidden for writer in some])
        for writer, log_probs_V in zip(some, _log_probs(head, hidden_RH), strict=True):
            scores_V = log_probs_V if writer.bias is None else writer.bias.biased(log_probs_V)
            token = int(scores_V.argmax())
            if writer.constraint is not None:
                token = writer.constraint.best(scores_V, token)
            elif token == end:
                writer.done = True
                continue
            writer.choose(token, float(log_probs_V[token]))
    for writer, constraint in others:
        choices = constraint.allowed()
        (log_probs,) = _log_probs(head, writer.hidden[None], choices)
        place = int(log_probs.argmax())
        writer.choose(choices[place], float(log_probs[place]))


def _evenly(writers: list[_Writer], most: int) -> Iterator[list[_Writer]]:
    """Parts of nearly equal sizes: a few rows cost nearly as much as many."""
    parts = -(-len(writers) // most)
    for part in range(parts):
        start, stop = (len(writers) * n // parts for n in (part, part + 1))
        yield writers[start:stop]


def _log_probs(head: Any, hidden_RH: Tensor, ids: list[int] | None = None) -> Iterator[Tensor]:
    """The log-probabilities (V,) of each row, over all tokens or over `ids` alone.

    Raises:
        InputError: A logit is not a number.
    """
    weight_VH, bias_V = head.weight, getattr(head, "bias", None)
    if ids is not None:
        weight_VH, bias_V = weight_VH[ids], None if bias_V is None else bias_V[ids]
    # This order takes half the time of head(hidden_RH) on a CPU, and two rows half that of one.
    rows_RH = hidden_RH if len(hidden_RH) > 1 else hidden_RH.repeat(2, 1)
    logits_RV = (weight_VH @ rows_RH.T).T[: len(hidden_RH)].contiguous()
    for logits_V in logits_RV if bias_V is None else logits_RV + bias_V:
        log_probs_V = logits_V.float().log_softmax(-1)
        if not log_probs_V.amax().isfinite():
            name = str(logits_V.dtype).removeprefix("torch.")
            raise InputError(
                f"the LLM overflows in {name}: its output is not a number; "
                "use bfloat16 or float32 (--dtype, or from_pretrained(..., dtype=...))"
            )
        yield log_probs_V


def generate_texts(
    model: TagSpeechModel,
    frames: Frames,
    max_new_tokens: int,
    durations: Sequence[float] | None = None,
) -> list[str]:
    """The target text that the LLM writes for each item; the arguments are those of `generate`."""
    outputs = generate(model, frames, max_new_tokens, durations)
    return spell(model, [output.ids for output in outputs])


def spell(model: TagSpeechModel, rows: Sequence[Sequence[int]]) -> list[str]:
    """The text of each row of token ids, with special tokens."""
    return [
        model.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        for ids in rows
    ]
