"""Configurations, JSON and checkpoints that are damaged or hostile: one line, in little memory."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tagspeech.config_file import load_config
from tagspeech.errors import InputError
from tagspeech.files import read_journal, read_json

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 9)
)
ODD = {
    "bomb": f"{BOMB}train: *a8\n",
    "bomb_as_key": f"{BOMB}? *a8\n: 1\n",
    "cycle": "train: &a {lr: *a}\n",
    "cycle_of_lists": "&a [*a]\n",
    "merge_bomb": "a: &a {<<: *b}\nb: &b {<<: *a}\n",
    "int": "train: {seed: !!int x}\n",
    "float": "train: {lr: !!float x}\n",
    "bool": "train: {spec_augment: !!bool perhaps}\n",
    "time": "train: {seed: !!timestamp yesterday}\n",
    "date": "train: {seed: 2020-99-99}\n",
    "binary": "train: {seed: !!binary '&'}\n",
    "digits": f"train: {{seed: {'7' * 5000}}}\n",
    "hex": f"train: {{seed: 0x{'f' * 20000}}}\n",
    "large": f"train: {{lr: {'7' * 400}}}\n",
    "sexagesimal": "train: {seed: 1:" + "9" * 5000 + "}\n",
    "nul": "train: {seed: 1\0}\n",
    "deep": "[" * 20000,
    "deep_map": "train: " + "{a: " * 5000,
    "python": "!!python/object/apply:os.system ['touch canary']\n",
    "list": "[1, 2]\n",
    "text": "just words\n",
    "two": "a: 1\n---\nb: 2\n",
    "key_of_list": "? [a, b]\n: 1\n",
    "key_none": "null: 1\n",
    "key_number": "7: 1\n",
    "long": f"train: {'x' * 1_000_000}\n",
    "long_key": f"{'x' * 100_000}: 1\n",
    "many": "train:\n" + "".join(f"  k{i}: 1\n" for i in range(30_000)),
    "base": "base: [1]\n",
    "base_dir": "base: .\n",
    "base_nul": 'base: "a\\0b"\n',
    "surrogate": 'language: "\\ud800"\n',
    "infinity": "train: {lr: .inf}\n",
    "nan": "train: {lr: .nan}\n",
    "steps": "train: {max_steps: -5}\n",
    "zero": "train: {valid_every: 0}\n",
}


@pytest.mark.parametrize("name", ODD)
def test_odd_configuration_is_one_line(tmp_path: Path, name: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(ODD[name].encode("utf-8", "surrogatepass"))
    with pytest.raises(InputError) as error:
        load_config(path)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 2000
    assert str(tmp_path) in str(error.value)


def test_bomb_takes_little_memory(tmp_path: Path) -> None:
    """Of the command line and of a file; the process may have 2 GB of addresses."""
    path = tmp_path / "x.yaml"
    path.write_text(ODD["bomb"])
    for call in (["--config", str(path)], ["--config", str(path), "--set", "train=[&a [1], *a]"]):
        said = subprocess.run(
            [
                *("bash", "-c", 'ulimit -v 2000000; exec "$@"', "_"),
                *(sys.executable, "-m", "tagspeech", "config", *call),
            ],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert said.returncode == 2, said.stderr
        assert said.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "value", ["!!int x", "7" * 5000, "\0", "[" * 5000, "&a [*a]", "{? [a] : 1}"]
)
def test_odd_override_is_one_line(tmp_path: Path, value: str) -> None:
    (tmp_path / "x.yaml").write_text("{}\n")
    with pytest.raises(InputError, match=r"^--set train\.seed") as error:
        load_config(tmp_path / "x.yaml", [f"train.seed={value}"])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["[" * 100_000, "7" * 5000, "{", '"\\x"', "", "nul", "[1,]"])
def test_odd_json_is_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(InputError, match="is not JSON"):
        read_json(path)
    if text:
        path.write_text(f"{text}\n")
        with pytest.raises(InputError, match="line 1: is not JSON"):
            read_journal(path)


@pytest.mark.parametrize("row", ["[]", "3", "null", '"x"'])
def test_row_of_a_journal_is_an_object(tmp_path: Path, row: str) -> None:
    (tmp_path / "x.jsonl").write_text(f"{row}\n")
    with pytest.raises(InputError, match="line 1: must be a JSON object"):
        read_journal(tmp_path / "x.jsonl")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a training with one checkpoint."""
    torch = pytest.importorskip("torch")
    from tagspeech.training.checkpoint import CheckpointFolder, rng_state

    folder = tmp_path / "run"
    state: dict[str, Any] = {"model": {"a": torch.ones(3)}, "optimizer": {}, "step": 2, "epoch": 0}
    state |= {"batch": 1, "rng": [rng_state()], "seconds": 1.0}
    CheckpointFolder(folder, 2).add(2, state)
    return folder


def test_damaged_checkpoint_is_one_line(run: Path) -> None:
    from tagspeech.training.checkpoint import CheckpointFolder

    path = run / "checkpoint-2.pt"
    whole = path.read_bytes()
    draw = random.Random(1)
    for _ in range(150):
        data = bytearray(whole[: draw.choice([len(whole), draw.randrange(len(whole))])])
        for _ in range(draw.randrange(4)):
            if data:
                data[draw.randrange(len(data))] = draw.randrange(256)
        path.write_bytes(data)
        try:
            CheckpointFolder(run, 2).latest()
        except InputError as error:
            message = str(error)
            if "\n" in message:
                pytest.fail(message)


@pytest.mark.parametrize("names", ["{}", "3", "[3]", '["../x.pt"]', '["checkpoint-3.pt"]', "nul"])
def test_damaged_list_of_checkpoints(run: Path, names: str) -> None:
    from tagspeech.training.checkpoint import CheckpointFolder

    (run / "checkpoints.json").write_text(names)
    with pytest.raises(InputError, match="checkpoint"):
        CheckpointFolder(run, 2).latest()


def test_checkpoint_that_lacks_an_entry(run: Path) -> None:
    from tagspeech.training.checkpoint import CheckpointFolder, load, save

    path = run / "checkpoint-2.pt"
    state = load(path)
    del state["rng"]
    save(path, state)
    with pytest.raises(InputError, match="is damaged: it has no rng; delete the folder"):
        CheckpointFolder(run, 2).latest()
    assert json.loads((run / "checkpoints.json").read_text()) == ["checkpoint-2.pt"]


@pytest.mark.parametrize("key", ["words", "speaker", "session_id"])
def test_half_a_character_in_segments_is_one_line(tmp_path: Path, key: str) -> None:
    from tagspeech.formats import read

    entry = {"session_id": "s", "speaker": "a", "start_time": 0, "end_time": 1, "words": "so"}
    path = tmp_path / "x.seglst.json"
    path.write_text(json.dumps([{**entry, key: "x\ud800"}]))
    with pytest.raises(InputError, match=r"entry 1: must be text that UTF-8 can hold"):
        read(path)


def test_audio_whose_name_is_not_utf8_is_refused(tmp_path: Path) -> None:
    from tagspeech.audio.sources import open_audio

    with pytest.raises(InputError, match=r"\\udcff.wav: its name is not UTF-8; rename the file"):
        open_audio(tmp_path / "a\udcff.wav")
