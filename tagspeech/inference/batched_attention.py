"""The layers of an LLM over rows of different lengths, each with keys and values of its own.

All new positions of all rows, one or many of each, stand one behind the other in one row of the
LLM's input: nothing is padded. Only attention goes row by row, over what the row has written. Rows
come and go without anything being copied.

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
_GROWTH = 1.5  # what a row's memory grows by when it is full


class KeysAndValues:
    """Keys and values of one row, layer by layer, (2, G, capacity, D) each."""

    def __init__(self) -> None:
        self.length = 0
        self.layers: dict[int, Tensor] = {}

    def add(self, layer: int, new_2GKD: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (G, L, D) of a layer, those of new positions included."""
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
    """The last hidden state (rows, H) of each row after new embedded positions (K, H)."""
    decoder = llm.get_decoder()
    counts = [len(one) for one in inputs]
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
    """Of each row, its new positions to all up to them. Arguments as transformers calls it.

    query (1, G x Q, N, D), key and value (1, G, N, D); gives (1, N, G x Q, D).
    """
    counts = [count for _, count in tagspeech_rows]
    new_2GND = torch.cat([key, value])
    query_GQND = query[0].unflatten(0, (key.shape[1], -1))
    outputs = []
    for (row, count), new_2GKD, query_GQKD in zip(
        tagspeech_rows, new_2GND.split(counts, 2), query_GQND.split(counts, 2), strict=True
    ):
        key_GLD, value_GLD = row.add(module.layer_idx, new_2GKD)
        # Heads that share keys are queries of one head: nothing is repeated.
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
    """(K, L): which keys each of the last positions sees; None where all see all."""
    if count == 1 and (window is None or keys <= window):
        return None
    place_K1 = torch.arange(keys - count, keys, device=device)[:, None]
    place_L = torch.arange(keys, device=device)
    mask_KL = place_L <= place_K1
    return mask_KL if window is None else mask_KL & (place_L > place_K1 - window)


AttentionInterface.register(_NAME, _attention)
