"""Pretrained parts: whole by their checksums, loaded strictly, the trained weights halved."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch")

import torch
from safetensors.torch import load_file, save_file

from tagspeech.cli import main
from tagspeech.config import Config, LLMConfig
from tagspeech.config_file import load_config
from tagspeech.encoders.sot import SotModel
from tagspeech.encoders.zipformer import Zipformer, load_zipformer
from tagspeech.errors import InputError
from tagspeech.files import verify_checksums
from tagspeech.llm.load import load_llm
from tagspeech.training.checkpoint import save


@pytest.fixture
def parts(tmp_path: Path, tiny_config: Config) -> Path:
    """Encoders and the tiny LLM, exported."""
    torch.manual_seed(1)
    for name, section in (("semantic", tiny_config.semantic), ("voice", tiny_config.voice)):
        model = SotModel(section.encoder, 7)
        save(tmp_path / f"{name}.pt", {"model": model.state_dict()})
    output = tmp_path / "parts"
    args = ["export", "parts", "--llm", tiny_config.llm.name, "--output", str(output)]
    args += ["--semantic", str(tmp_path / "semantic.pt"), "--voice", str(tmp_path / "voice.pt")]
    assert main(args) == 0
    return output


def test_parts_are_the_weights_in_half_precision(
    parts: Path, tiny_config: Config, tmp_path: Path
) -> None:
    encoder = Zipformer(tiny_config.semantic.encoder)
    load_zipformer(encoder, parts / "semantic.safetensors")
    trained = torch.load(tmp_path / "semantic.pt")["model"]
    for name, weight in encoder.state_dict().items():
        torch.testing.assert_close(weight, trained[name].half().to(weight))
    (llm, tokenizer), (own, _) = (
        load_llm(LLMConfig(name=str(name))) for name in (parts / "llm", tiny_config.llm.name)
    )
    assert len(tokenizer) == llm.config.vocab_size
    for (name, weight), (_, wanted) in zip(
        llm.named_parameters(), own.named_parameters(), strict=True
    ):
        torch.testing.assert_close(weight, wanted.half().float(), msg=name)
        assert weight.dtype == torch.float32


@pytest.mark.parametrize("name", ["semantic.safetensors", "llm/model.safetensors"])
def test_a_changed_part_is_noticed(parts: Path, name: str) -> None:
    verify_checksums(parts)
    content = bytearray((parts / name).read_bytes())
    content[-1] ^= 1
    (parts / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"{name}: its SHA-256 is not the one in SHA256SUMS"):
        verify_checksums(parts)
    (parts / name).unlink()
    command = [sys.executable, "-m", "tagspeech", "verify", str(parts)]
    process = subprocess.run(command, capture_output=True, text=True)
    assert process.returncode == 2
    assert process.stderr.count("\n") == 1
    assert f"{name}: is missing" in process.stderr


def test_encoder_weights_are_loaded_strictly(parts: Path, tiny_config: Config) -> None:
    path = parts / "semantic.safetensors"
    state = load_file(path)
    name = next(iter(state))
    encoder = Zipformer(tiny_config.semantic.encoder)
    save_file({key: one for key, one in state.items() if key != name}, path)
    with pytest.raises(InputError, match=f"lacks weight {name}"):
        load_zipformer(encoder, path)
    save_file({**state, "encoder.more": torch.zeros(1)}, path)
    with pytest.raises(InputError, match=r"has unexpected weight encoder\.more"):
        load_zipformer(encoder, path)
    save_file({**state, name: torch.zeros(1)}, path)
    with pytest.raises(InputError, match=rf"{name} has shape \(1,\), the configuration has"):
        load_zipformer(encoder, path)


def test_a_deeper_encoder_grows_from_a_trained_one(parts: Path, tiny_config: Config) -> None:
    path = parts / "semantic.safetensors"
    small = tiny_config.semantic.encoder
    layers = small.num_encoder_layers
    deeper = replace(small, num_encoder_layers=(layers[0], *(one + 1 for one in layers[1:])))
    torch.manual_seed(2)
    encoder, trained = Zipformer(deeper), Zipformer(small)
    with pytest.raises(InputError, match=rf"lacks weight .*layers\.{layers[-1]}\."):
        load_zipformer(encoder, path)
    load_zipformer(encoder, path, grow=True)
    load_zipformer(trained, path)
    for name, weight in trained.state_dict().items():
        assert torch.equal(weight, encoder.state_dict()[name]), name
    x_BTF, lens_B = torch.randn(1, 100, small.feature_dim), torch.tensor([100])
    with torch.inference_mode():
        before, after = (one.eval()(x_BTF, lens_B)[0] for one in (trained, encoder))
    assert not torch.equal(before, after)
    torch.testing.assert_close(before, after, atol=0.3 * float(before.abs().max()), rtol=0.0)
    save_file({**load_file(path), "encoder.encoders.0.layers.9.norm.bias": torch.zeros(1)}, path)
    with pytest.raises(InputError, match="has unexpected weight"):
        load_zipformer(encoder, path, grow=True)


def test_the_parts_that_mini_starts_from(root: Path) -> None:
    folder = root / "egs/mini/pretrained"
    verify_checksums(folder)
    assert sum(path.stat().st_size for path in folder.rglob("*")) < 24e6
    config = load_config(root / "egs/mini/conf/tagspeech.yaml", [f"llm.name={folder / 'llm'}"])
    load_zipformer(Zipformer(config.semantic.encoder), folder / "semantic.safetensors")
    load_zipformer(Zipformer(config.voice.encoder), folder / "voice.safetensors")
    llm, tokenizer = load_llm(config.llm)
    assert len(tokenizer) == llm.config.vocab_size
    assert config.llm.trainable == "none"
