"""Parts trained before, found by the configuration's names: here, or on a Hub of our own."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import test_download
import torch
from safetensors.torch import save_file

from tagspeech.checkpoints import starting_points
from tagspeech.checkpoints.starting_points import find_parts
from tagspeech.config import Config
from tagspeech.config_file import load_config
from tagspeech.encoders.sot import SotModel
from tagspeech.encoders.zipformer import Zipformer
from tagspeech.errors import InputError

Find = Callable[..., dict[str, str]]


@pytest.fixture
def folder(tmp_path: Path, tiny_config: Config) -> Path:
    """An LLM and two encoders, one with a config.json of another shape than the yaml tells."""
    torch.manual_seed(1)
    (tmp_path / "auden").mkdir()
    shape = dataclasses.replace(tiny_config.voice.encoder, encoder_dim=(20, 28), dropout=0.0)
    # Their config.json has no channels of the front end: it knows only one.
    shape = dataclasses.replace(shape, embed_channels=(8, 32, 128))
    tree = {**dataclasses.asdict(shape), "model_type": "zipformer", "dropout": None}
    del tree["embed_channels"]
    (tmp_path / "auden/config.json").write_text(json.dumps(tree))
    save_file(Zipformer(shape).state_dict(), tmp_path / "auden/model.safetensors")
    weights = SotModel(tiny_config.semantic.encoder, 7).state_dict()
    torch.save({"model": weights}, tmp_path / "icefall.pt")
    shutil.copytree(tiny_config.llm.name, tmp_path / "llm")
    return tmp_path


@pytest.fixture
def find(folder: Path, tiny_yaml: Path) -> Find:
    """`find_parts` with parts of the folder by their file names, `llm` among them."""

    def run(*sets: str, **names: str) -> dict[str, str]:
        more = [
            f"llm.name={folder / name}" if part == "llm" else f"parts.{part}.name={folder / name}"
            for part, name in names.items()
        ]
        return find_parts(load_config(tiny_yaml, [*more, *sets]), folder / "parts.json")

    return run


def test_nothing_named_finds_nothing(find: Find, folder: Path) -> None:
    assert find() == {}
    assert not (folder / "parts.json").exists()


def test_files_shapes_and_checksums(find: Find, folder: Path, tiny_config: Config) -> None:
    found = find(semantic_init="icefall.pt", voice_encoder="auden", llm="llm")
    shape = json.loads(found.pop("voice.encoder"))
    assert shape["encoder_dim"] == [20, 28]
    assert shape["dropout"] == tiny_config.voice.encoder.dropout
    assert found == {
        "semantic_init": str(folder / "icefall.pt"),
        "voice_encoder": str(folder / "auden/model.safetensors"),
        "llm.name": str(folder / "llm"),
        "llm.revision": "null",
    }
    record = json.loads((folder / "parts.json").read_text())
    assert record.keys() == {"semantic_init", "voice_encoder", "llm"}
    for part, name in (("llm", "llm/model.safetensors"), ("voice_encoder", "auden/config.json")):
        row = record[part]["files"][Path(name).name]
        assert row["sha256"] == hashlib.sha256((folder / name).read_bytes()).hexdigest()
    assert record["llm"]["commit"] is None


def test_only_what_changed_is_read_again(
    find: Find, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {"voice_encoder": "auden", "llm": "llm"}
    first = find(**names)
    read: list[str] = []

    def sha256_of(path: Path) -> str:
        read.append(path.name)
        return "0"

    monkeypatch.setattr(starting_points, "sha256_of", sha256_of)
    assert find(**names) == first
    assert read == []
    save_file({"more": torch.zeros(1)}, folder / "auden/model.safetensors")
    with pytest.raises(InputError, match="holds 'more', which no Zipformer has"):
        find(**names)
    assert read == ["model.safetensors"]


@pytest.mark.parametrize(
    ("names", "sets", "words"),
    [
        ({"voice_encoder": "a/b/none.pt"}, [], r"parts\.voice_encoder: .*none\.pt: no such file"),
        ({"voice_encoder": "llm"}, ["parts.voice_encoder.file=x.pt"], r"has no x\.pt; parts\."),
        ({"voice_encoder": "icefall.pt"}, ["parts.voice_encoder.file=x.pt"], "is a file itself"),
        ({"voice_encoder": "icefall.pt"}, [], r"icefall\.pt: .* has shape"),  # the other stream's
        ({"voice_encoder": "auden"}, ["parts.voice_encoder.revision=v1"], "is a path; a revision"),
        ({"semantic_units": "icefall.pt"}, [], r"parts\.semantic_units: .*semantic_init"),
        ({"llm": "icefall.pt"}, [], r"llm\.name: .*is a file"),
        ({"llm": "auden"}, [], r"llm\.name: "),
        ({"llm": "a/b/nowhere"}, [], r"llm\.name: .*nowhere: no such file or folder"),
    ],
)
def test_what_is_wrong_is_one_line(
    find: Find, names: dict[str, str], sets: list[str], words: str
) -> None:
    with pytest.raises(InputError, match=words) as error:
        find(*sets, **names)
    assert "\n" not in str(error.value)


def test_llm_with_a_missing_shard_is_noticed(find: Find, folder: Path) -> None:
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    index = folder / "llm/model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": shards}))
    (folder / "llm/model.safetensors").rename(folder / "llm" / shards["a"])
    with pytest.raises(InputError, match=r"model-00002-of-00002\.safetensors: is missing"):
        find(llm="llm")


def test_a_trained_encoder_takes_the_place_of_what_training_starts_from(find: Find) -> None:
    found = find(semantic_init="nowhere.pt", semantic_encoder="icefall.pt")
    assert found.keys() == {"semantic_encoder"}


# On the Hub


@pytest.fixture
def endpoint(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A Hub whose `org/name` holds an LLM and an encoder."""
    files = {path.name: path.read_bytes() for path in (folder / "llm").iterdir()}
    files["exp/pretrained.pt"] = (folder / "icefall.pt").read_bytes()
    files["README.md"] = b"not wanted"
    monkeypatch.setattr(test_download, "FILES", files)
    with test_download.serve() as url:
        yield url


def verb(folder: Path, yaml: Path, endpoint: str, *more: str) -> subprocess.CompletedProcess[str]:
    sets = ["llm.name=org/name", "llm.revision=main", "parts.semantic_init.file=exp/pretrained.pt"]
    sets += ["parts.semantic_init.name=org/name"]
    command = [sys.executable, "-m", "tagspeech", "parts", "--config", str(yaml)]
    command += [word for item in sets for word in ("--set", item)]
    environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(folder / "cache")}
    return subprocess.run(
        [*command, "--record", str(folder / "exp/parts.json"), *more],
        env=environment,
        capture_output=True,
        text=True,
    )


def test_parts_of_the_hub_and_again_without_it(
    endpoint: str, folder: Path, tiny_yaml: Path
) -> None:
    process = verb(folder, tiny_yaml, "http://127.0.0.1:9")
    assert process.returncode == 2
    assert process.stderr.startswith("tagspeech parts: parts.semantic_init: org/name: ")
    assert "hf download org/name" in process.stderr
    assert process.stderr.count("\n") == 1

    process = verb(folder, tiny_yaml, endpoint)
    assert process.returncode == 0, process.stderr
    answer = dict(line.partition("=")[::2] for line in process.stdout.splitlines())
    assert answer.keys() == {"semantic_init", "llm.name", "llm.revision"}
    assert Path(answer["semantic_init"]).read_bytes() == (folder / "icefall.pt").read_bytes()
    assert (answer["llm.name"], answer["llm.revision"]) == ("org/name", test_download.COMMIT)
    record = json.loads((folder / "exp/parts.json").read_text())
    assert record["semantic_init"]["commit"] == test_download.COMMIT
    assert "README.md" not in record["llm"]["files"]
    for url, more in (("http://127.0.0.1:9", ()), (endpoint, ("--offline",))):
        again = verb(folder, tiny_yaml, url, *more)
        assert (again.returncode, again.stdout) == (0, process.stdout), again.stderr


# What run.sh asks


def answer_of(folder: Path, yaml: Path, *words: str) -> tuple[dict[str, str], str]:
    """The answer line by line, and what was said on stderr."""
    command = [sys.executable, "-m", "tagspeech", "parts", "--config", str(yaml)]
    command += ["--record", str(folder / "exp/parts.json"), *words]
    told = subprocess.run(command, capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    return dict(line.partition("=")[::2] for line in told.stdout.splitlines()), told.stderr


def test_options_go_before_the_configuration(folder: Path, tiny_yaml: Path) -> None:
    weights, llm = folder / "icefall.pt", folder / "llm"
    sets = ["--set", "parts.semantic_init={name: none.pt, revision: v1}", "--set", "llm.name=none"]
    yaml = folder / "named.yaml"
    yaml.write_text(f"{tiny_yaml.read_text()}parts: {{voice_init: {{name: none.pt}}}}\n")
    named = ["--semantic-init", str(weights), "--llm", str(llm)]
    named += ["--voice-encoder", str(folder / "auden")]  # instead of training voice_init
    answer, _ = answer_of(folder, yaml, *named)
    assert answer["semantic_init"] == str(weights)
    assert answer["voice_encoder"] == str(folder / "auden/model.safetensors")
    assert answer["llm.name"] == answer["llm_folder"] == str(llm)
    assert json.loads(answer["parts"])["semantic_init"]["revision"] is None
    assert "new_llm" not in answer
    # What the user sets goes before the options.
    answer, _ = answer_of(folder, yaml, *named, "--no-search", *sets)
    assert json.loads(answer["parts"])["semantic_init"]["name"] == "none.pt"
    assert answer["llm.name"] == "none"


def test_new_llm_where_none_is_named(folder: Path, tiny_yaml: Path) -> None:
    new = folder / "a #b: [c" / "llm"  # which would be something else in YAML
    words = ["--new-llm", str(new)]
    answer, _ = answer_of(folder, tiny_yaml, *words)
    assert answer.keys() == {"new_llm", "llm.name"}
    config = load_config(tiny_yaml, [f"llm.name={answer['llm.name']}"])
    assert config.llm.name == str(new)
    answer, _ = answer_of(folder, tiny_yaml, *words, "--llm", str(folder / "llm"))
    assert answer["llm_folder"] == str(folder / "llm")


@pytest.mark.parametrize("option", ["--from-scratch", "--init-from"])
def test_without_parts(folder: Path, tiny_yaml: Path, option: str) -> None:
    words = [option] if option == "--from-scratch" else [option, str(folder / "llm")]
    yaml = folder / "named.yaml"
    yaml.write_text(f"{tiny_yaml.read_text()}parts: {{voice_init: {{name: none.pt}}}}\n")
    words += ["--semantic-init", "none.pt", "--llm", "none", "--new-llm", "new"]
    answer, messages = answer_of(folder, yaml, *words)
    assert not any(part["name"] for part in json.loads(answer["parts"]).values())
    assert "other parts are not used: semantic_init, llm" in messages
    assert messages.count("\n") == 1
    if option == "--from-scratch":
        assert (answer["new_llm"], answer["llm.name"]) == ("true", "new")
    else:
        assert answer["semantic_encoder"] == answer["voice_encoder"] == str(folder / "llm")
        assert answer["llm.name"] == '""'
        assert "new_llm" not in answer


def test_model_to_begin_with_that_is_none(folder: Path, tiny_yaml: Path) -> None:
    command = [sys.executable, "-m", "tagspeech", "parts", "--config", str(tiny_yaml)]
    command += ["--record", str(folder / "parts.json"), "--init-from", str(folder)]
    told = subprocess.run(command, capture_output=True, text=True)
    assert told.returncode == 2
    assert told.stderr == (
        f"tagspeech parts: --init-from {folder}: is no folder of a TagSpeech (no config.json); "
        "a model of the Hub is downloaded first: hf download ORG/NAME --local-dir FOLDER\n"
    )
