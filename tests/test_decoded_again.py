"""Decoding into a folder that was decoded before: only the same model, groups and options fit."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

from tagspeech.config import DecodeConfig
from tagspeech.data.batches import read_groups
from tagspeech.errors import InputError
from tagspeech.inference.decode import Shard, decode, merge_decoded


@pytest.fixture(scope="module")
def once(
    tiny_model_folder: Path, tiny_groups: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder with all groups decoded."""
    output = tmp_path_factory.mktemp("decoded") / "greedy"
    decode(tiny_model_folder, tiny_groups / "test.jsonl.gz", output, DecodeConfig(5))
    return output


def copy_of(once: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(once, tmp_path / "greedy"))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("part", ["config.json", "model.safetensors", "llm/model.safetensors"])
def test_another_model(
    once: Path, tiny_model_folder: Path, tiny_groups: Path, tmp_path: Path, part: str
) -> None:
    other = Path(shutil.copytree(tiny_model_folder, tmp_path / "model"))
    data = bytearray((other / part).read_bytes())
    data[-3:] = b"   " if part.endswith("json") else bytes(3)
    (other / part).write_bytes(data)
    output = copy_of(once, tmp_path)
    with pytest.raises(InputError, match=r"test\.raw\.jsonl: was decoded with another model; del"):
        decode(other, tiny_groups / "test.jsonl.gz", output, DecodeConfig(5))
    assert contents(output) == contents(once)


def test_other_options_on_the_command_line(
    once: Path, tiny_model_folder: Path, tiny_groups: Path, tiny_yaml: Path, tmp_path: Path
) -> None:
    output = copy_of(once, tmp_path)
    command = [sys.executable, "-m", "tagspeech", "decode", "--config", str(tiny_yaml)]
    command += ["--model", str(tiny_model_folder), "--groups", str(tiny_groups / "test.jsonl.gz")]
    command += ["--output", str(output), "--set", "decode.max_new_tokens=6"]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    assert said.returncode == 2
    assert "was decoded with another decode.max_new_tokens" in said.stderr
    assert said.stderr.count("\n") == 1


def test_other_groups(
    once: Path, tiny_model_folder: Path, tiny_groups: Path, tmp_path: Path
) -> None:
    groups = read_groups(tiny_groups / "test.jsonl.gz").subset(first=9)
    groups.to_file(tmp_path / "test.jsonl.gz")
    with pytest.raises(InputError, match="was decoded with another groups"):
        decode(
            *(tiny_model_folder, tmp_path / "test.jsonl.gz"),
            *(copy_of(once, tmp_path), DecodeConfig(5)),
        )


def test_the_same_again_changes_nothing(
    once: Path, tiny_model_folder: Path, tiny_groups: Path, tmp_path: Path
) -> None:
    """The same groups in a file that was compressed at another time."""
    read_groups(tiny_groups / "test.jsonl.gz").to_file(tmp_path / "test.jsonl")
    output = copy_of(once, tmp_path)
    decode(tiny_model_folder, tmp_path / "test.jsonl", output, DecodeConfig(5))
    assert contents(output) == contents(once)


def test_shards_of_different_options_are_not_merged(
    tiny_model_folder: Path, tiny_groups: Path, tmp_path: Path
) -> None:
    groups = tiny_groups / "test.jsonl.gz"
    for number in (1, 2):
        config = DecodeConfig(4 + number)
        decode(tiny_model_folder, groups, tmp_path, config, shard=Shard(number, 2))
    with pytest.raises(InputError, match=r"2-of-2.* another decode\.max_new_tokens than"):
        merge_decoded(groups, [tmp_path], tmp_path / "merged")
    for path in tmp_path.glob("*2-of-2*"):
        path.unlink()
    decode(tiny_model_folder, groups, tmp_path, DecodeConfig(5), shard=Shard(2, 2))
    merge_decoded(groups, [tmp_path], tmp_path / "merged")
    origin = json.loads((tmp_path / "merged/test.raw.origin.json").read_text())
    assert origin["decode"]["max_new_tokens"] == 5
