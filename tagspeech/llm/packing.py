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
SIMILAR = 0.8  # smallest ratio of the shortest to the longest sequence of a run


def run_layers(
    decoder: Any, inputs: list[Tensor], config: LLMConfig, layer: int = -1
) -> tuple[list[Tensor], list[Tensor]]:
    """The last hidden states of each sequence, and those after another layer, (L, H) each.

    Args:
        decoder: The LLM without its output.
        inputs: Embedded sequences, (L, H) each.
        config: Has the layout.
        layer: The other layer, counted from 1; -1: the last.
    """
    layout = _layout(config)
    lens = list(map(len, inputs))
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


def _bounds(inputs: list[Tensor]) -> dict[str, Any]:
    """The bounds of the sequences in one row, as arguments of a `transformers` decoder.

    Flash attention uses the bounds; others derive their mask from the positions.
    """
    device = inputs[0].device
    lens = list(map(len, inputs))
    lens_B = torch.tensor(lens, device=device)
    bounds = torch.cat([lens_B.new_zeros(1), lens_B.cumsum(0)]).int()
    longest = max(lens)
    return {
        "position_ids": torch.cat([torch.arange(n, device=device) for n in lens])[None],
        **{"cu_seq_lens_q": bounds, "cu_seq_lens_k": bounds},
        **{"max_length_q": longest, "max_length_k": longest},
    }
