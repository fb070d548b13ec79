"""A Whisper's encoder as the semantic stream: its frames, long groups, and all stages with it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration

from tagspeech import TagSpeech
from tagspeech.checkpoints.published import save_released
from tagspeech.checkpoints.starting_points import find_parts
from tagspeech.config import Config, FeatureConfig, LoraConfig, WhisperEncoderConfig
from tagspeech.config_file import load_config, to_tree
from tagspeech.data.batches import FeatureReader, read_frames, read_groups
from tagspeech.encoders.voice import VoiceModel
from tagspeech.encoders.whisper import WhisperStream
from tagspeech.errors import InputError
from tagspeech.training.checkpoint import save
from tagspeech.training.embed import embed
from tagspeech.training.encoders import train_semantic
from tagspeech.training.prefetch import Batch
from tagspeech.training.tagspeech import TagSpeechTask, train_tagspeech

RATE = 16000
SIZES = {"d_model": 16, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 24}


def make(folder: Path, bins: int) -> WhisperForConditionalGeneration:
    """A random Whisper as it lies in a folder of the Hub."""
    torch.manual_seed(1)
    more = {"decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 8}
    ids = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), 0)
    config = WhisperConfig(
        **SIZES, **more, **ids, vocab_size=20, num_mel_bins=bins, decoder_start_token_id=1
    )
    whisper = WhisperForConditionalGeneration(config).eval()
    whisper.save_pretrained(folder)
    return whisper


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whisper") / "tiny"
    make(folder, 80)
    return folder


@pytest.fixture(scope="module")
def stream(folder: Path) -> WhisperStream:
    stream = WhisperStream(WhisperEncoderConfig(**SIZES))
    stream.load_weights(folder / "model.safetensors")
    return stream.eval()


def noise(seconds: float) -> np.ndarray:
    """Noise that swells and ends in a moment of silence."""
    count = round(seconds * RATE)
    audio = np.random.default_rng(1).normal(size=count) * np.linspace(0.001, 0.3, count)
    audio[-RATE // 10 :] = 0
    return audio.astype(np.float32)


@pytest.mark.parametrize("bins", [80, 128])
@pytest.mark.parametrize("seconds", [0.5, 4.0, 30.0])
@torch.no_grad()
def test_frames_are_those_of_whisper(bins: int, seconds: float, tmp_path: Path) -> None:
    whisper = make(tmp_path, bins)
    stream = WhisperStream(WhisperEncoderConfig(num_mel_bins=bins, **SIZES)).eval()
    stream.load_weights(tmp_path / "model.safetensors")
    audio = noise(seconds)
    features_BTF, lens_B = FeatureReader(FeatureConfig(), [("whisper", bins)]).of_samples([audio])
    assert features_BTF.shape == (1, round(seconds * 100), 80 + bins)
    frames_BTD, frame_lens_B = stream(features_BTF[..., 80:], lens_B)
    assert frame_lens_B.tolist() == [round(seconds * 50)]
    extract = WhisperFeatureExtractor(feature_size=bins)
    theirs = extract(audio, sampling_rate=RATE, return_tensors="pt").input_features
    wanted_BTD = whisper.model.encoder(theirs).last_hidden_state[:, : round(seconds * 50)]
    torch.testing.assert_close(frames_BTD, wanted_BTD, rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_a_long_group_is_heard_to_its_end_in_windows(stream: WhisperStream) -> None:
    reader = FeatureReader(FeatureConfig(), [("whisper", 80)])
    long, short = noise(70.0), noise(3.0)

    def frames(*audio: np.ndarray) -> list[Tensor]:
        features_BTF, lens_B = reader.of_samples(list(audio))
        features_BTF = torch.nn.functional.pad(features_BTF, (0, 0, 0, 50), value=9.0)
        frames_BTD, frame_lens_B = stream(features_BTF[..., 80:], lens_B)
        return [one[:length] for one, length in zip(frames_BTD, frame_lens_B, strict=True)]

    together = frames(long, short)
    assert [len(one) for one in together] == [3500, 150]
    windows = [frames(long[start * RATE : (start + 30) * RATE])[0] for start in (0, 30, 60)]
    torch.testing.assert_close(together[0], torch.cat(windows), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(together[1], frames(short)[0], rtol=1e-4, atol=1e-4)
    nothing_BTD, lens_B = stream(torch.zeros(2, 0, 80), torch.tensor([0, 0]))
    assert nothing_BTD.shape == (2, 0, 16)
    assert lens_B.tolist() == [0, 0]


@pytest.fixture(scope="module")
def groups(tiny_groups: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few utterance groups: each costs a window of 30 s."""
    folder = tmp_path_factory.mktemp("groups")
    for split, count in (("train", 6), ("dev", 3)):
        groups = read_groups(tiny_groups / f"{split}.jsonl.gz").subset(first=count)
        groups.to_file(folder / f"{split}.jsonl.gz")
    return folder


def test_all_stages_with_a_whisper(
    folder: Path, groups: Path, tiny_config: Config, tiny_yaml: Path, tmp_path: Path
) -> None:
    sets = [f"parts.semantic_encoder.name={folder}", "semantic.stack=8", "train.max_steps=2"]
    sets += [f"llm.name={tiny_config.llm.name}", "train.simple_steps=0", "train.max_duration=20"]
    found = find_parts(load_config(tiny_yaml, sets), tmp_path / "parts.json")
    assert json.loads(found["semantic.whisper"]) == to_tree(WhisperEncoderConfig(**SIZES))
    config = load_config(tiny_yaml, [*sets, f"semantic.whisper={found['semantic.whisper']}"])
    voice = tmp_path / "voice.pt"
    save(voice, {"model": VoiceModel(config.voice, 3).state_dict()})
    parts = (Path(found["semantic_encoder"]), voice)

    embed(config, groups, *parts, tmp_path / "embeddings", ("train", "dev"))
    cuts = read_groups(tmp_path / "embeddings/train.jsonl.gz")
    _, semantic_lens_B, _, voice_lens_B = read_frames(cuts)
    assert all(abs(semantic_lens_B - 2 * voice_lens_B) < 6)
    train_tagspeech(config, tmp_path / "embeddings", *parts, tmp_path / "run")

    model = TagSpeech.from_pretrained(tmp_path / "run/pretrained")
    whisper = load_file(folder / "model.safetensors")
    for name, weight in model.semantic_encoder.state_dict().items():
        assert weight.equal(whisper[f"model.{name}"]), name
    audio = [noise(3.0), noise(31.0)]
    streams = model.streams(
        *FeatureReader(config.features, config.extra_features).of_samples(audio)
    )
    assert streams.semantic_lens.tolist() == [
        18 + 4,
        193 + 26 + 17,
    ]  # frames, then digits of anchors
    assert len(model.transcribe(audio)) == 2
    with pytest.raises(InputError, match=r"semantic\.whisper: the released layout"):
        save_released(model, tmp_path / "released")


@pytest.mark.parametrize("lengths", [(300, 300), (301, 200), (3100, 77, 1)])
@torch.no_grad()
def test_unpadded_frames_of_an_item_are_the_same_alone_and_in_a_batch(
    folder: Path, lengths: tuple[int, ...]
) -> None:
    stream = WhisperStream(WhisperEncoderConfig(padded=False, **SIZES)).eval()
    stream.load_weights(folder / "model.safetensors")
    items = [torch.randn(length, 80) for length in lengths]
    features_BTF = torch.nn.utils.rnn.pad_sequence(items, batch_first=True, padding_value=9.0)
    together_BTD, lens_B = stream(features_BTF, torch.tensor(lengths))
    assert lens_B.tolist() == [(length + 1) // 2 for length in lengths]
    for item_TF, found_TD in zip(items, together_BTD, strict=True):
        alone_BTD, (length,) = stream(item_TF[None], torch.tensor([len(item_TF)]))
        torch.testing.assert_close(found_TD[:length], alone_BTD[0], rtol=1e-4, atol=1e-5)
        assert not found_TD[length:].any()


@torch.no_grad()
def test_unpadded_and_padded_frames_of_30_seconds_are_the_same(folder: Path) -> None:
    found = []
    for padded in (True, False):
        stream = WhisperStream(WhisperEncoderConfig(padded=padded, **SIZES)).eval()
        stream.load_weights(folder / "model.safetensors")
        torch.manual_seed(2)
        found.append(stream(torch.randn(1, 3000, 80), torch.tensor([3000]))[0])
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)


def test_adapters_are_tuned_on_serialized_transcripts_and_all_else_stays(
    folder: Path, groups: Path, tiny_yaml: Path, tmp_path: Path
) -> None:
    whisper = json.dumps({**SIZES, "padded": False, "lora": {"r": 2}})
    sets = [f"semantic.whisper={whisper}", "semantic.sot.units=word", "semantic.stack=8"]
    sets += [f"semantic.train.{key}" for key in ("max_steps=3", "valid_every=3", "average=1")]
    config = load_config(tiny_yaml, sets)
    init = folder / "model.safetensors"
    train_semantic(config, groups, tmp_path / "run", init)
    tuned = WhisperStream(config.semantic.encoder_config)
    tuned.load_weights(tmp_path / "run/final.pt")
    before = load_file(init)
    for name, weight in tuned.state_dict().items():
        if ".lora_" not in name:
            plain = name.replace(".base_layer.", ".")
            assert weight.equal(before[f"model.{plain}"]), name
    moved = [
        name for name, weight in tuned.state_dict().items() if ".lora_B" in name and weight.any()
    ]
    assert len(moved) == 2 * 6  # layers, and linear layers of each
    with pytest.raises(InputError, match=r"semantic\.whisper\.lora\.layers: conv9: "):
        WhisperStream(WhisperEncoderConfig(**SIZES, lora=LoraConfig(r=2, layers=("conv9",))))


def test_what_a_whisper_cannot_be(
    folder: Path, groups: Path, tiny_yaml: Path, tmp_path: Path
) -> None:
    config = load_config(tiny_yaml, [f"parts.voice_encoder.name={folder}"])
    with pytest.raises(InputError, match="which only the semantic stream can have"):
        find_parts(config, tmp_path / "parts.json")
    config = load_config(
        tiny_yaml, ["semantic.whisper={d_model: 16}", "semantic.sot.loss=pruned_transducer"]
    )
    with pytest.raises(InputError, match=r"semantic\.sot\.loss: "):
        train_semantic(config, groups, tmp_path / "run")
    with pytest.raises(InputError, match=r"features\.sampling_rate: must be 16000 for a Whisper"):
        FeatureReader(FeatureConfig(sampling_rate=8000), [("whisper", 80)])


def test_wrong_weights_are_named(folder: Path, stream: WhisperStream, tmp_path: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    name = "model.encoder.layer_norm.bias"
    for change, words in (
        ({name: None}, r"lacks weight encoder\.layer_norm\.bias"),
        ({name: torch.zeros(3)}, r"layer_norm\.bias has shape \(3,\)"),
        ({"model.encoder.more": torch.zeros(3)}, r"unexpected weight encoder\.more"),
    ):
        changed = {key: one for key, one in {**weights, **change}.items() if one is not None}
        save_file(changed, tmp_path / "model.safetensors")
        with pytest.raises(InputError, match=words):
            stream.load_weights(tmp_path / "model.safetensors")


def test_masks_have_the_mean_of_their_kind_of_features(tiny_base: Path, tiny_yaml: Path) -> None:
    """The filter bank is about -8 where Whisper's features are about 0."""
    sets = ["train.from_audio=true", "train.spec_augment=true", "train.max_positions=0"]
    config = load_config(tiny_yaml, sets)
    whisper = replace(config.semantic, whisper=WhisperEncoderConfig(**SIZES))
    groups = read_groups(tiny_base / "embeddings/train.jsonl.gz")
    encoded: list[Tensor] = []
    model: Any = SimpleNamespace(training=True, encode=lambda BTF, *_, **__: encoded.append(BTF))
    task = TagSpeechTask(replace(config, semantic=whisper), model, groups, groups)
    lens_B = torch.tensor([400, 300])
    features_BTF = torch.cat([torch.full((2, 400, 80), -8.0), torch.full((2, 400, 80), 0.5)], -1)
    for _ in range(20):
        task.frames(Batch(groups, (features_BTF, lens_B)))
    for masked_BTF in encoded:
        torch.testing.assert_close(masked_BTF, features_BTF)
