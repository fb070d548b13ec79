"""Each key of the configuration redoes the stages that read it, also a key that nobody knows."""

from __future__ import annotations

import copy
import dataclasses
import json
import subprocess
import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tagspeech.config import CampPlusConfig, Config, WhisperEncoderConfig
from tagspeech.config_file import to_tree
from tagspeech.dependencies import (
    NOT_OF_A_MODEL,
    NOT_READ,
    ONLY_SPEED,
    of_model,
    of_stage,
)

STAGES = range(11)
READING = (2, 3, 4, 5, 6, 7, 8, 10)  # stages that read a configuration


def keys_of(cls: type, prefix: str = "") -> Iterator[str]:
    """Every leaf of a dataclass, optional sections included."""
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        key = f"{prefix}{field.name}"
        kinds = (hints[field.name], *typing.get_args(hints[field.name]))
        sections = [kind for kind in kinds if dataclasses.is_dataclass(kind)]
        if sections:
            yield from keys_of(typing.cast(type, sections[0]), f"{key}.")
        else:
            yield key


KEYS = list(keys_of(Config))
# With the encoders that a configuration may name instead, so that their sections are there.
TREE = to_tree(Config())
TREE["semantic"]["whisper"] = to_tree(WhisperEncoderConfig())
TREE["voice"]["campplus"] = to_tree(CampPlusConfig())
SECTIONS = sorted({key.rpartition(".")[0] for key in KEYS} | {"llm", "semantic", "semantic.sot"})


def changed(key: str, value: Any = "changed") -> dict[str, Any]:
    """`TREE` with another value of a key, or with a new key."""
    tree = copy.deepcopy(TREE)
    node = tree
    *path, last = key.split(".")
    for name in path:
        node = node[name]
    node[last] = value
    return tree


def redone(tree: dict[str, Any]) -> set[int]:
    """The stages that another configuration redoes."""
    return {stage for stage in STAGES if of_stage(stage, tree) != of_stage(stage, TREE)}


@pytest.mark.parametrize("key", KEYS)
def test_every_key_redoes_a_stage_or_only_changes_speed(key: str) -> None:
    assert bool(redone(changed(key))) == (key not in ONLY_SPEED)


@pytest.mark.parametrize("section", SECTIONS)
def test_new_key_redoes_every_stage_that_reads_its_section(section: str) -> None:
    prefix = f"{section}." if section else ""
    readers = {
        stage for stage in STAGES if any(key.startswith(prefix) for key in of_stage(stage, TREE))
    }
    assert readers
    assert redone(changed(f"{prefix}invented")) == readers


def test_new_section_redoes_every_stage_with_a_configuration() -> None:
    assert redone(changed("invented", {"key": 1})) == set(READING)


def test_a_stage_that_nobody_listed_depends_on_all() -> None:
    assert of_stage(11, TREE).keys() == set(KEYS) - set(ONLY_SPEED)


@pytest.mark.parametrize(
    ("key", "stages"),
    [
        ("language", {2, 3, 6, 8, 10}),
        ("features.num_mel_bins", {3, 4, 5, 6}),
        ("semantic.train.lr", {3}),
        ("semantic.sot.units", {3}),
        ("semantic.grow", {3}),
        ("semantic.encoder.dropout", {3, 5, 6}),
        ("semantic.whisper", {3, 5, 6}),
        ("semantic.stack", {6}),
        ("semantic.tune_lr", {6}),
        ("voice.train.lr", {4}),
        ("voice.margin", {4}),
        ("voice.encoder.dropout", {4, 5, 6}),
        ("voice.anchor_interval", {6}),
        ("parts.semantic_init.revision", {3}),
        ("parts.semantic_units.name", {3}),
        ("parts.voice_init.file", {4}),
        ("parts.semantic_encoder.name", {5}),
        ("parts.voice_encoder.name", {5}),
        ("prompt.anchors", {6}),
        ("llm.name", {6}),
        ("llm.new.train.lr", {6}),
        ("target.time_grid", {6}),
        ("loss.semantic_ctc", {6}),
        ("drop.voice", {6}),
        ("train.lr", {6}),
        ("decode.max_window", {7, 10}),
        ("train.read_ahead", set()),
        ("semantic.train.try_largest", set()),
    ],
)
def test_stages_that_a_key_redoes_at_first(key: str, stages: set[int]) -> None:
    """What follows from them is redone where the results differ."""
    assert redone(changed(key)) == stages


def test_denied_keys_exist() -> None:
    """A key that was renamed would be denied no longer, and a mistyped one never."""
    nodes = {*KEYS, *(key[:end] for key in KEYS for end, letter in enumerate(key) if letter == ".")}
    for denied in (*NOT_READ.values(), ONLY_SPEED, NOT_OF_A_MODEL):
        assert [key for key in denied if key not in nodes and key != "*"] == []


def test_what_a_model_is() -> None:
    """Weights and what is computed with them, not how they were trained."""
    own = of_model(TREE)
    for key in ("semantic.encoder.encoder_dim", "voice.stack", "prompt.anchors", "llm.name"):
        assert key in own
    for key in ("train.lr", "semantic.sot.units", "voice.margin", "llm.lora.r", "decode.grammar"):
        assert key not in own
    assert "semantic.invented" in of_model(changed("semantic.invented"))


def test_command_prints_what_each_stage_depends_on(tiny_yaml: Path) -> None:
    command = [sys.executable, "-m", "tagspeech", "config", "--config", str(tiny_yaml)]
    told = subprocess.run([*command, "--stages"], check=True, capture_output=True, text=True)
    stages = json.loads(told.stdout)
    assert list(stages) == [str(stage) for stage in STAGES]
    assert stages["2"] == stages["8"] == {"language": "en"}
    assert stages["0"] == stages["1"] == stages["9"] == {}
    assert stages["7"]["decode.max_new_tokens"] == 30
    whole = subprocess.run(command, check=True, capture_output=True, text=True)
    assert json.loads(whole.stdout)["decode"]["max_new_tokens"] == 30
