"""Where a model computes: found, asked for, refused, and recorded."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch

from tagspeech.cli import main
from tagspeech.config import LLMConfig
from tagspeech.errors import InputError
from tagspeech.llm import place as places
from tagspeech.llm.place import Place, find_place, note_place, read_places
from tagspeech.llm.size import llm_weights

QWEN_7B = {
    "model_type": "qwen2",
    "hidden_size": 3584,
    "num_hidden_layers": 28,
    "intermediate_size": 18944,
    "vocab_size": 152064,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "tie_word_embeddings": False,
}


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with GPUs, as far as torch tells."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "GPU of the test")
    monkeypatch.setattr(places, "usable_device", torch.device)


def test_weights_of_the_papers_llm() -> None:
    weights = llm_weights(QWEN_7B)
    assert weights == pytest.approx(7_615_616_512, rel=1e-3)  # as its model card has it
    assert llm_weights({"model_type": "gpt2"}) is None


@pytest.mark.usefixtures("gpu")
def test_auto_finds_the_gpu_of_the_process(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "tagspeech")
    found = find_place()
    assert found == Place(torch.device("cuda", 0), torch.bfloat16)
    found.log()
    assert caplog.messages == ["computing on GPU of the test in bfloat16 (found: --device auto)"]
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert find_place().device == torch.device("cuda", 3)
    assert find_place("cuda", "float16").dtype == torch.float16
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    assert find_place().dtype == torch.float32


def test_auto_without_a_gpu_is_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert find_place() == Place(torch.device("cpu"), torch.float32)
    assert find_place("cpu") == Place(torch.device("cpu"), torch.float32, is_asked_for=True)
    with pytest.raises(InputError, match="device cuda:0: cannot be used here"):
        find_place("cuda")


def test_a_large_llm_on_a_cpu_must_be_asked_for(
    tmp_path: Path,
    tiny_yaml: Path,
    tiny_groups: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Before anything is loaded: the folder has no weights."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # and restored: --device cpu sets it
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (tmp_path / "config.json").write_text(json.dumps(QWEN_7B))
    llm = LLMConfig(name=str(tmp_path))
    with pytest.raises(InputError, match=r"7\.6 billion weights.* --device cpu"):
        find_place().check_size(llm)
    find_place("cpu").check_size(llm)
    words = ["train", "tagspeech", "--config", tiny_yaml, "--set", f"llm.name={tmp_path}"]
    words += ["--groups", tiny_groups, "--semantic", tiny_yaml, "--voice", tiny_yaml]
    words += ["--output", tmp_path / "run"]
    assert main([str(word) for word in words]) == 2
    assert "7.6 billion weights" in capsys.readouterr().err
    assert main([*map(str, words), "--device", "cpu"]) == 2
    assert "billion" not in capsys.readouterr().err


def test_places_are_noted_and_a_change_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "test.places.json"
    cpu = Place(torch.device("cpu"), torch.float32)
    assert note_place(path, cpu) == note_place(path, cpu) == ["cpu in float32"]
    assert caplog.messages == []
    note_place(path, Place(torch.device("cpu"), torch.bfloat16))
    assert caplog.messages == [f"{path}: began on cpu in float32, continues on cpu in bfloat16"]
    assert read_places(path) == ["cpu in float32", "cpu in bfloat16"]
