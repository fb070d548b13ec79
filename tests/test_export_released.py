"""An export in the released layout can be loaded, or is refused before it is there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from tagspeech.checkpoints.published import save_released
from tagspeech.config import Config, ZipformerConfig
from tagspeech.errors import InputError
from tagspeech.llm.load import load_llm
from tagspeech.model.projector import StackProjector
from tagspeech.model.tagspeech import TagSpeechModel


@pytest.fixture
def config(tiny_config: Config) -> Config:
    """What the layout can hold."""
    channels = ZipformerConfig.embed_channels
    semantic, voice = tiny_config.semantic, tiny_config.voice
    return replace(
        tiny_config,
        semantic=replace(semantic, encoder=replace(semantic.encoder, embed_channels=channels)),
        voice=replace(voice, encoder=replace(voice.encoder, embed_channels=channels)),
    )


def make(config: Config) -> TagSpeechModel:
    torch.manual_seed(1)
    return TagSpeechModel(config, *load_llm(config.llm))


def refusal(model: TagSpeechModel, folder: Path) -> str:
    with pytest.raises(InputError) as error:
        save_released(model, folder / "released")
    assert list(folder.iterdir()) == []
    assert "\n" not in str(error.value)
    return str(error.value)


def bins(config: Config) -> Config:
    """Both encoders hear 40 mel bins."""
    semantic, voice = config.semantic, config.voice
    return replace(
        config,
        features=replace(config.features, num_mel_bins=40),
        semantic=replace(semantic, encoder=replace(semantic.encoder, feature_dim=40)),
        voice=replace(voice, encoder=replace(voice.encoder, feature_dim=40)),
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda config: replace(config, prompt=replace(config.prompt, anchors="text")),
            "prompt.anchors: the released layout knows only numeric, and the model has text",
        ),
        (
            lambda config: replace(config, prompt=replace(config.prompt, voice=False)),
            "prompt.voice: the released layout knows only True, and the model has False",
        ),
        (bins, "features.num_mel_bins: the released layout knows only 80, and the model has 40"),
    ],
)
def test_value_that_it_cannot_hold_is_named(
    config: Config, tmp_path: Path, change: Callable[[Config], Config], words: str
) -> None:
    assert refusal(make(change(config)), tmp_path) == words


def test_projector_of_another_kind_is_named(config: Config, tmp_path: Path) -> None:
    model = make(config)
    model.voice_projector.norm = nn.LayerNorm(4)
    assert "voice_projector.norm.bias: the released layout has no place" in refusal(model, tmp_path)
    model = make(config)
    model.semantic_projector = nn.Linear(4, 4)  # type: ignore[assignment]
    assert "semantic_projector.bias: the released layout has no place" in refusal(model, tmp_path)


def test_projector_that_is_not_as_recorded_is_found_by_loading(
    config: Config, tmp_path: Path
) -> None:
    model = make(config)
    hidden = model.llm.config.hidden_size
    model.semantic_projector = StackProjector(replace(config.semantic, stack=2), hidden)
    message = refusal(model, tmp_path)
    assert message.startswith(f"{tmp_path / 'released'}: is not written: ")
    assert "projectors.pt: semantic_projector.linear1.weight has shape" in message
    assert "partial" not in message
