"""Lhotse manifests from elsewhere: no command runs, no file outside, no traceback."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

pytest.importorskip("lhotse")

from tagspeech.corpus.groups import make_groups
from tagspeech.corpus.manifests import read_manifest
from tagspeech.data.batches import read_groups
from tagspeech.errors import InputError

Rows = list[dict[str, Any]]
SPLITS = ("train", "dev", "test")


def write(path: Path, rows: Rows) -> None:
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A folder of manifests, each with a recording of two seconds and a supervision."""
    folder = tmp_path / "manifests"
    folder.mkdir()
    for split in SPLITS:
        audio = tmp_path / f"{split}.wav"
        soundfile.write(audio, np.random.default_rng(1).normal(0, 0.1, 16000), 8000)
        source = {"type": "file", "channels": [0], "source": str(audio)}
        recording = {"id": split, "sources": [source], "sampling_rate": 8000}
        recording |= {"num_samples": 16000, "duration": 2.0, "channel_ids": [0]}
        supervision = {"id": f"{split}-1", "recording_id": split, "start": 0.0, "duration": 1.5}
        supervision |= {"channel": 0, "text": "so it is", "speaker": "anna", "gender": "F"}
        write(folder / f"{split}_recordings.jsonl.gz", [recording])
        write(folder / f"{split}_supervisions.jsonl.gz", [supervision])
    return folder


def change(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    rows = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    for row in rows:
        edit(row)
    write(path, rows)


def groups(corpus: Path, **options: Any) -> Path:
    output = corpus.parent / "data/groups"
    make_groups(
        *(corpus, output),
        rejected=corpus.parent / "data/rejected.jsonl",
        splits=SPLITS,
        max_pause=1.0,
        language="en",
        **options,
    )
    return output


def source_of(row: dict[str, Any]) -> dict[str, Any]:
    source: dict[str, Any] = row["sources"][0]
    return source


@pytest.mark.parametrize("kind", ["command", "url"])
def test_command_is_not_run(corpus: Path, tmp_path: Path, kind: str) -> None:
    command = f"touch {tmp_path}/canary; cat {tmp_path}/train.wav"
    source = command if kind == "command" else f"pipe:{command}"
    change(
        corpus / "train_recordings.jsonl.gz",
        lambda row: source_of(row).update(type=kind, source=source),
    )
    with pytest.raises(InputError, match=r"train_recordings.*recording train: .*(--allow|https)"):
        groups(corpus)
    assert not (tmp_path / "canary").exists()


def test_command_in_groups_is_not_run(corpus: Path, tmp_path: Path) -> None:
    path = groups(corpus) / "train.jsonl.gz"
    command = f"touch {tmp_path}/canary; cat {tmp_path}/train.wav"
    change(path, lambda row: source_of(row["recording"]).update(type="command", source=command))
    with pytest.raises(InputError, match="is not run"):
        read_groups(path)
    assert not (tmp_path / "canary").exists()


def test_allowed_command_runs_once(corpus: Path, tmp_path: Path, tiny_yaml: Path) -> None:
    command = f"echo x >>{tmp_path}/runs; cat {tmp_path}/train.wav"
    change(
        corpus / "train_recordings.jsonl.gz",
        lambda row: source_of(row).update(type="command", source=command),
    )
    call = [sys.executable, "-m", "tagspeech", "groups", "--config", tiny_yaml]
    call += ["--manifests", corpus, "--output", tmp_path / "groups"]
    call += ["--rejected", tmp_path / "rejected.jsonl"]
    said = subprocess.run(call, capture_output=True, text=True, check=False)
    assert said.returncode == 2
    assert said.stderr.count("\n") == 1
    subprocess.run([*call, "--allow-commands"], check=True, capture_output=True)
    (cut,) = read_groups(tmp_path / "groups/train.jsonl.gz")
    assert cut.load_audio().shape == (1, 12000)
    assert (tmp_path / "runs").read_text() == "x\n"


def test_failing_command(corpus: Path) -> None:
    change(
        corpus / "train_recordings.jsonl.gz",
        lambda row: source_of(row).update(type="command", source="false"),
    )
    with pytest.raises(InputError, match="recording train: its command 'false' fails"):
        groups(corpus, allow_commands=True)


@pytest.mark.parametrize("name", ["../../../x", "..", "a/b", "a\nb", "a\x7f", "x" * 300, ""])
def test_ids_that_are_no_file_names(corpus: Path, name: str) -> None:
    path = groups(corpus) / "train.jsonl.gz"
    change(path, lambda row: row.update(id=name))
    with pytest.raises(InputError, match="recording id"):
        read_groups(path)
    change(corpus / "train_recordings.jsonl.gz", lambda row: row.update(id=name))
    with pytest.raises(InputError, match="recording id"):
        groups(corpus)


def test_embedding_and_examples_write_no_file_outside(
    corpus: Path, tmp_path: Path, tiny_model_folder: Path
) -> None:
    from tagspeech.config import Config
    from tagspeech.report.examples import write_examples
    from tagspeech.training.embed import embed

    path = groups(corpus) / "train.jsonl.gz"
    change(path, lambda row: row.update(id="../../../outside"))
    files = set(tmp_path.rglob("*"))
    with pytest.raises(InputError, match="recording id"):
        embed(Config(), path.parent, None, None, tmp_path / "a", ("train",), tiny_model_folder)
    scores = tmp_path / "scores.json"
    session = {"cpwer": {"error_rate": 0.5}}
    scores.write_text(json.dumps({"overall": {}, "sessions": {"../../../outside": session}}))
    (tmp_path / "x.stm").write_text("")
    files |= {scores, tmp_path / "x.stm"}
    with pytest.raises(InputError, match="recording id"):
        write_examples(scores, path, tmp_path / "x.stm", tmp_path / "x.stm", tmp_path / "a")
    assert set(tmp_path.rglob("*")) == files


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("recordings", {"sampling_rate": "x"}),
        ("recordings", {"sampling_rate": 0}),
        ("recordings", {"num_samples": None}),
        ("recordings", {"duration": "2"}),
        ("recordings", {"duration": float("nan")}),
        ("recordings", {"id": 7}),
        ("recordings", {"sources": 3}),
        ("recordings", {"sources": [3]}),
        ("recordings", {"sources": [{"type": "file", "channels": "x", "source": "x"}]}),
        ("recordings", {"sources": [{"type": "file", "channels": [0], "source": 7}]}),
        ("recordings", {"sources": [{"type": "tape", "channels": [0], "source": "x"}]}),
        ("recordings", {"transforms": [{"name": "evil", "kwargs": {}}]}),
        ("recordings", {"unknown": 1}),
        ("supervisions", {"start": "x"}),
        ("supervisions", {"start": float("nan")}),
        ("supervisions", {"duration": None}),
        ("supervisions", {"speaker": ["a"]}),
        ("supervisions", {"text": 5}),
        ("supervisions", {"text": "\ud800"}),
        ("supervisions", {"channel": "left"}),
        ("supervisions", {"gender": 1}),
        ("supervisions", {"alignment": {"word": [["a", "b", 1.0, 1.0]]}}),
        ("supervisions", {"alignment": {"word": [[1, 0.0, 1.0, 1.0]]}}),
        ("supervisions", {"alignment": 3}),
        ("supervisions", {"recording_id": None}),
        ("supervisions", {"id": {"a": 1}}),
    ],
)
def test_wrong_values_are_one_line(corpus: Path, kind: str, values: dict[str, Any]) -> None:
    change(corpus / f"train_{kind}.jsonl.gz", lambda row: row.update(values))
    with pytest.raises(InputError) as error:
        groups(corpus)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 800


def test_flipped_bytes(corpus: Path) -> None:
    path = corpus / "train_supervisions.jsonl.gz"
    whole = path.read_bytes()
    for place in range(0, len(whole), 3):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x41]) + whole[place + 1 :])
        with suppress(InputError):
            read_manifest(path)


def test_arrays_that_are_stored_as_pickles(corpus: Path) -> None:
    path = groups(corpus) / "train.jsonl.gz"
    array = {"storage_type": "memory_raw", "storage_path": "", "storage_key": "80049500"}
    array |= {"shape": [3, 4]}
    timed = {"array": array, "temporal_dim": 0, "frame_shift": 0.04, "start": 0.0}
    change(path, lambda row: row.update(custom={"semantic_frames": timed}))
    with pytest.raises(InputError, match="semantic_frames: arrays must be stored as numpy_files"):
        read_groups(path)


def test_deep_json(corpus: Path) -> None:
    path = corpus / "train_supervisions.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"id": ' + b"[" * 100_000 + b"\n"))
    with pytest.raises(InputError, match="is not a Lhotse manifest"):
        read_manifest(path)
