"""Runs the layers of an LLM over rows of different lengths, each with its own keys and values.

The new positions of all rows, one or many of each, follow one another in a single row of the LLM's
input, so that nothing is padded. Only attention is computed row by row. Rows come and go without a
copy.

Shape suffixes: N positions of all rows, K those of one, L keys of one, H hidden size, G heads of
keys and values, Q query heads of each of them, D size of a head.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

_NAME = "tagspeech_rows"
_GROWTH = 1.5  # factor by which the memory of a row grows when it is full


class KeysAndValues:
    """The keys and values of one row: (2, G, capacity, D) for each layer."""

    def __init__(self) -> None:
        self.length = 0
        self.layers: dict[int, Tensor] = {}

    def add(self, layer: int, new_2GKD: Tensor) -> tuple[Tensor, Tensor]:
        """Adds new positions to a layer; returns all its keys and values, (G, L, D) each."""
        stop = self.length + new_2GKD.shape[2]
        kept = self.layers.get(layer)
        if kept is None or kept.shape[2] < stop:
            two, heads, _, size = new_2GKD.shape
            grown = new_2GKD.new_empty(
                two, heads, stop if kept is None else int(_GROWTH * stop), size
            )
            if kept is not None:
                grown[:, :, : self.length] = kept[:, :, : self.length]
            kept = self.layers[layer] = grown
        kept[:, :, self.length : stop] = new_2GKD
        key_GLD, value_GLD = kept[:, :, :stop].unbind()
        return key_GLD, value_GLD


def forward(llm: Any, rows: Sequence[KeysAndValues], inputs: Sequence[Tensor]) -> Tensor:
    """The last hidden state of each row after new positions.

    Args:
        llm: A causal LM of transformers.
        rows: The keys and values of each row; they grow by the new positions.
        inputs: Embedded new positions (K, H) of each row.

    Returns:
        Hidden states (rows, H).
    """
    decoder = llm.get_decoder()
    counts = [len(input_KH) for input_KH in inputs]
    device = inputs[0].device
    positions_N = torch.cat(
        [
            torch.arange(row.length, row.length + count, device=device)
            for row, count in zip(rows, counts, strict=True)
        ]
    )
    with _attends_by_row(decoder):
        hidden_1NH = decoder(
            inputs_embeds=torch.cat(list(inputs))[None],
            position_ids=positions_N[None],
            use_cache=False,
            tagspeech_rows=list(zip(rows, counts, strict=True)),
        ).last_hidden_state
    for row, count in zip(rows, counts, strict=True):
        row.length += count
    last = torch.tensor(counts, device=device).cumsum(0) - 1
    states: Tensor = hidden_1NH[0, last]
    return states


@contextmanager
def _attends_by_row(decoder: Any) -> Iterator[None]:
    before = decoder.config._attn_implementation
    decoder.config._attn_implementation = _NAME
    try:
        yield
    finally:
        decoder.config._attn_implementation = before


def _attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
    tagspeech_rows: Sequence[tuple[KeysAndValues, int]] = (),
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention of each row's new positions to all positions up to them, as transformers calls it.

    Args:
        module: The attention layer.
        query: (1, G x Q, N, D).
        key: (1, G, N, D).
        value: (1, G, N, D).
        attention_mask: Ignored: rows have no padding.
        scaling: Factor of the scores.
        sliding_window: Positions that a position sees; None: all.
        tagspeech_rows: The cache and the number of new positions of each row.

    Returns:
        (1, N, G x Q, D), and None for the weights.
    """
    counts = [count for _, count in tagspeech_rows]
    new_2GND = torch.cat([key, value])
    query_GQND = query[0].unflatten(0, (key.shape[1], -1))
    outputs = []
    for (row, count), new_2GKD, query_GQKD in zip(
        tagspeech_rows, new_2GND.split(counts, 2), query_GQND.split(counts, 2), strict=True
    ):
        key_GLD, value_GLD = row.add(module.layer_idx, new_2GKD)
        # Heads that share keys become queries of one head, so that keys are not repeated.
        query_GKD = query_GQKD.flatten(1, 2)
        mask = _mask(count, key_GLD.shape[1], sliding_window, query.device)
        if mask is not None:
            mask = mask.repeat(query_GQKD.shape[1], 1)
        attended_GKD = nn.functional.scaled_dot_product_attention(
            query_GKD[None], key_GLD[None], value_GLD[None], attn_mask=mask, scale=scaling
        )[0]
        outputs.append(attended_GKD.unflatten(1, (-1, count)))
    return torch.cat(outputs, dim=2).flatten(0, 1).transpose(0, 1)[None], None


def _mask(count: int, keys: int, window: int | None, device: torch.device) -> Tensor | None:
    """Which keys each of the last positions sees, (K, L); None if all see all."""
    if count == 1 and (window is None or keys <= window):
        return None
    place_K1 = torch.arange(keys - count, keys, device=device)[:, None]
    place_L = torch.arange(keys, device=device)
    mask_KL = place_L <= place_K1
    return mask_KL if window is None else mask_KL & (place_L > place_K1 - window)


AttentionInterface.register(_NAME, _attention)
