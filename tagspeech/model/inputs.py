"""The input of the LLM for a batch: prompts with their streams, and the tokens after them.

In training the rows of all items come from one table by a single gather: projected frames, then
tokens. So the number of operations does not grow with the batch, and no row is copied twice. Where
the table of the LLM's embedding is trained, its rows are looked up item by item instead, since the
order of the sums of its gradient decides their last bits; so too for anchors that are no tokens.

Shape suffixes: N positions of all items, H hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tagspeech.data.transfer import int_tensors
from tagspeech.model.anchors import NumberedRows, join
from tagspeech.model.frames import Projected

# The projected streams of each item to those that the LLM reads, and which items get anchors
Drops = Callable[[Sequence[tuple[Any, Any]]], tuple[Sequence[tuple[Any, Any]], Sequence[bool]]]


class Inputs(NamedTuple):
    """The input of the LLM, one item after the other.

    Attributes:
        rows_NH: Embedded positions.
        lens: Positions of each item.
        starts: The row of each item's first token after its prompt.
        voice_places: The rows of each item's projected voice frames.
    """

    rows_NH: Tensor
    lens: list[int]
    starts: list[int]
    voice_places: list[list[int]]


def build_inputs(
    model: Any,
    projected: Projected,
    ids: Sequence[Sequence[int]],
    drops: Drops | None = None,
) -> Inputs:
    """Puts prompts and streams of a batch together.

    Args:
        model: A `TagSpeechModel`: has the prompt, the anchors and the embedding.
        projected: Frames of both streams.
        ids: Tokens that follow the prompt of each item.
        drops: Empties streams, and says which items get anchors.
    """
    forms = (model.semantic_anchors, model.voice_anchors)
    is_trained = torch.is_grad_enabled() and model.llm.get_input_embeddings().weight.requires_grad
    streams: Sequence[tuple[Any, Any]] = projected
    numbers = None
    if not is_trained and all(form.are_tokens for form in forms):
        streams = projected.row_numbers()
        numbers = NumberedRows(projected.num_rows, model.prompt.digits)
    rows: Any = numbers or model.rows()
    kept, anchored = drops(streams) if drops else (streams, None)
    pairs = model.add_anchors(kept, anchored, rows)
    anchors = len(numbers.ids) if numbers else 0
    prompts = model.prompts(pairs, rows)
    items = [
        rows.join([prompt, rows.of(tokens)]) for prompt, tokens in zip(prompts, ids, strict=True)
    ]
    inputs = Inputs(torch.empty(0), list(map(len, items)), [], [])
    start = 0
    for item, prompt, (semantic, voice), (_, frames) in zip(
        items, prompts, pairs, kept, strict=True
    ):
        inputs.starts.append(start + len(prompt))
        places = model.voice_places(len(semantic), len(voice), len(frames))
        inputs.voice_places.append([start + place for place in places])
        start += len(item)
    if numbers is None:
        return inputs._replace(rows_NH=torch.cat(items))
    tokens_TH = model.embed(numbers.ids)
    # Anchors have the precision of the frames between which they stand.
    streams_SH = join([projected.rows(), tokens_TH[:anchors]])
    table_SH = torch.cat([streams_SH.to(tokens_TH), tokens_TH[anchors:]])
    (places_N,) = int_tensors(tokens_TH.device, numbers.join(items))
    return inputs._replace(rows_NH=table_SH.index_select(0, places_N))
