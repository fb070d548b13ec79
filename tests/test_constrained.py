"""Constrained decoding: whatever the LLM would write, only target texts come out."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")

import torch

from tagspeech.decoding.greedy import WellFormed, generate_texts
from tagspeech.models.pretrained import load_pretrained
from tagspeech.models.tagspeech import TagSpeechModel
from tagspeech.segments import Segment
from tagspeech.serialize import to_target
from tagspeech.wellformed import goes_on, is_whole


@pytest.mark.parametrize("seed", range(3))
def test_any_llm_writes_well_formed_text_if_it_must(tiny_model_folder: Path, seed: int) -> None:
    """Random weights would write anything: what comes out parses, up to where it was cut off."""
    model = load_pretrained(TagSpeechModel, tiny_model_folder)
    torch.manual_seed(seed)
    with torch.no_grad():
        for weight in model.llm.parameters():
            weight.normal_(0, 0.3)
    features_BTF = torch.randn(3, 200, 80)
    frames = model.encode(features_BTF, torch.tensor([200, 150, 90]))
    free = generate_texts(model, frames, 60)
    assert any(not goes_on(text) for text in free)
    for text in generate_texts(model, frames, 60, well_formed=True):
        assert is_whole(text) or goes_on(text), text


def test_well_formed_leaves_alone_what_is_well_formed(
    tiny_model_folder: Path, tiny_segments: list[Segment]
) -> None:
    """Of every prefix of a target the next token is kept, the end of the turn after the last."""
    model = load_pretrained(TagSpeechModel, tiny_model_folder)
    ids = model.target_ids(to_target(tiny_segments, 0.1))
    end = model.prompt.ending[0]
    rule = WellFormed(model.tokenizer, end)
    for place, token in enumerate(ids[: ids.index(end) + 1]):
        scores_1V = torch.zeros(1, model.llm.config.vocab_size)
        scores_1V[0, token] = 1.0
        ruled_1V = rule(torch.tensor([ids[:place]], dtype=torch.long), scores_1V)
        assert int(ruled_1V.argmax()) == token, model.tokenizer.decode(ids[: place + 1])
