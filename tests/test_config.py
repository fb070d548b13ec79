"""`conf/tagspeech.yaml`: read strictly, overridden by --set, written back the same."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tagspeech.cli import VERBS
from tagspeech.config import Config
from tagspeech.config_file import from_tree, load_config, to_tree, to_yaml
from tagspeech.errors import InputError
from tagspeech.ranges import fault, plain_type

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_yaml(text: str) -> Path:
        path = tmp_path / "tagspeech.yaml"
        path.write_text(text)
        return path

    return write_yaml


def test_empty_file_gives_the_paper(write: Write) -> None:
    config = load_config(write(""))
    assert config == Config()
    assert (config.semantic.stack, config.semantic.anchor_interval) == (4, 8)
    assert (config.llm.trainable, config.target.time_grid) == ("none", 0.01)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("lamguage: en", ["unknown key 'lamguage'", "language"]),
        ("train: {learning_rate: 1}", ["train: unknown key 'learning_rate'", "lr"]),
        ("semantic: {encoder: {dim: 3}}", ["semantic: encoder: unknown key 'dim'"]),
        ("train: {lr: much}", ["train: lr: must be float, got 'much'"]),
        ("train: {max_steps: 1.5}", ["train: max_steps: must be int, got 1.5"]),
        ("train: {max_steps: true}", ["train: max_steps: must be int, got True"]),
        ("train: {lr: true}", ["train: lr: must be float, got True"]),
        ("train: {spec_augment: 1}", ["train: spec_augment: must be bool, got 1"]),
        ("train: {lr: null}", ["train: lr: must be float, got None"]),
        ("language: 5", ["language: must be str, got 5"]),
        ("llm: {revision: 7}", ["llm: revision: must be str, got 7"]),
        ("semantic: {encoder: {encoder_dim: [192, wide]}}", ["encoder_dim: must be int", "wide"]),
        ("train: 5", ["train: must be keys and values, got 5"]),
        ("[1, 2]", ["must be keys and values"]),
        ("train: {lr: [", ["is not YAML"]),
        ("train:\n\tlr: 1", ["is not YAML"]),
        ("semantic: {encoder: {embed_channels: [8, 32]}}", ["embed_channels: must be 3 values"]),
        ("semantic: {encoder: {num_heads: []}}", ["num_heads: must be one or more values"]),
        ("base: 5", ["base: must be the name of a file, got 5"]),
        ("base: tagspeech.yaml", ["base: comes back to this file"]),
    ],
)
def test_error_names_file_and_key_in_one_line(write: Write, text: str, words: list[str]) -> None:
    path = write(text)
    with pytest.raises(InputError) as error:
        load_config(path)
    message = str(error.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    for word in words:
        assert word in message


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere"):
        load_config(tmp_path / "nowhere.yaml")


def test_a_file_holds_what_differs_from_its_base(write: Write, tmp_path: Path) -> None:
    write("train: {lr: 0.1, seed: 5}\nsemantic: {encoder: {encoder_dim: [8, 16]}}\nlanguage: zh")
    (tmp_path / "more").mkdir()
    other = tmp_path / "more/other.yaml"
    other.write_text("base: ../tagspeech.yaml\ntrain: {lr: 0.2}\n")
    third = tmp_path / "third.yaml"
    third.write_text("base: more/other.yaml\nsemantic: {encoder: {encoder_dim: 4}}\nlanguage: en")
    config = load_config(third, ["train.max_steps=7"])
    assert (config.train.lr, config.train.seed, config.train.max_steps) == (0.2, 5, 7)
    assert (config.semantic.encoder.encoder_dim, config.language) == ((4,), "en")
    assert load_config(other).language == "zh"


def test_a_base_that_is_missing_or_wrong_is_named(write: Write, tmp_path: Path) -> None:
    path = write("base: nowhere.yaml")
    with pytest.raises(InputError, match=r"nowhere\.yaml"):
        load_config(path)
    (tmp_path / "nowhere.yaml").write_text("[1]")
    with pytest.raises(InputError, match=r"nowhere\.yaml: must be keys and values"):
        load_config(path)


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("train.lr=1e-4", 1e-4),  # YAML 1.1 takes it for a string
        ("train.lr=3", 3.0),
        ("train.lr=.5", 0.5),
        ("train.max_steps=7", 7),
        ("train.spec_augment=false", False),
        ("llm.name=folder=with=signs", "folder=with=signs"),
        ("llm.revision=abc", "abc"),
        ("llm.revision=null", None),
        ("semantic.encoder.encoder_dim=[8, 16]", (8, 16)),
        ("semantic.encoder.encoder_dim=8", (8,)),
    ],
)
def test_set_overrides(write: Write, override: str, value: object) -> None:
    config: object = load_config(write("train: {lr: 0.1, seed: 5}"), [override])
    for name in override.partition("=")[0].split("."):
        config = getattr(config, name)
    assert config == value
    assert type(config) is type(value)


def test_set_leaves_its_neighbours_and_the_last_wins(write: Write) -> None:
    path = write("train: {lr: 0.1, seed: 5}")
    config = load_config(path, ["train.lr=1", "train.lr=2"])
    assert (config.train.lr, config.train.seed) == (2.0, 5)


def test_set_changes_no_section_that_shares_an_alias(write: Write) -> None:
    path = write("train: &train {lr: 0.1}\nvoice: {train: *train}")
    config = load_config(path, ["train.lr=1"])
    assert (config.train.lr, config.voice.train.lr) == (1.0, 0.1)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.lr", "--set train.lr: must be KEY=VALUE"),
        ("train.lrr=1", "unknown key 'lrr'"),
        ("trian.lr=1", "unknown key 'trian'"),
        ("train.lr.high=1", "lr"),
        ("train=5", "train: must be keys and values, got 5"),
        ("=5", "unknown key ''"),
        ("train.lr=[", "--set train.lr=["),
        ("train.lr=much", "train: lr: must be float, got 'much'"),
    ],
)
def test_bad_set_is_one_line(write: Write, override: str, words: str) -> None:
    with pytest.raises(InputError) as error:
        load_config(write("train: {lr: 0.1}"), [override])
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_set_on_a_file_that_is_no_mapping(write: Write) -> None:
    with pytest.raises(InputError, match="must be keys and values"):
        load_config(write("[1, 2]"), ["train.lr=1"])


@pytest.mark.parametrize("recipe", ["mini", "ami", "alimeeting"])
def test_round_trip_of_a_recipe(root: Path, write: Write, recipe: str) -> None:
    config = load_config(root / "egs" / recipe / "conf/tagspeech.yaml", ["train.lr=1e-7"])
    assert load_config(write(to_yaml(config))) == config
    assert from_tree(Config, to_tree(config), "tree") == config


@settings(max_examples=30)
@given(
    st.floats(1e-300, 1e300),
    st.lists(st.integers(1, 999), min_size=1).map(tuple),
    st.none() | st.text(),
    st.text(),
)
def test_round_trip_of_any_values(
    lr: float, dims: tuple[int, ...], revision: str | None, name: str
) -> None:
    tree = {
        "train": {"lr": lr},
        "semantic": {"encoder": {"encoder_dim": dims}},
        "llm": {"revision": revision, "name": name},
    }
    config = from_tree(Config, tree, "tree")
    assert from_tree(Config, yaml.safe_load(to_yaml(config)), "yaml") == config


def test_every_number_of_configuration_and_command_line_has_a_range() -> None:
    """So that nan, infinity and numbers far below zero are refused where they are read."""
    lacking: list[str] = []
    seen: set[type] = set()

    def walk(cls: type, where: str) -> None:
        if cls in seen:
            return
        seen.add(cls)
        hints = typing.get_type_hints(cls, include_extras=True)
        for item in dataclasses.fields(cls):
            hint, name = hints[item.name], f"{where}.{item.name}"
            kind = plain_type(hint)
            parts = typing.get_args(kind) if typing.get_origin(kind) is tuple else (hint,)
            for part in (part for part in parts if part is not Ellipsis):
                bad = {float: float("nan"), int: -(10**9)}.get(plain_type(part))
                if dataclasses.is_dataclass(plain_type(part)):
                    walk(plain_type(part), name)
                elif bad is not None and fault(part, bad) is None:
                    lacking.append(name)

    walk(Config, "config")
    for verb, options in VERBS.items():
        walk(options, verb)
    # --channel is checked where it is parsed, --shares where they are used.
    assert sorted(lacking) == ["import.config.channel", "import.config.shares"]
