"""Sequences of several lengths through the layers of the LLM, with little padding or none.

    padded      runs            packed
    a a a a     a a a a         a a a a b b c c c   one row, positions 0 1 2 3 0 1 0 1 2;
    b b . .     c c c                               each sequence attends to itself only
    c c c .     b b

Runs are batches of nearly equal lengths, one after the other: the best on a CPU, where attention
over one row costs the square of all lengths together. Packed is for flash attention, whose
variable-length kernel does it in one call. Padding is on the right, where causal attention does not
look: no mask but the causal one is needed.

Shape suffixes: B batch, L positions, N those of all sequences, H hidden size.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from tagspeech.config import LLMConfig
from tagspeech.errors import InputError

LAYOUTS = ("runs", "packed", "padded")
SIMILAR = 0.8  # of the longest sequence of a run the shortest has at least this share


def run_layers(
    decoder: Any, inputs: list[Tensor], config: LLMConfig, layer: int = -1
) -> tuple[list[Tensor], list[Tensor]]:
    """Last hidden states (L, H) of each embedded sequence (L, H), and those behind `layer`.

    layer   counted from 1; -1: the last
    """
    layout = _layout(config)
    lens = [len(one) for one in inputs]
    if layout == "packed":
        last_1NH, states_1NH = _forward(decoder, torch.cat(inputs)[None], layer, **_bounds(inputs))
        return list(last_1NH[0].split(lens)), list(states_1NH[0].split(lens))
    runs = [list(range(len(lens)))] if layout == "padded" else similar(lens)
    found: dict[int, tuple[Tensor, Tensor]] = {}
    for run in runs:
        padded_BLH = pad_sequence([inputs[item] for item in run], batch_first=True)
        last_BLH, states_BLH = _forward(decoder, padded_BLH, layer)
        for row, item in enumerate(run):
            found[item] = (last_BLH[row, : lens[item]], states_BLH[row, : lens[item]])
    last, states = zip(*(found[item] for item in range(len(lens))), strict=True)
    return list(last), list(states)


def _layout(config: LLMConfig) -> str:
    """What `auto` stands for, or the layout that is named."""
    if config.layout == "auto":
        if config.attention.startswith("flash_attention"):
            return "packed"
        return "padded" if config.shard else "runs"
    if config.layout not in LAYOUTS:
        choices = ", ".join(("auto", *LAYOUTS))
        raise InputError(f"llm.layout: wants one of {choices}, found {config.layout!r}")
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
    """In training, states within the layers are computed again in the backward pass, not kept.

    Layers ask their own flag whether they are in training. A frozen LLM is in eval mode; what is
    in its layers stays so, without dropout.
    """
    for layer in llm.modules():
        if isinstance(layer, GradientCheckpointingLayer):
            layer.gradient_checkpointing = True
            layer._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)
            layer.training = mode


def _forward(decoder: Any, inputs_BLH: Tensor, layer: int, **more: Any) -> tuple[Tensor, Tensor]:
    """Last states and those behind `layer`, (B, L, H) each."""
    output = decoder(
        inputs_embeds=inputs_BLH, use_cache=False, output_hidden_states=layer >= 0, **more
    )
    last = output.last_hidden_state
    return last, output.hidden_states[layer] if layer >= 0 else last


def _bounds(inputs: list[Tensor]) -> dict[str, Any]:
    """Where sequences of one row begin, as the attention of `transformers` wants to be told.

    Flash attention takes the bounds; others find by the positions which mask they need.
    """
    device = inputs[0].device
    lens_B = torch.tensor([len(one) for one in inputs], device=device)
    bounds = torch.cat([lens_B.new_zeros(1), lens_B.cumsum(0)]).int()
    longest = max(len(one) for one in inputs)
    return {
        "position_ids": torch.cat([torch.arange(len(one), device=device) for one in inputs])[None],
        **{"cu_seq_lens_q": bounds, "cu_seq_lens_k": bounds},
        **{"max_length_q": longest, "max_length_k": longest},
    }
