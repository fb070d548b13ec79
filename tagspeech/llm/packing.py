"""Runs sequences of different lengths through the layers of the LLM, with little or no padding.

    padded      runs            packed
    a a a a     a a a a         a a a a b b c c c   one row, positions 0 1 2 3 0 1 0 1 2;
    b b . .     c c c                               each sequence attends to itself only
    c c c .     b b

Runs are batches of nearly equal lengths, one after the other. They are the fastest on a CPU, where
attention over one row costs the square of the total length. Packed is for flash attention, which
has a kernel for variable lengths. Padding is on the right, where causal attention does not look, so
the causal mask suffices.

Shape suffixes: B batch, L positions, N those of all sequences, H hidden size.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import accumulate, chain
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import masking_utils
from transformers.modeling_layers import GradientCheckpointingLayer

from tagspeech.config import LLMConfig
from tagspeech.data.transfer import int_tensors
from tagspeech.errors import InputError

LAYOUTS = ("runs", "packed", "padded")
_MASKED = ("eager", "sdpa")  # attention that sees the sequences of a packed row by a mask alone
SIMILAR = 0.8  # smallest ratio of the shortest to the longest sequence of a run


def run_layers(
    decoder: Any, rows_NH: Tensor, lens: list[int], config: LLMConfig, layer: int = -1
) -> tuple[Tensor, Tensor]:
    """The last hidden states of sequences, and those after another layer, (N, H) each.

    The number of operations does not depend on that of the sequences, but on that of runs.

    Args:
        decoder: The LLM without its output.
        rows_NH: The embedded positions of all sequences, one sequence after the other.
        lens: Length of each sequence.
        config: Has the layout.
        layer: The other layer, counted from 1; -1: the last.
    """
    layout, device = _layout(config), rows_NH.device
    if layout == "packed":
        bounds = _bounds(lens, device)
        with nullcontext() if config.attention in _MASKED else _no_search():
            last_1NH, states_1NH = _forward(decoder, rows_NH[None], layer, **bounds)
        return last_1NH[0], states_1NH[0]
    runs = [list(range(len(lens)))] if layout == "padded" else similar(lens)
    starts = [0, *accumulate(lens)]
    padded_NH = torch.cat([rows_NH, rows_NH.new_zeros(1, rows_NH.shape[1])])
    fetched, places, place = [], [0] * len(rows_NH), 0
    for run in runs:
        longest = max(lens[item] for item in run)
        numbers: list[int] = []
        for item in run:
            start, stop = starts[item], starts[item] + lens[item]
            places[start:stop] = range(place, place + lens[item])
            numbers += [*range(start, stop), *[len(rows_NH)] * (longest - lens[item])]
            place += longest
        fetched.append(numbers)
    *of_runs, places_N = int_tensors(device, *fetched, places)
    with _no_search():
        pairs = [
            _forward(decoder, padded_NH.index_select(0, places).unflatten(0, (len(run), -1)), layer)
            for run, places in zip(runs, of_runs, strict=True)
        ]

    def in_order(parts_BLH: Iterable[Tensor]) -> Tensor:
        return torch.cat([part_BLH.flatten(0, 1) for part_BLH in parts_BLH]).index_select(
            0, places_N
        )

    last_NH = in_order(last_BLH for last_BLH, _ in pairs)
    return last_NH, in_order(other_BLH for _, other_BLH in pairs) if layer >= 0 else last_NH


def _no_search() -> AbstractContextManager[Any]:
    """Stops transformers from searching each row for several sequences, which waits for the device
    in every pass. A row here has one sequence, or the attention is given their bounds."""
    return patch.object(masking_utils, "find_packed_sequence_indices", lambda position_ids: None)


def _layout(config: LLMConfig) -> str:
    """The layout of the configuration, with `auto` resolved."""
    if config.layout == "auto":
        if config.attention.startswith("flash_attention"):
            return "packed"
        return "padded" if config.shard else "runs"
    if config.layout not in LAYOUTS:
        choices = ", ".join(("auto", *LAYOUTS))
        raise InputError(f"llm.layout: must be one of {choices}, got {config.layout!r}")
    return config.layout


def similar(lens: list[int]) -> list[list[int]]:
    """The indices of `lens` in runs of similar lengths, the longest first."""
    runs: list[list[int]] = []
    for item in sorted(range(len(lens)), key=lambda item: -lens[item]):
        if runs and lens[item] >= SIMILAR * lens[runs[-1][0]]:
            runs[-1].append(item)
        else:
            runs.append([item])
    return runs


def checkpoint_layers(llm: Any, mode: bool) -> None:
    """In training, layers recompute their inner states in the backward pass.

    Only the flags of the layers themselves change: the modules in the layers of a frozen LLM stay
    in eval mode, without dropout.
    """
    for layer in llm.modules():
        if isinstance(layer, GradientCheckpointingLayer):
            layer.gradient_checkpointing = True
            layer._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)
            layer.training = mode


def _forward(decoder: Any, inputs_BLH: Tensor, layer: int, **more: Any) -> tuple[Tensor, Tensor]:
    """The last states and those after `layer`, (B, L, H) each."""
    output = decoder(
        inputs_embeds=inputs_BLH, use_cache=False, output_hidden_states=layer >= 0, **more
    )
    last = output.last_hidden_state
    return last, output.hidden_states[layer] if layer >= 0 else last


def _bounds(lens: list[int], device: torch.device) -> dict[str, Any]:
    """The bounds of the sequences in one row, as arguments of a `transformers` decoder.

    Flash attention uses the bounds; others derive their mask from the positions.
    """
    bounds, positions_N = int_tensors(
        device, [0, *accumulate(lens)], chain.from_iterable(map(range, lens))
    )
    longest = max(lens)
    return {
        "position_ids": positions_N[None],
        **{"cu_seq_lens_q": bounds.int(), "cu_seq_lens_k": bounds.int()},
        **{"max_length_q": longest, "max_length_k": longest},
    }
