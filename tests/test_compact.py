"""The compact form of a trained model: parts by name, and what training changed in float16."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import wheels
from safetensors.torch import load_file

from tagspeech.checkpoints.compact import save_compact
from tagspeech.checkpoints.native import load_encoders, load_pretrained, save_pretrained, start_from
from tagspeech.checkpoints.starting_points import find_parts
from tagspeech.config import Config
from tagspeech.config_file import load_config
from tagspeech.encoders.build import build_encoder
from tagspeech.errors import InputError
from tagspeech.files import verify_checksums
from tagspeech.llm.load import load_llm
from tagspeech.llm.lora import add_lora
from tagspeech.model.tagspeech import TagSpeechModel

TUNED = "semantic_encoder.encoder.layers.1.fc1.weight"  # what the training is to have changed


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with wheels in `index`, and a cache."""
    folder = tmp_path_factory.mktemp("packages")
    wheels.make_index(folder / "index")
    return folder


@pytest.fixture(autouse=True)
def environment(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAGSPEECH_CACHE", str(packages / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(packages / "index"))


@pytest.fixture
def voice(tiny_config: Config, tmp_path: Path) -> Path:
    """The weights of a voice encoder."""
    torch.manual_seed(3)
    torch.save(build_encoder(tiny_config, "voice").state_dict(), tmp_path / "voice.pt")
    return tmp_path / "voice.pt"


@pytest.fixture
def model(tiny_yaml: Path, tmp_path: Path, voice: Path) -> TagSpeechModel:
    """A model of a Whisper, one weight of which is tuned, a voice encoder, and an LLM with LoRA."""
    sets = [f"parts.semantic_encoder.name={wheels.WHISPER}", f"parts.voice_encoder.name={voice}"]
    sets += [f"llm.name={wheels.LLM}", "llm.trainable=none", "llm.lora.r=2"]
    found = find_parts(load_config(tiny_yaml, sets), tmp_path / "parts.json")
    config = load_config(tiny_yaml, [*sets, f"semantic.whisper={found['semantic.whisper']}"])
    llm, tokenizer = load_llm(config.llm)
    torch.manual_seed(4)
    model = TagSpeechModel(config, add_lora(llm, config.llm), tokenizer).eval()
    model.semantic_encoder.load_weights(Path(found["semantic_encoder"]))
    model.voice_encoder.load_weights(voice)
    with torch.no_grad():
        model.get_parameter(TUNED).add_(0.1)
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_()
    return model


def test_only_what_was_trained_is_stored(
    model: TagSpeechModel, tmp_path: Path, voice: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_pretrained(model, tmp_path / "whole")
    command = [sys.executable, "-m", "tagspeech", "export", "compact"]
    command += ["--model", str(tmp_path / "whole"), "--output", str(tmp_path / "compact")]
    command += ["--semantic-encoder", wheels.WHISPER, "--voice-encoder", str(voice)]
    subprocess.run(command, check=True, capture_output=True)
    folder = tmp_path / "compact"
    verify_checksums(folder)
    stored = load_file(folder / "model.safetensors")
    assert {weight.dtype for weight in stored.values()} == {torch.float16}
    assert [name for name in stored if "_encoder." in name] == [TUNED]
    assert any(name.startswith("semantic_projector.") for name in stored)
    adapters = load_file(folder / "adapter/adapter_model.safetensors")
    assert {weight.dtype for weight in adapters.values()} == {torch.float16}
    assert not (folder / "llm").exists()
    tree = json.loads((folder / "config.json").read_text())
    parts = tree["parts"]
    assert len(tree["llm"]["sha256"]) == 64
    assert parts["semantic_encoder"]["name"] == wheels.WHISPER
    assert len(parts["semantic_encoder"]["sha256"]) == len(parts["voice_encoder"]["sha256"]) == 64
    card = (folder / "README.md").read_text()
    assert wheels.WHISPER in card
    assert wheels.LLM in card

    monkeypatch.delenv("PIP_FIND_LINKS")
    loaded = load_pretrained(TagSpeechModel, folder, offline=True)
    for name, weight in model.state_dict().items():
        other = loaded.state_dict()[name]
        assert other.dtype == weight.dtype, name
        rounded = weight if name not in stored and ".lora_" not in name else weight.half().float()
        assert torch.equal(other, rounded), name
    _, semantic, encoder = load_encoders(folder)
    for stream, found in (("semantic", semantic), ("voice", encoder)):
        for name, weight in found.state_dict().items():
            assert torch.equal(weight, loaded.state_dict()[f"{stream}_encoder.{name}"]), name


def test_it_is_a_model_like_any_other(model: TagSpeechModel, tmp_path: Path, voice: Path) -> None:
    save_compact(model, tmp_path / "compact", {"semantic": wheels.WHISPER, "voice": str(voice)})
    loaded = load_pretrained(TagSpeechModel, tmp_path / "compact")
    assert not loaded.config.parts.semantic_encoder.name  # all weights are in it
    save_pretrained(loaded, tmp_path / "whole")
    again = load_pretrained(TagSpeechModel, tmp_path / "whole")
    started = start_from(model.config, tmp_path / "compact")
    for name, weight in loaded.state_dict().items():
        assert torch.equal(again.state_dict()[name], weight), name
        assert torch.equal(started.state_dict()[name], weight), name


def test_an_encoder_that_is_not_named_is_stored(model: TagSpeechModel, tmp_path: Path) -> None:
    save_compact(model, tmp_path / "compact", {"semantic": wheels.WHISPER})
    stored = load_file(tmp_path / "compact/model.safetensors")
    for name, weight in model.voice_encoder.state_dict().items():
        held = stored[f"voice_encoder.{name}"]
        assert torch.equal(held, weight.half() if weight.is_floating_point() else weight), name
    load_pretrained(TagSpeechModel, tmp_path / "compact")


def test_large_weights_stay_as_they_are(model: TagSpeechModel, tmp_path: Path) -> None:
    with torch.no_grad():
        model.get_parameter(TUNED).mul_(1e6).add_(7e4)
    save_compact(model, tmp_path / "compact", {"semantic": wheels.WHISPER})
    loaded = load_pretrained(TagSpeechModel, tmp_path / "compact")
    assert torch.equal(loaded.get_parameter(TUNED), model.get_parameter(TUNED))


def test_an_llm_of_its_own_is_stored_in_half(tiny_model_folder: Path, tmp_path: Path) -> None:
    model = load_pretrained(TagSpeechModel, tiny_model_folder)
    save_compact(model, tmp_path / "compact", {})
    stored = load_file(tmp_path / "compact/llm/model.safetensors")
    assert {weight.dtype for weight in stored.values()} == {torch.float16}
    loaded = load_pretrained(TagSpeechModel, tmp_path / "compact")
    for name, weight in loaded.llm.state_dict().items():
        assert torch.equal(weight, model.llm.state_dict()[name].half().float()), name


def test_a_part_that_it_does_not_come_from(
    model: TagSpeechModel, tmp_path: Path, voice: Path
) -> None:
    torch.manual_seed(9)
    state = {name: torch.randn(weight.shape) for name, weight in torch.load(voice).items()}
    torch.save(state, tmp_path / "other.pt")
    with pytest.raises(InputError, match=r"--voice-encoder .*other\.pt: none of its weights"):
        save_compact(model, tmp_path / "compact", {"voice": str(tmp_path / "other.pt")})
    assert not (tmp_path / "compact").exists()


def test_a_part_that_changed_since(model: TagSpeechModel, tmp_path: Path, voice: Path) -> None:
    save_compact(model, tmp_path / "compact", {"voice": str(voice)})
    torch.save({name: weight + 1 for name, weight in torch.load(voice).items()}, voice)
    message = r"compact/config\.json: parts\.voice_encoder: .*voice\.pt: must have SHA-256 \w+, got"
    with pytest.raises(InputError, match=message):
        load_pretrained(TagSpeechModel, tmp_path / "compact")
