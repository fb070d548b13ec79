"""Folders of models are data: no code in them or named by them is run, whatever is answered."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from tagspeech.api import TagSpeech
from tagspeech.errors import InputError

Load = Callable[[Path], str]

CODE = """
from pathlib import Path
Path({canary!r}).write_text("code of the model ran")
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast
class Config(PretrainedConfig):
    model_type = "strange"
class Model(PreTrainedModel):
    config_class = Config
class Tok(PreTrainedTokenizerFast):
    pass
"""
AUTO = {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"}


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Path], str]:
    """Loads a model while `y` answers every question; returns the message of the error."""
    asked: list[str] = []
    monkeypatch.setattr("builtins.input", lambda text="": asked.append(text) or "y")

    def message_of(model: Path) -> str:
        message = ""
        try:
            TagSpeech.from_pretrained(model)
        except InputError as error:
            message = str(error)
        assert asked == []
        assert not (tmp_path / "canary").exists()
        return message

    return message_of


def change(path: Path, values: Mapping[str, Any]) -> None:
    tree = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**tree, **values}))


@pytest.fixture
def model(tiny_model_folder: Path, tmp_path: Path) -> Path:
    """A model whose LLM's folder has code."""
    folder = Path(shutil.copytree(tiny_model_folder, tmp_path / "model"))
    (folder / "llm/code.py").write_text(CODE.format(canary=str(tmp_path / "canary")))
    return folder


@pytest.mark.parametrize(
    ("file", "values"),
    [
        ("config.json", {"model_type": "strange", "auto_map": AUTO}),
        ("config.json", {"model_type": "strange", "auto_map": {"AutoConfig": "evil/repo--code.C"}}),
    ],
)
def test_code_is_refused(load: Load, model: Path, file: str, values: dict[str, Any]) -> None:
    change(model / "llm" / file, values)
    message = load(model)
    assert message.startswith(f"llm.name: {model / 'llm'}: ")
    assert "\n" not in message


def test_known_architecture_needs_no_code(load: Load, model: Path) -> None:
    """Code beside an architecture that transformers knows is ignored."""
    change(model / "llm/config.json", {"auto_map": AUTO})
    change(model / "llm/generation_config.json", {"custom_generate": "code.Model"})
    change(
        model / "llm/tokenizer_config.json",
        {"tokenizer_class": "Tok", "auto_map": {"AutoTokenizer": [None, "code.Tok"]}},
    )
    assert load(model) == ""


def test_quantisation_is_refused(load: Load, model: Path) -> None:
    change(
        model / "llm/config.json",
        {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}},
    )
    assert "quantization_config: bitsandbytes is not supported" in load(model)


@pytest.mark.parametrize("attention", ["evil/kernel", "flash_attention_2|x", "paged|eager", "x"])
def test_attention_is_one_of_a_closed_list(load: Load, model: Path, attention: str) -> None:
    tree = json.loads((model / "config.json").read_text())
    tree["llm"]["attention"] = attention
    (model / "config.json").write_text(json.dumps(tree))
    assert "attention: must be one of eager, sdpa, flash_attention_2, flash_attention_3, got " in (
        load(model)
    )


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("tokenizer.json", "{}"),
        ("tokenizer.json", "[1]"),
        ("tokenizer.json", '{"model": {"type": "BPE", "vocab": 3, "merges": []}}'),
        ("tokenizer.json", '{"version": "9", "model": {"type": "Strange"}}'),
        ("tokenizer.json", '{"added_tokens": [], "model": {"type": "Strange"}}'),
        ("tokenizer.json", '{"added_tokens": [], "model": {"type": "BPE", "vocab": {"a": -1}}}'),
        ("tokenizer.json", "{" * 5000),
        ("tokenizer_config.json", "[]"),
        ("tokenizer_config.json", '{"tokenizer_class": 3}'),
        ("tokenizer_config.json", '{"extra_special_tokens": 7}'),
        ("config.json", "[]"),
        ("config.json", '{"model_type": ["qwen2"]}'),
        ("config.json", '{"model_type": "qwen2", "hidden_size": "many"}'),
        ("config.json", '{"model_type": "qwen2", "num_attention_heads": 0}'),
        ("generation_config.json", "[]"),
        ("generation_config.json", '{"eos_token_id": "x", "temperature": -1}'),
        ("chat_template.jinja", "{{ 1 / 0 }}"),
        ("chat_template.jinja", "{% for x in y %}"),
        ("chat_template.jinja", "{{ messages.__class__.__mro__ }}"),
    ],
)
def test_damaged_file_is_one_line(load: Load, model: Path, file: str, content: str) -> None:
    (model / "llm" / file).write_text(content)
    message = load(model)
    assert "\n" not in message
    assert len(message) < 600


@pytest.mark.parametrize("token", ["a", "<|im_start|>"])
def test_tokenizer_of_another_model(load: Load, model: Path, token: str) -> None:
    """It has tokens that have no embedding."""
    path = model / "llm/tokenizer.json"
    tree = json.loads(path.read_text())
    tree["model"]["vocab"][token] = 5000
    for added in tree["added_tokens"]:
        added["id"] = tree["model"]["vocab"][added["content"]]
    path.write_text(json.dumps(tree))
    assert f"its tokenizer has {token!r} as token 5000, but its embeddings have only" in load(model)
