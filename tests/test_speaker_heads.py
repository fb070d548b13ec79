"""Auxiliary speaker losses: the right places, the right labels, and gone after training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch")

import torch
from torch import Tensor

from tagspeech.checkpoints.native import load_pretrained
from tagspeech.config import DropConfig, LossConfig
from tagspeech.config_file import load_config
from tagspeech.model.speaker_heads import SpeakerHeads, ends_of_ranges, speakers_of_lines, token_at
from tagspeech.model.tagspeech import TagSpeechModel
from tagspeech.segments import Segment
from tagspeech.serialize import to_target
from tagspeech.training.checkpoint import load
from tagspeech.training.dropped_streams import StreamDrops
from tagspeech.training.tagspeech import train_tagspeech

SEGMENTS = [
    Segment("one", "b", 0.4, 1.6, "set the lamp > to seven", "f"),
    Segment("one", "a", 1.2, 2.0, "she will call", "m"),
    Segment("one", "b", 2.4, 2.8, "three", "f"),
]
TARGET = to_target(SEGMENTS, 0.1)


@pytest.fixture
def model(tiny_model_folder: Path) -> TagSpeechModel:
    return load_pretrained(TagSpeechModel, tiny_model_folder)


@pytest.fixture
def heads(model: TagSpeechModel) -> SpeakerHeads:
    torch.manual_seed(1)
    return SpeakerHeads(
        model.llm.config.hidden_size, model.config.voice.projected_frames_per_second
    )


def test_labels_of_a_target() -> None:
    heads = SpeakerHeads(8, frames_per_second=5.0, speakers=2)
    activity_PK = heads.activity_of(TARGET, 15)
    talking = [[int(frame) for frame in one.nonzero()] for one in activity_PK.T]
    assert talking == [[2, 3, 4, 5, 6, 7, 12, 13], [6, 7, 8, 9]]
    assert speakers_of_lines(TARGET) == [0, 1, 0]
    assert SpeakerHeads(8, frames_per_second=5.0, speakers=1).activity_of(TARGET, 15).shape == (
        15,
        1,
    )


def test_states_behind_the_ranges(model: TagSpeechModel) -> None:
    tokens = token_at(model.tokenizer, TARGET, ends_of_ranges(TARGET))
    ids = model.target_ids(TARGET)
    written = [model.tokenizer.decode(ids[: token + 1]) for token in tokens]
    assert [text.split("\n")[-1] for text in written] == ["0.40-1.60>", "1.20-2.00>", "2.40-2.80>"]


@pytest.mark.parametrize(
    "drop", [DropConfig(), DropConfig(anchors=1.0), DropConfig(semantic=1.0), DropConfig(voice=1.0)]
)
def test_places_of_voice_frames(model: TagSpeechModel, drop: DropConfig) -> None:
    hidden = model.llm.config.hidden_size
    projected = [(torch.randn(13, hidden), torch.randn(13, hidden))]
    heard, anchored = StreamDrops(drop)(projected)
    ((semantic, voice),) = pairs = model.add_anchors(heard, anchored)
    (prompt_LH,) = model.prompts(pairs)
    own_PH = heard[0][1]
    places = model.voice_places(len(semantic), len(voice), len(own_PH))
    assert prompt_LH[places].equal(own_PH)


def losses(
    model: TagSpeechModel, heads: SpeakerHeads, drop: DropConfig | None = None
) -> dict[str, Tensor]:
    features_BTF = torch.randn(2, 300, 80, generator=torch.Generator().manual_seed(1))
    frames = model.encode(features_BTF, torch.tensor([300, 280]))
    drops = StreamDrops(drop or DropConfig())
    return model.loss_from_frames(frames, [TARGET, TARGET], drops=drops, heads=heads).terms


def test_losses_teach_the_llm(model: TagSpeechModel, heads: SpeakerHeads) -> None:
    loss = LossConfig(speaker_activity=1.0, line_speaker=1.0, speaker_layer=1)
    model.config = replace(model.config, loss=loss)
    model.train()
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.Adam([*weights, *heads.parameters()], lr=1e-2)
    curve = []
    for _ in range(30):
        terms = losses(model, heads)
        optimizer.zero_grad()
        (terms["speaker_activity"] + terms["line_speaker"]).backward()
        optimizer.step()
        curve.append([terms["speaker_activity"].item(), terms["line_speaker"].item()])
    assert curve[-1][0] < 0.7 * curve[0][0]
    assert curve[-1][1] < 0.7 * curve[0][1]


def test_a_group_without_lines_or_frames_has_no_loss(
    model: TagSpeechModel, heads: SpeakerHeads
) -> None:
    model.train()
    drop = DropConfig(voice=1.0)
    assert losses(model, heads, drop)["speaker_activity"].item() == 0.0
    frames = model.encode(torch.randn(1, 300, 80), torch.tensor([300]))
    drops = StreamDrops(drop)
    empty = model.loss_from_frames(frames, [to_target([], 0.1)], drops=drops, heads=heads)
    assert empty.terms["line_speaker"].item() == 0.0
    assert torch.isfinite(empty.loss)


def test_heads_learn_and_are_not_saved(tiny_base: Path, tiny_yaml: Path, tmp_path: Path) -> None:
    names = ("speaker_activity", "line_speaker", "speaker_layer")
    config = load_config(tiny_yaml, [f"loss.{name}=1" for name in names])
    groups, start = tiny_base / "embeddings", tiny_base / "model"
    train_tagspeech(config, groups, None, None, tmp_path, init_from=start)
    learnt = load(tmp_path / "checkpoint-6.pt")["model"]
    assert any(name.startswith("speaker_heads.") for name in learnt)
    load_pretrained(TagSpeechModel, tmp_path / "pretrained")
