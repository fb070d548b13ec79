"""Going on from a trained model: LoRA, encoders that learn, and that nothing else changes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch")

import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from tagspeech.checkpoints.native import load_pretrained, save_pretrained, start_from
from tagspeech.checkpoints.published import save_released
from tagspeech.config import Config, LoraConfig
from tagspeech.config_file import load_config, to_tree
from tagspeech.dependencies import of_model
from tagspeech.errors import InputError
from tagspeech.llm.load import load_llm
from tagspeech.model.tagspeech import TagSpeechModel
from tagspeech.training.tagspeech import train_tagspeech

LORA = ("llm.trainable=none", "llm.lora.r=2")
CHANGED = {  # what is declared, and the beginnings of the names of what may change
    ("llm.trainable=none",): ("semantic_projector.", "voice_projector."),
    LORA: ("semantic_projector.", "voice_projector.", "lora."),
    ("llm.trainable=none", "semantic.tune_lr=1e-3"): (
        *("semantic_projector.", "voice_projector.", "semantic_encoder."),
    ),
    ("llm.trainable=full", "voice.tune_lr=1e-3"): (
        *("semantic_projector.", "voice_projector.", "voice_encoder.", "llm."),
    ),
}


@pytest.fixture
def train(tiny_base: Path, tiny_yaml: Path, tmp_path: Path) -> Callable[..., Path]:
    def run(*sets: str, steps: int = 4, init_from: Path = tiny_base / "model") -> Path:
        config = load_config(tiny_yaml, [f"train.max_steps={steps}", *sets])
        output = tmp_path / "-".join(sets).replace("/", "_")
        train_tagspeech(config, tiny_base / "embeddings", None, None, output, init_from)
        return output / "pretrained"

    return run


def weights_of(folder: Path) -> dict[str, Tensor]:
    """All weights of a saved model by name."""
    weights = load_file(folder / "model.safetensors")
    for part, path in (("llm", "llm/model"), ("lora", "adapter/adapter_model")):
        if (folder / f"{path}.safetensors").exists():
            own = load_file(folder / f"{path}.safetensors")
            weights |= {f"{part}.{name}": weight for name, weight in own.items()}
    return weights


@pytest.mark.parametrize("sets", CHANGED)
def test_only_what_is_declared_changes(
    tiny_base: Path, train: Callable[..., Path], sets: tuple[str, ...]
) -> None:
    before, after = weights_of(tiny_base / "model"), weights_of(train(*sets))
    assert before.keys() == {name for name in after if not name.startswith("lora.")}
    changed = [name for name in after if name not in before or not after[name].equal(before[name])]
    assert [name for name in changed if not name.startswith(CHANGED[sets])] == []
    for part in CHANGED[sets]:
        assert sum(name.startswith(part) for name in changed) >= 4, part


def adapted(tiny_base: Path, tiny_yaml: Path) -> TagSpeechModel:
    """A model with adapters that change something."""
    model = start_from(load_config(tiny_yaml, LORA), tiny_base / "model")
    torch.manual_seed(2)
    for name, weight in model.named_parameters():
        if weight.requires_grad and ".lora_" in name:
            torch.nn.init.normal_(weight, std=0.1)
    return model


def loss_of(model: TagSpeechModel) -> Tensor:
    features_BTF = torch.randn(1, 200, 80, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return model.loss(features_BTF, torch.tensor([200]), ["<text>\n</text>"]).terms["target"]


def test_new_adapters_change_nothing(tiny_base: Path, tiny_yaml: Path) -> None:
    fresh = start_from(load_config(tiny_yaml, LORA), tiny_base / "model")
    assert loss_of(fresh).equal(loss_of(load_pretrained(TagSpeechModel, tiny_base / "model")))


def test_adapters_are_saved_as_peft_has_them_and_merged(
    tiny_base: Path, tiny_yaml: Path, tmp_path: Path
) -> None:
    model = adapted(tiny_base, tiny_yaml)
    save_pretrained(model, tmp_path / "saved")
    loss = loss_of(model)
    assert loss.item() != pytest.approx(
        loss_of(load_pretrained(TagSpeechModel, tiny_base / "model"))
    )
    assert loss_of(load_pretrained(TagSpeechModel, tmp_path / "saved")).equal(loss)
    written = json.loads((tmp_path / "saved/adapter/adapter_config.json").read_text())
    assert (written["r"], written["base_model_name_or_path"]) == (2, "./llm")
    plain = load_pretrained(TagSpeechModel, tiny_base / "model")
    plain.llm = PeftModel.from_pretrained(plain.llm, tmp_path / "saved/adapter")
    assert loss_of(plain).equal(loss)
    with pytest.raises(InputError, match="export merged"):
        save_released(model, tmp_path / "released")

    export = [sys.executable, "-m", "tagspeech", "export", "merged"]
    export += ["--model", str(tmp_path / "saved"), "--output", str(tmp_path / "merged")]
    subprocess.run(export, check=True)
    merged = load_pretrained(TagSpeechModel, tmp_path / "merged")
    torch.testing.assert_close(loss_of(merged), loss, rtol=1e-4, atol=1e-4)
    assert merged.config.llm.lora == LoraConfig()
    assert not (tmp_path / "merged/adapter").exists()


def test_training_goes_on_from_adapters_of_the_same_kind_only(
    tiny_base: Path, tiny_yaml: Path, tmp_path: Path
) -> None:
    save_pretrained(adapted(tiny_base, tiny_yaml), tmp_path / "saved")
    config = load_config(tiny_yaml, LORA)
    assert loss_of(start_from(config, tmp_path / "saved")).equal(
        loss_of(adapted(tiny_base, tiny_yaml))
    )
    with pytest.raises(InputError, match="export merged"):
        start_from(load_config(tiny_yaml, [*LORA, "llm.lora.r=4"]), tmp_path / "saved")


def test_adapters_that_do_not_fit_are_named(
    tiny_base: Path, tiny_yaml: Path, tmp_path: Path
) -> None:
    save_pretrained(adapted(tiny_base, tiny_yaml), tmp_path / "saved")
    path = tmp_path / "saved/adapter/adapter_model.safetensors"
    weights = load_file(path)
    weights.pop(sorted(weights)[0])
    save_file(weights, path)
    with pytest.raises(InputError, match=r"adapter_model\.safetensors: lacks weight"):
        load_pretrained(TagSpeechModel, tmp_path / "saved")
    with pytest.raises(InputError, match=r"llm\.lora\.layers: nonsense"):
        start_from(load_config(tiny_yaml, [*LORA, "llm.lora.layers=nonsense"]), tiny_base / "model")
    with pytest.raises(InputError, match=r"llm\.lora\.r: needs llm\.trainable: none"):
        start_from(load_config(tiny_yaml, ["llm.lora.r=2"]), tiny_base / "model")


def test_a_released_model_is_gone_on_from(tiny_base: Path, tiny_yaml: Path, tmp_path: Path) -> None:
    config = load_config(tiny_yaml)
    paper = {"embed_channels": (8, 32, 128)}
    config = replace(
        config,
        semantic=replace(config.semantic, encoder=replace(config.semantic.encoder, **paper)),
        voice=replace(config.voice, encoder=replace(config.voice.encoder, **paper)),
        llm=replace(config.llm, name=str(tiny_base / "llm")),
    )
    torch.manual_seed(3)
    save_released(TagSpeechModel(config, *load_llm(config.llm)), tmp_path / "released")
    theirs = load_pretrained(TagSpeechModel, tmp_path / "released")
    ours: Config = load_config(tiny_yaml, ["semantic.stack=2", *LORA])
    model = start_from(ours, tmp_path / "released")
    assert loss_of(model).equal(loss_of(theirs))
    assert model.config.semantic.stack == theirs.config.semantic.stack
    save_pretrained(model, tmp_path / "saved")
    assert loss_of(load_pretrained(TagSpeechModel, tmp_path / "saved")).equal(loss_of(theirs))


def test_what_the_model_is_is_recorded_as_it_is(
    tiny_base: Path, train: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    """The configuration may mean another model: the weights are those of the one begun from."""
    model = tiny_base / "model"
    own = load_pretrained(TagSpeechModel, model).config
    sets = ["semantic.stack=2", "voice.anchor_interval=5", "prompt.anchors=text"]
    after = train(*sets, "semantic.train.lr=0.5", steps=1)
    recorded = load_pretrained(TagSpeechModel, after).config
    assert of_model(to_tree(recorded)) == of_model(to_tree(own))
    assert load_config(after.parent / "config.yaml").semantic.stack == own.semantic.stack
    assert recorded.semantic.train.lr == 0.5
    (line,) = (one.getMessage() for one in caplog.records if "configured" in one.getMessage())
    assert line.startswith(f"{model}: its own values are used")
    for words in (
        *("semantic.stack 4 (configured: 2)", "voice.anchor_interval 8 (configured: 5)"),
        "prompt.anchors numeric (configured: text)",
    ):
        assert words in line
    assert line.count("configured:") == 3


def test_text_anchors_lie_on_the_grid_that_is_recorded(
    tiny_base: Path, tiny_yaml: Path, tmp_path: Path
) -> None:
    config = load_config(tiny_yaml, [f"llm.name={tiny_base / 'llm'}", "prompt.anchors=text"])
    torch.manual_seed(4)
    save_pretrained(TagSpeechModel(config, *load_llm(config.llm)), tmp_path / "text")
    finer = load_config(tiny_yaml, ["target.time_grid=0.01", "prompt.anchors=text"])
    model = start_from(finer, tmp_path / "text")
    assert model.config.target.time_grid == 0.01
    save_pretrained(model, tmp_path / "saved")
    again = load_pretrained(TagSpeechModel, tmp_path / "saved")
    for name in ("semantic_anchors", "voice_anchors"):
        grids = [getattr(part, name).setup.time_grid for part in (again, model)]
        assert grids == [0.01, 0.01]
    assert loss_of(again).equal(loss_of(model))


def test_encoders_are_named_or_those_of_the_model(tiny_yaml: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tagspeech", "train", "tagspeech", "--config", str(tiny_yaml)]
    command += ["--groups", str(tmp_path), "--output", str(tmp_path), "--init-from", str(tmp_path)]
    told = subprocess.run([*command, "--voice", "final.pt"], capture_output=True, text=True)
    assert told.returncode == 2
    assert "--init-from has both encoders" in told.stderr


def test_recipe_goes_on_from_a_model(
    root: Path, tiny_base: Path, tiny_groups: Path, tiny_yaml: Path, tmp_path: Path
) -> None:
    """Stages 5 and 6 take encoders, projectors and LLM of the model."""
    command = [str(root / "run.sh"), "--install", "false", "--config", str(tiny_yaml)]
    command += ["--data", str(tiny_groups.parent), "--exp", str(tmp_path), "--stage", "5"]
    command += ["--stop-stage", "6", "--jobs", "1", "--threads", "1", "--set", "train.max_steps=2"]
    command += ["--set", "llm.trainable=none", "--init-from", str(tiny_base / "model")]
    command += ["--set", "semantic.sot.loss=pruned_transducer"]  # of stage 3, which is left out
    told = subprocess.run(command, capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    before, after = weights_of(tiny_base / "model"), weights_of(tmp_path / "tagspeech/pretrained")
    assert before.keys() == after.keys()
    same = [name for name in after if after[name].equal(before[name])]
    assert [name for name in after if "_projector." not in name] == same
