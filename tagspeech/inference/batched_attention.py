"""Runs the layers of an LLM over rows of different lengths with one attention for all of them.

The new positions of all rows, one or many of each, follow one another in a single row of the LLM's
input, so that nothing but attention is padded. Keys and values of all rows are one tensor a layer,
as long as the longest row; what is behind the end of a row is masked. Rows with several new
positions, such as forced tokens, have a second attention for all but their last one, so that the
others are not padded to their number. The number of operations does not depend on that of the rows.

Shape suffixes: R rows, M those with several new positions, N new positions of all rows, K the most
of one, C capacity of a row, L positions of the longest, H hidden size, G heads of keys and values,
Q query heads of each of them, D size of a head.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

from tagspeech.data.transfer import int_tensors

_NAME = "tagspeech_rows"
_SPARE = 16  # positions by which rows grow beyond what they need


class KeysAndValues:
    """The keys and values of rows: (R, C, 2, G, D) for each layer.

    Attributes:
        lengths: Positions of each row.
        capacity: C.
    """

    def __init__(self, rows: int) -> None:
        self.lengths, self.capacity = [0] * rows, 0
        self.layers: dict[int, Tensor] = {}

    def reserve(self, length: int) -> None:
        """Makes room for rows of a length."""
        if length > self.capacity:
            self.capacity = length + _SPARE

    def write(self, layer: int, places_N: Tensor, new_N2GD: Tensor) -> Tensor:
        """Writes new positions at places, which count through all rows, and returns the layer."""
        kept = self.layers.get(layer)
        if kept is None or kept.shape[1] < self.capacity:
            grown = new_N2GD.new_zeros(len(self.lengths), self.capacity, *new_N2GD.shape[1:])
            if kept is not None:
                grown[:, : kept.shape[1]] = kept
            kept = self.layers[layer] = grown
        kept.flatten(0, 1).index_copy_(0, places_N, new_N2GD)
        return kept

    def keep(self, rows: Sequence[int]) -> list[int]:
        """Keeps some rows and returns them in their new order: the last ones fill the gaps."""
        count, kept = len(rows), set(rows)
        gaps = [row for row in range(count) if row not in kept]
        moved = [row for row in rows if row >= count]
        order = [row for row in range(len(self.lengths)) if row < count]
        for gap, row in zip(gaps, moved, strict=True):
            order[gap] = row
        for layer, kept_RC2GD in self.layers.items():
            if gaps:
                to, of = int_tensors(kept_RC2GD.device, gaps, moved)
                used_RL2GD = kept_RC2GD[:, : max(self.lengths)]
                used_RL2GD.index_copy_(0, to, used_RL2GD.index_select(0, of))
            self.layers[layer] = kept_RC2GD[:count]
        self.lengths = [self.lengths[row] for row in order]
        return order


@dataclass
class _Queries:
    """New positions that attend together, (R, K), those of a row padded by its first.

    Attributes:
        places_RK: Their positions in their rows.
        rows: The rows among those of the pass; None: all.
        picks: Which new positions they are, (R x K).
    """

    places_RK: Tensor
    rows: Tensor | None
    picks: Tensor
    masks: dict[int | None, Tensor] = field(default_factory=dict)

    def attend(
        self, query_NED: Tensor, kept_RL2GD: Tensor, scaling: float | None, window: int | None
    ) -> Tensor:
        """Their attention to the positions of their rows up to them, (R x K, G x Q, D)."""
        if self.rows is not None:
            kept_RL2GD = kept_RL2GD.index_select(0, self.rows)
        key_RGLD, value_RGLD = kept_RL2GD.permute(2, 0, 3, 1, 4).unbind()
        # Heads that share keys become queries of one head, so that keys are not repeated.
        query_RKED = query_NED.index_select(0, self.picks).unflatten(0, self.places_RK.shape)
        query_RGQKD = query_RKED.unflatten(2, (key_RGLD.shape[1], -1)).permute(0, 2, 3, 1, 4)
        if window not in self.masks:
            self.masks[window] = self._mask(kept_RL2GD.shape[1], window, query_RGQKD)
        attended_RGND = nn.functional.scaled_dot_product_attention(
            query_RGQKD.flatten(2, 3),
            *(key_RGLD, value_RGLD),
            attn_mask=self.masks[window],
            scale=scaling,
        )
        attended_RGQKD = attended_RGND.unflatten(2, query_RGQKD.shape[2:4])
        return attended_RGQKD.permute(0, 3, 1, 2, 4).flatten(2, 3).flatten(0, 1)

    def _mask(self, longest: int, window: int | None, query_RGQKD: Tensor) -> Tensor:
        """What is added to scores, (R, 1, Q x K, L): 0 or minus infinity."""
        place_L = torch.arange(longest, device=self.places_RK.device)
        place_RK1 = self.places_RK[..., None]
        hidden_RKL = place_L > place_RK1
        if window is not None:
            hidden_RKL |= place_L <= place_RK1 - window
        mask_RKL = query_RGQKD.new_zeros(hidden_RKL.shape).masked_fill_(hidden_RKL, -torch.inf)
        if hidden_RKL.shape[1] == 1:
            return mask_RKL[:, None]
        return mask_RKL[:, None].expand(-1, query_RGQKD.shape[2], -1, -1).flatten(1, 2)[:, None]


@dataclass
class _Pass:
    """One forward pass: where new positions are written, and who attends to them.

    Attributes:
        cache: The keys and values of all rows.
        rows: Those of the pass.
        longest: L.
        written_N: The places of the new positions in the cache.
        queries: All new positions.
        order_N: Where each of them is among the results of all queries.
    """

    cache: KeysAndValues
    rows: slice
    longest: int
    written_N: Tensor
    queries: list[_Queries]
    order_N: Tensor


def forward(
    llm: Any, cache: KeysAndValues, first: int, inputs_NH: Tensor, counts: Sequence[int]
) -> Tensor:
    """The last hidden state of each row after new positions.

    Args:
        llm: A causal LM of transformers.
        cache: The keys and values of all rows; they grow by the new positions.
        first: The first row; the pass has as many rows as `counts`.
        inputs_NH: The embedded new positions of these rows, one row after the other.
        counts: Number of new positions of each row, at least 1.

    Returns:
        Hidden states (rows, H).
    """
    decoder = llm.get_decoder()
    rows = slice(first, first + len(counts))
    lengths = [sum(pair) for pair in zip(cache.lengths[rows], counts, strict=True)]
    cache.reserve(max(lengths))
    pairs = list(zip(lengths, counts, strict=True))
    positions = [place for length, count in pairs for place in range(length - count, length)]
    written = [
        row * cache.capacity + place
        for row, (length, count) in enumerate(pairs, first)
        for place in range(length - count, length)
    ]
    stops = list(accumulate(counts))
    queries, order = _queries([range(n - count, n) for n, count in zip(stops, counts, strict=True)])
    lists = [positions, written, [stop - 1 for stop in stops], order]
    for of_rows, picks, _ in queries:
        lists += [of_rows, picks, [positions[pick] for pick in picks]]
    positions_N, written_N, last_R, order_N, *rest = int_tensors(inputs_NH.device, *lists)
    attending = [
        _Queries(places.unflatten(0, (-1, most)), of_rows if len(of_rows) else None, picks)
        for of_rows, picks, places, (_, _, most) in zip(
            rest[::3], rest[1::3], rest[2::3], queries, strict=True
        )
    ]
    with _attends_by_row(decoder):
        hidden_1NH = decoder(
            inputs_embeds=inputs_NH[None],
            position_ids=positions_N[None],
            use_cache=False,
            tagspeech_pass=_Pass(cache, rows, max(lengths), written_N, attending, order_N),
        ).last_hidden_state
    cache.lengths[rows] = lengths
    states: Tensor = hidden_1NH[0].index_select(0, last_R)
    return states


def _queries(spans: Sequence[range]) -> tuple[list[tuple[list[int], list[int], int]], list[int]]:
    """Which new positions attend together.

    Args:
        spans: The new positions of each row.

    Returns:
        For one or two queries their rows ([]: all), their new positions and K; and where each new
        position is among the results.
    """
    several = [row for row, span in enumerate(spans) if len(span) > 1]
    parts: list[tuple[list[int], list[range]]] = [([], list(spans))]
    if 0 < len(several) < len(spans):
        parts = [([], [span[-1:] for span in spans]), (several, [spans[n][:-1] for n in several])]
    queries: list[tuple[list[int], list[int], int]] = []
    found: dict[int, int] = {}
    offset = 0
    for rows, of_rows in parts:
        most = max(map(len, of_rows))
        picks: list[int] = []
        for span in of_rows:
            found.update(
                zip(span, range(offset + len(picks), offset + len(picks) + most), strict=False)
            )
            picks += [*span, *[span[0]] * (most - len(span))]
        queries.append((rows, picks, most))
        offset += len(picks)
    return queries, [found[n] for n in range(spans[-1].stop)]


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
    tagspeech_pass: _Pass,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention of each row's new positions to all positions up to them, as transformers calls it.

    Args:
        module: The attention layer.
        query: (1, G x Q, N, D).
        key: (1, G, N, D).
        value: (1, G, N, D).
        attention_mask: Ignored: the pass knows the rows.
        scaling: Factor of the scores.
        sliding_window: Positions that a position sees; None: all.
        tagspeech_pass: The pass.

    Returns:
        (1, N, G x Q, D), and None for the weights.
    """
    new_N2GD = torch.cat([key, value]).permute(2, 0, 1, 3)
    kept_RC2GD = tagspeech_pass.cache.write(module.layer_idx, tagspeech_pass.written_N, new_N2GD)
    kept_RL2GD = kept_RC2GD[tagspeech_pass.rows, : tagspeech_pass.longest]
    query_NED = query[0].transpose(0, 1)
    parts = [
        queries.attend(query_NED, kept_RL2GD, scaling, sliding_window)
        for queries in tagspeech_pass.queries
    ]
    return torch.cat(parts).index_select(0, tagspeech_pass.order_N)[None], None


AttentionInterface.register(_NAME, _attention)
