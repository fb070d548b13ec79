"""A new projector, form of anchors or encoder is one class and one row: nothing is left out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest

pytest.importorskip("torch")

import torch
from torch import Tensor, nn

from tagspeech.checkpoints.native import fingerprint, load_pretrained, save_pretrained, start_from
from tagspeech.checkpoints.published import save_released
from tagspeech.config import Config, EncoderConfig, StreamConfig, VoiceConfig
from tagspeech.config_file import load_config
from tagspeech.encoders.build import VOICE_ENCODERS
from tagspeech.encoders.stream import StreamEncoder
from tagspeech.errors import InputError
from tagspeech.llm.load import load_llm
from tagspeech.model.anchors import ANCHORS, AnchorsBetweenFrames, AnchorSetup, EmbeddingRows
from tagspeech.model.frames import Frames
from tagspeech.model.projector import PROJECTORS, Projector
from tagspeech.model.tagspeech import TagSpeechModel
from tagspeech.training.tagspeech import train_tagspeech

SETS = ("semantic.projector=toy-conv", "semantic.stack=2", "voice.projector=toy-conv")
SETS += ("prompt.anchors=toy-learned", "llm.trainable=none")
NEW_PARTS = ("semantic_projector.conv", "voice_projector.conv", "semantic_anchors", "voice_anchors")


class ConvProjector(Projector):
    """A convolution over three frames with stride `stack`."""

    def __init__(self, config: StreamConfig, hidden_size: int) -> None:
        super().__init__(config, hidden_size)
        self.conv = nn.Conv1d(config.output_dim, hidden_size, 3, stride=self.stack, padding=1)

    def output_lens(self, frame_lens_B: Tensor) -> Tensor:
        return (frame_lens_B + self.stack - 1) // self.stack

    def forward(self, frames_BTD: Tensor) -> Tensor:
        return self.conv(frames_BTD.transpose(1, 2)).transpose(1, 2)


class LearnedAnchors(AnchorsBetweenFrames):
    """A trained row for each number from 1, of the size of the LLM's rows."""

    def __init__(self, setup: AnchorSetup) -> None:
        super().__init__(setup)
        self.table = nn.Embedding(64, setup.hidden_size)

    def anchor(self, number: int, frame: int, rows: EmbeddingRows) -> Tensor:
        if number > self.table.num_embeddings:
            raise InputError(f"prompt.anchors: there is no anchor {number}; lower train.longest")
        size = rows.digits_10H.float().square().mean().sqrt()
        return self.table.weight[number - 1 : number] * size

    def length(self, number: int, frame: int) -> int:
        return 1


class SlowProjector(Projector):
    """Keeps a frame of eight, whatever `stack` is."""

    def output_lens(self, frame_lens_B: Tensor) -> Tensor:
        return frame_lens_B // 8


@pytest.fixture(autouse=True)
def _rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PROJECTORS, "toy-conv", ConvProjector)
    monkeypatch.setitem(PROJECTORS, "slow", SlowProjector)
    monkeypatch.setitem(ANCHORS, "toy-learned", LearnedAnchors)


@pytest.fixture
def folder(tiny_base: Path, tiny_yaml: Path, tmp_path: Path) -> Path:
    """A saved model with the new parts."""
    config = load_config(tiny_yaml, [*SETS, f"llm.name={tiny_base / 'llm'}"])
    torch.manual_seed(1)
    model = TagSpeechModel(config, *load_llm(config.llm))
    old = load_pretrained(TagSpeechModel, tiny_base / "model")
    model.semantic_encoder.load_state_dict(old.semantic_encoder.state_dict())
    model.voice_encoder.load_state_dict(old.voice_encoder.state_dict())
    save_pretrained(model, tmp_path / "new")
    return tmp_path / "new"


def loss_of(model: TagSpeechModel) -> Tensor:
    features_BTF = torch.randn(1, 200, 80, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return model.loss(features_BTF, torch.tensor([200]), ["<text>\n</text>"]).loss


def test_new_parts_are_trained_saved_and_taken_over(
    folder: Path, tiny_base: Path, tiny_yaml: Path, tmp_path: Path
) -> None:
    """The configuration has the default parts: what the model is comes from its folder."""
    config = load_config(tiny_yaml, ["train.max_steps=2", "llm.trainable=none"])
    train_tagspeech(config, tiny_base / "embeddings", None, None, tmp_path / "run", folder)
    before = load_pretrained(TagSpeechModel, folder)
    after = load_pretrained(TagSpeechModel, tmp_path / "run/pretrained")
    old, new = before.state_dict(), after.state_dict()
    assert old.keys() == new.keys()
    changed = {name for name, weight in new.items() if not weight.equal(old[name])}
    for part in NEW_PARTS:
        assert any(name.startswith(part) for name in changed), part
    assert all(name.startswith(NEW_PARTS) for name in changed)
    assert after.config.semantic.projector == after.config.voice.projector == "toy-conv"
    assert (after.config.semantic.stack, after.config.prompt.anchors) == (2, "toy-learned")
    again = start_from(load_config(tiny_yaml), tmp_path / "run/pretrained")
    again.eval()
    assert loss_of(again) == loss_of(after)
    assert loss_of(after) != loss_of(before)
    assert fingerprint(before) == fingerprint(load_pretrained(TagSpeechModel, folder))
    assert fingerprint(before) != fingerprint(after)


def test_a_projector_sees_zeros_after_the_end_of_an_item(folder: Path) -> None:
    model = load_pretrained(TagSpeechModel, folder)
    semantic, voice = model.config.semantic.output_dim, model.config.voice.output_dim
    lens_B = torch.tensor([13])
    frames = Frames(torch.randn(1, 20, semantic), lens_B, torch.randn(1, 20, voice), lens_B)
    alone = Frames(frames.semantic[:, :13], lens_B, frames.voice[:, :13], lens_B)
    with torch.no_grad():
        ((semantic_PH, voice_PH),) = model.project(frames)
        ((semantic_alone_PH, voice_alone_PH),) = model.project(alone)
    assert (len(semantic_PH), len(voice_PH)) == (7, 4)
    torch.testing.assert_close(semantic_PH, semantic_alone_PH)
    torch.testing.assert_close(voice_PH, voice_alone_PH)


@pytest.mark.parametrize("part", [*NEW_PARTS, "semantic_encoder", "llm"])
def test_every_part_is_in_the_fingerprint(folder: Path, part: str) -> None:
    model = load_pretrained(TagSpeechModel, folder)
    before = fingerprint(model)
    weight = next(weight for name, weight in model.named_parameters() if name.startswith(part))
    with torch.no_grad():
        weight.add_(1.0)
    assert fingerprint(model) != before


def test_shape_and_adapters_are_in_the_fingerprint(folder: Path, tiny_yaml: Path) -> None:
    model = load_pretrained(TagSpeechModel, folder)
    before = fingerprint(model)
    model.config = replace(model.config, voice=replace(model.config.voice, anchor_interval=9))
    assert fingerprint(model) != before
    adapted = start_from(load_config(tiny_yaml, ["llm.trainable=none", "llm.lora.r=2"]), folder)
    before = fingerprint(adapted)
    weight = next(weight for name, weight in adapted.named_parameters() if ".lora_B" in name)
    with torch.no_grad():
        weight[-1, -1] += 1.0
    assert fingerprint(adapted) != before


@pytest.mark.parametrize(
    ("sets", "field"),
    [
        (("prompt.anchors=toy-learned",), r"prompt\.anchors"),
        (("voice.projector=toy-conv",), r"voice\.projector"),
        (("features.num_mel_bins=40",), r"features\.num_mel_bins"),
    ],
)
def test_the_released_layout_refuses_what_it_cannot_hold(
    tiny_config: Config, tiny_yaml: Path, tmp_path: Path, sets: tuple[str, ...], field: str
) -> None:
    front_ends = [f"{name}.encoder.embed_channels=[8,32,128]" for name in ("semantic", "voice")]
    config = load_config(tiny_yaml, [*front_ends, *sets, f"llm.name={tiny_config.llm.name}"])
    model = TagSpeechModel(config, *load_llm(config.llm))
    with pytest.raises(InputError, match=f"{field}: the released layout knows only"):
        save_released(model, tmp_path / "released")
    assert not (tmp_path / "released").exists()


def test_a_projector_of_another_rate_is_refused(tiny_config: Config) -> None:
    config = replace(tiny_config, voice=replace(tiny_config.voice, projector="slow"))
    with pytest.raises(ValueError, match="gives 500 frames for 1000 times 4"):
        TagSpeechModel(config, *load_llm(config.llm))
    config = replace(tiny_config, voice=replace(tiny_config.voice, projector="none"))
    with pytest.raises(
        InputError, match="projector: must be one of stack, conv, toy-conv, slow, got 'none'"
    ):
        TagSpeechModel(config, *load_llm(config.llm))


@dataclass(frozen=True)
class PlainConfig(EncoderConfig):
    """Mean features of 20 ms."""

    feature_dim: int = 80
    output_dim: int = 80
    frames_per_second: float = 50.0


@dataclass(frozen=True)
class PlainVoiceConfig(VoiceConfig):
    """As if `plain` were a field of `VoiceConfig`."""

    plain: PlainConfig | None = None


class PlainEncoder(StreamEncoder):
    def forward(self, features_BTF: Tensor, feature_lens_B: Tensor) -> tuple[Tensor, Tensor]:
        frames_BTD = features_BTF[:, : features_BTF.shape[1] // 2 * 2].unflatten(1, (-1, 2)).mean(2)
        return frames_BTD, feature_lens_B // 2


def test_a_voice_encoder_says_channels_and_rate(
    tiny_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(VOICE_ENCODERS, PlainConfig, PlainEncoder)
    config = replace(tiny_config, voice=PlainVoiceConfig(plain=PlainConfig(), stack=5))
    assert (config.voice.encoder_section, config.voice.output_dim) == ("plain", 80)
    assert (config.voice.frames_per_second, config.voice.projected_frames_per_second) == (50, 10)
    model = TagSpeechModel(config, *load_llm(config.llm))
    assert model.voice_anchors.setup.frame_seconds == pytest.approx(0.1)
    features = (torch.randn(1, 200, 80), torch.tensor([200]))
    assert model.encode(*features).voice.shape == (1, 100, 80)
    streams = model.streams(*features)
    assert streams.voice_lens.item() == 20 + 4  # anchors 1 to 4, the last one after frame 20
