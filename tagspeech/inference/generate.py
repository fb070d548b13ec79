"""Greedy generation of target texts, constrained to the output format or free.

Each forward pass extends every row by one chosen token and by all tokens that must follow it. Where
only a few tokens may follow, only their logits are computed.

Shape suffixes: L positions of a prompt, N new ones of all rows, R rows, H hidden size.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field
from itertools import chain
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from tagspeech.errors import InputError, is_out_of_memory
from tagspeech.grammar import begin
from tagspeech.inference.batched_attention import KeysAndValues, forward
from tagspeech.inference.choices import likeliest, likeliest_of_few
from tagspeech.inference.constraint import Constraint, Vocabulary
from tagspeech.inference.hotwords import Hotwords
from tagspeech.model.frames import Frames
from tagspeech.model.tagspeech import TagSpeechModel

log = logging.getLogger(__name__)

PREFILL = 1024  # positions of prompts in one pass; a longer prompt has its own
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
        cache: KeysAndValues,
    ) -> None:
        self.limit = limit
        self.bias = hotwords.follow() if hotwords else None
        self.constraint = copy(constraint)  # a batch that runs out of memory starts again
        self.prompt: Tensor | None = prompt_LH  # until the LLM has read it
        self.read = 0  # tokens of the output that the LLM has read
        self.cache, self.row = cache, 0  # where its keys and values are
        self.output = Output()
        self.hidden = prompt_LH[-1]  # the last state of the LLM (H,), after the first pass
        self.done = False

    def unread(self) -> list[int]:
        """The tokens that the LLM has not read yet; they count as read now."""
        ids = self.output.ids[self.read :]
        self.read = len(self.output.ids)
        self.output.passes += 1
        return ids

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
    cache = KeysAndValues(len(starts))
    cache.reserve(max(len(prompt_LH) for prompt_LH, *_ in starts))
    writers = [_Writer(*start, cache) for start in starts]
    for row, writer in enumerate(writers):
        writer.row = row
        writer.add_forced()
    for rows in _prefills(writers):
        _step(model, rows)
    at_work = writers
    while at_work:
        _choose(model, at_work)
        left = {writer.row: writer for writer in at_work if not writer.done}
        if len(left) < len(at_work):
            at_work = [left[row] for row in cache.keep(list(left))]
            for row, writer in enumerate(at_work):
                writer.row = row
        if at_work:
            _step(model, at_work)
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
    """One forward pass of these rows, which follow one another."""
    unread = [writer.unread() for writer in writers]
    inputs_NH = model.embed(list(chain.from_iterable(unread)))
    counts = list(map(len, unread))
    prompts = [writer.prompt for writer in writers if writer.prompt is not None]
    if prompts:
        tokens = inputs_NH.split(counts)
        counts = [len(prompt) + count for prompt, count in zip(prompts, counts, strict=True)]
        inputs_NH = torch.cat(list(chain.from_iterable(zip(prompts, tokens, strict=True))))
    hidden_RH = forward(model.llm, writers[0].cache, writers[0].row, inputs_NH, counts)
    for writer, hidden_H in zip(writers, hidden_RH, strict=True):
        writer.hidden, writer.prompt = hidden_H, None


def _choose(model: TagSpeechModel, writers: list[_Writer]) -> None:
    """Adds to each row its likeliest token and the tokens that must follow it.

    The device is waited for once: the tokens of all rows are read together.
    """
    head, end = model.llm.get_output_embeddings(), model.prompt.ending[0]
    in_words = [w for w in writers if w.constraint is None or w.constraint.in_words]
    others = [w for w in writers if not (w.constraint is None or w.constraint.in_words)]
    chosen = []
    if in_words:
        chosen.append(likeliest(head, in_words))
    if others:
        chosen.append(likeliest_of_few(head, others))
    rows = torch.cat(chosen, dim=1).T.tolist()  # waits for the device
    for writer, (token, log_prob, total) in zip([*in_words, *others], rows, strict=True):
        if not math.isfinite(total):
            name = str(writer.hidden.dtype).removeprefix("torch.")
            raise InputError(
                f"the LLM overflows in {name}: its output is not a number; "
                "use bfloat16 or float32 (--dtype, or from_pretrained(..., dtype=...))"
            )
        if writer.constraint is None and token == end:
            writer.done = True
        else:
            writer.choose(int(token), log_prob)


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
