"""`conf/paper.yaml` of the recipes against a table of the authors' values."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from lhotse import CutSet, MonoCut, SupervisionSegment

from tagspeech.config import TrainConfig
from tagspeech.config_file import load_config, to_tree
from tagspeech.data.batches import training_groups
from tagspeech.dependencies import flatten
from tagspeech.training.steps import learning_rate

# The authors' training of the published models, by our keys
AUTHORS = {
    "train.from_audio": True,
    "train.spec_augment": True,
    "masks.time_masks": 10,
    "masks.feature_masks": 2,
    "masks.feature_width": 27,
    "masks.time_warp": 80,
    "train.schedule": "eden",
    "train.eden_exponent": -0.5,
    "train.eden_steps": 7500,
    "train.warmup_steps": 500,
    "train.lr": 1e-3,
    "train.betas": [0.9, 0.999],
    "train.clip_norm": 0.0,
    "train.weight_decay": 0.0,
    "train.max_steps": 15000,
    "train.max_duration": 80.0,
    "train.shortest": 0.5,
    "train.longest": 30.0,
    "train.max_segments": 10,
    "train.empty_text": False,
    "semantic.tune_lr": 0.0,  # both encoders and the LLM are frozen
    "voice.tune_lr": 0.0,
    "llm.trainable": "none",
    "llm.lora.r": 0,
    "llm.name": "Qwen/Qwen2.5-7B-Instruct",
    "parts.semantic_encoder.file": "audio_encoder/model.safetensors",
    "parts.voice_encoder.name": "AudenAI/auden-encoder-voice",
    "decode.grammar": False,
    **{f"{stream}.stack": 4 for stream in ("semantic", "voice")},
    **{f"{stream}.anchor_interval": 8 for stream in ("semantic", "voice")},
}
MODELS = {"ami": "AudenAI/TagSpeech-AMI", "alimeeting": "AudenAI/TagSpeech-Alimeeting"}
# What tagspeech.yaml has otherwise; it says why
OURS = {
    *("parts.semantic_encoder.name", "parts.semantic_init.name", "parts.semantic_init.revision"),
    *(f"semantic.train.{key}" for key in ("lr", "max_duration", "max_steps")),
    *("masks.time_warp", "decode.grammar", "semantic.sot.units", "semantic.sot.vocab_size"),
}


@pytest.mark.parametrize("recipe", MODELS)
def test_paper_yaml_has_the_authors_values(root: Path, recipe: str) -> None:
    flat = flatten(to_tree(load_config(root / "egs" / recipe / "conf/paper.yaml")))
    assert {key: flat[key] for key in AUTHORS} == AUTHORS
    assert flat["parts.semantic_encoder.name"] == MODELS[recipe]


@pytest.mark.parametrize("recipe", MODELS)
def test_the_averaged_steps_are_theirs(root: Path, recipe: str) -> None:
    """Checkpoints from step 5,000 to 15,000, both included."""
    train = load_config(root / "egs" / recipe / "conf/paper.yaml").train
    assert train.final == "average"
    assert train.max_steps - (train.average - 1) * train.checkpoint_every == 5000


@pytest.mark.parametrize("recipe", MODELS)
def test_tagspeech_yaml_is_paper_yaml_but_for_what_it_says(root: Path, recipe: str) -> None:
    conf = root / "egs" / recipe / "conf"
    paper, ours = (
        flatten(to_tree(load_config(conf / f"{name}.yaml"))) for name in ("paper", "tagspeech")
    )
    assert {key for key in paper if paper[key] != ours[key]} <= OURS
    assert yaml.safe_load((conf / "tagspeech.yaml").read_text())["base"] == "paper.yaml"


def test_eden2_falls_with_the_square_of_edens_factor() -> None:
    eden = TrainConfig(lr=1.0, warmup_steps=0, eden_steps=7500)
    eden2 = TrainConfig(lr=1.0, warmup_steps=0, eden_steps=7500, eden_exponent=-0.5)
    for step in (0, 7500, 15000):
        assert learning_rate(eden2, step) == pytest.approx(learning_rate(eden, step) ** 2)
    assert learning_rate(eden2, 7500) == pytest.approx(2**-0.5)


def test_groups_of_many_segments_or_without_words_are_left_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def group(name: str, *texts: str) -> MonoCut:
        segments = [
            SupervisionSegment(f"{name}-{number}", name, 0.0, 1.0, text=text)
            for number, text in enumerate(texts)
        ]
        return MonoCut(name, 0.0, 2.0, 0, supervisions=segments)

    groups = CutSet.from_cuts(
        [group("two", "a", "b"), group("three", "a", "b", "c"), group("empty", "a", " ")]
    )
    assert len(training_groups(groups, TrainConfig())) == 3
    caplog.set_level("INFO", "tagspeech")
    kept = training_groups(groups, TrainConfig(max_segments=2, empty_text=False))
    assert list(kept.ids) == ["two"]
    assert "leaves out 2 of 3 groups: 1 have more than 2 segments" in caplog.text
