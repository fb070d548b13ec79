"""In which numbers a training computes: the frozen LLM's weights, products, scaled gradients."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")

import torch
from safetensors.torch import load_file
from torch import nn

from tagspeech.config import LLMConfig, LoraConfig
from tagspeech.config_file import load_config
from tagspeech.errors import InputError
from tagspeech.training.checkpoint import load
from tagspeech.training.memory import Activations, check_memory, model_memory
from tagspeech.training.precision import MixedPrecision, llm_type, product_type
from tagspeech.training.tagspeech import train_tagspeech

GPU, CPU = torch.device("cuda"), torch.device("cpu")


def trained(base: Path, yaml: Path, output: Path, *sets: str) -> float:
    """The last dev loss of a short training."""
    steps = ("train.max_steps=4", "llm.trainable=none", "train.precision=float32")
    config = load_config(yaml, [*steps, "loss.speaker_activity=0.1", *sets])
    train_tagspeech(config, base / "embeddings", None, None, output, base / "model")
    return float(json.loads((output / "curve.jsonl").read_text().splitlines()[-1])["loss"])


def test_frozen_llm_in_bfloat16(tiny_base: Path, tiny_yaml: Path, tmp_path: Path) -> None:
    whole = trained(tiny_base, tiny_yaml, tmp_path / "whole")
    sets = ("llm.dtype=bfloat16", "llm.lora.r=2")
    half = trained(tiny_base, tiny_yaml, tmp_path / "half", *sets)
    assert half != whole
    assert half == pytest.approx(whole, rel=0.02)
    checkpoint = load(tmp_path / "half/checkpoint-4.pt")
    learnt = checkpoint["model"]
    assert any("lora_" in name for name in learnt)
    assert {one.dtype for one in learnt.values()} == {torch.float32}
    # The model is saved with the LLM that it was trained with.
    saved = load_file(tmp_path / "half/pretrained/llm/model.safetensors")
    before = load_file(tiny_base / "llm/model.safetensors")
    assert all(one.equal(before[name].bfloat16()) for name, one in saved.items())


def test_type_of_the_llm(monkeypatch: pytest.MonkeyPatch) -> None:
    for has in (True, False):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda has=has, **_: has)
        wanted = torch.bfloat16 if has else torch.float32
        assert product_type("auto", GPU) == wanted
        assert llm_type(LLMConfig(), "auto", GPU) == wanted
        assert llm_type(LLMConfig(lora=LoraConfig(r=2)), "auto", GPU) == wanted
    monkeypatch.undo()
    assert llm_type(LLMConfig(trainable="full"), "bfloat16", GPU) == torch.float32
    assert llm_type(LLMConfig(), "bfloat16", CPU) == torch.float32
    assert llm_type(LLMConfig(dtype="float16"), "float16", GPU) == torch.float16


@pytest.mark.parametrize(
    ("llm", "told"),
    [
        (LLMConfig(dtype="int8"), "must be one of auto, float32, bfloat16, float16, got 'int8'"),
        (LLMConfig(dtype="bfloat16", trainable="full"), "trainable weights are float32"),
        (LLMConfig(dtype="float16"), "needs train.precision: float16"),
    ],
)
def test_types_that_are_refused(llm: LLMConfig, told: str) -> None:
    with pytest.raises(InputError, match=rf"llm\.dtype: .*{told}"):
        llm_type(llm, "float32", CPU)


def test_scaled_gradients() -> None:
    """The step of the true gradient; none where the scaled one overflows, and half the scale."""
    weight = nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], lr=0.5)
    precision = MixedPrecision(torch.float16, CPU)  # only products want a GPU
    scale = precision.scaler.get_scale()
    precision.scaler.scale(weight.sum() * 0.25).backward()
    assert weight.grad == 0.25 * scale
    assert precision.step(optimizer, [weight], clip_norm=9.0) == 0.25
    assert weight == 0.875
    weight.grad = torch.full((1,), float("inf"))
    precision.scaler.scale(torch.ones(1))
    precision.step(optimizer, [weight], clip_norm=9.0)
    assert weight == 0.875
    assert precision.scaler.get_scale() == scale / 2


def test_memory_is_reckoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """A layer of 10 x 6 weights and its bias, 4 items: input, and output of the rectifier."""
    model = nn.Sequential(nn.Linear(10, 6), nn.ReLU(), nn.Linear(6, 1).requires_grad_(False))
    learn = 4 * (10 * 6 + 6)
    assert model_memory(model) == {
        "weights": learn + 4 * 7,
        "gradients": learn,
        "optimiser": 2 * learn,
    }
    monkeypatch.setattr("tagspeech.training.memory.device_memory", lambda device: 4 * learn)
    with pytest.raises(InputError, match=r"cpu has 0\.00 GB .*: weights .* llm\.shard: true"):
        check_memory(model, CPU)
    activations = Activations()
    with activations.counted():
        model(torch.ones(4, 10)).sum().backward()
    assert activations.bytes == 4 * (4 * 10 + 4 * 6)
