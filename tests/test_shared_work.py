"""Stages 5, 6, 7 and 10 in several processes: the bytes of one run, also after a kill."""

from __future__ import annotations

import gzip
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("torch")

import torch

from tagspeech import parallel
from tagspeech.cli import main
from tagspeech.llm.place import find_device


def begin(verb: str, *words: object, jobs: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tagspeech", verb, *map(str, words)]
    command += ["--jobs", str(jobs), "--device", "cpu", "--threads", "1"]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def finish(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out


def kill_when(process: subprocess.Popen[str], folder: Path, pattern: str, files: int) -> None:
    """Kills the first process as soon as `files` journals have a row, and waits for the others."""
    deadline = time.monotonic() + 300
    while sum(path.stat().st_size > 0 for path in folder.glob(pattern)) < files:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.kill()
    process.wait()
    while True:  # the others end by themselves: nobody else ends them
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return
        if time.monotonic() > deadline:
            os.killpg(process.pid, signal.SIGKILL)
            pytest.fail("a process outlives the first one")
        time.sleep(0.05)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.json*")}


@pytest.fixture(scope="module")
def decoded(
    tiny_model_folder: Path,
    tiny_groups: Path,
    tiny_yaml: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[list[object], dict[str, bytes]]:
    """The options of a decoding, and what one process writes."""
    words: list[object] = ["--config", tiny_yaml, "--set", "decode.max_new_tokens=150"]
    words += ["--set", "decode.max_duration=9", "--model", tiny_model_folder]
    words += ["--groups", tiny_groups / "test.jsonl.gz"]
    folder = tmp_path_factory.mktemp("decoded")
    finish(begin("decode", *words, "--output", folder, jobs=1))
    return words, contents(folder)


def test_killed_decoding_continues_in_other_processes_to_the_same(
    decoded: tuple[list[object], dict[str, bytes]], tmp_path: Path
) -> None:
    words, whole = decoded
    output = ["--output", tmp_path]
    kill_when(begin("decode", *words, *output, jobs=2), tmp_path, "*.part.*.raw.jsonl", 2)
    assert not (tmp_path / "test.raw.jsonl").exists()
    kill_when(begin("decode", *words, *output, jobs=3), tmp_path, "*-of-3.raw.jsonl", 1)
    finish(begin("decode", *words, *output, jobs=2))
    assert contents(tmp_path) == whole


def test_decoding_that_one_process_began_continues_in_two(
    decoded: tuple[list[object], dict[str, bytes]], tmp_path: Path
) -> None:
    words, whole = decoded
    rows = whole["test.raw.jsonl"].splitlines(keepends=True)
    (tmp_path / "test.raw.jsonl").write_bytes(b"".join(rows[:2]) + rows[2][:-9])
    for name in ("test.raw.origin.json", "test.places.json"):
        (tmp_path / name).write_bytes(whole[name])
    finish(begin("decode", *words, "--output", tmp_path, jobs=2))
    assert contents(tmp_path) == whole


def test_killed_meetings_continue_in_other_processes_to_the_same(
    tiny_model_folder: Path, tiny_groups: Path, tiny_yaml: Path, tmp_path: Path
) -> None:
    """Two meetings: the corpus of the test, once more under another name."""
    from lhotse import RecordingSet, SupervisionSet, load_manifest

    corpus = tiny_groups.parent / "corpus"
    (recording,) = load_manifest(corpus / "test_recordings.jsonl.gz")
    said = list(load_manifest(corpus / "test_supervisions.jsonl.gz"))
    names = (recording.id, "again")
    recordings = [recording.with_path_prefix("").to_dict() | {"id": name} for name in names]
    RecordingSet.from_dicts(recordings).to_file(tmp_path / "test_recordings.jsonl.gz")
    SupervisionSet.from_dicts(
        one.to_dict() | {"id": f"{name}-{one.id}", "recording_id": name}
        for name in names
        for one in said
    ).to_file(tmp_path / "test_supervisions.jsonl.gz")
    words = ["--config", tiny_yaml, "--model", tiny_model_folder, "--max-pause", 1.0]
    words += ["--manifests", tmp_path / "test"]
    one, two = tmp_path / "one", tmp_path / "two"
    printed = finish(begin("meetings", *words, "--output", one, jobs=1))
    kill_when(begin("meetings", *words, "--output", two, jobs=2), two, "heard/*.jsonl", 2)
    assert not (two / "results.json").exists()
    assert finish(begin("meetings", *words, "--output", two, jobs=2)) == printed
    assert contents(two) == contents(one)


class _Launched(Exception):
    pass


@pytest.mark.parametrize(
    ("device", "gpus", "expected"),
    [("auto", 2, 2), ("cuda", 2, 2), ("cuda:1", 2, 1), ("cpu", 2, 3), ("auto", 0, 3)],
)
@pytest.mark.parametrize("verb", ["decode", "meetings"])
def test_each_gpu_of_the_machine_has_a_process(
    verb: str,
    device: str,
    gpus: int,
    expected: int,
    tiny_yaml: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # and restored: --device cpu sets it
    found = gpus if device != "cpu" else 0
    monkeypatch.setattr(torch.cuda, "is_available", lambda: found > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: found)
    monkeypatch.setattr("tagspeech.llm.place.usable_device", torch.device)
    launched: list[int] = []

    def launch(processes: int, *_: object) -> None:
        launched.append(processes)
        raise _Launched

    monkeypatch.setattr(parallel, "launch", launch)
    words = [verb, "--config", tiny_yaml, "--model", tmp_path, "--output", tmp_path / "out"]
    words += ["--groups", "x"] if verb == "decode" else ["--manifests", "x"]
    with pytest.raises(_Launched):
        main([*map(str, words), "--jobs", "3", "--device", device])
    assert launched == [expected]


def _note_gpu(folder: Path) -> None:
    """Writes the device of this process on a machine whose GPUs are stand-ins."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: True)
        patch.setattr("tagspeech.llm.place.usable_device", torch.device)
        (folder / str(parallel.rank())).write_text(str(find_device("auto")))
    parallel.gather(None)


def test_each_process_takes_the_gpu_of_its_number(tmp_path: Path) -> None:
    parallel.launch(2, _note_gpu, tmp_path)
    assert [path.read_text() for path in sorted(tmp_path.iterdir())] == ["cuda:0", "cuda:1"]


def stored_frames(folder: Path) -> dict[str, bytes]:
    """Arrays and manifests of stage 5, without the folder's name."""
    held = {path.name: path.read_bytes() for path in folder.rglob("*.npy")}
    for path in folder.glob("*.jsonl.gz"):
        held[path.name] = gzip.decompress(path.read_bytes()).replace(str(folder).encode(), b"")
    return held


def test_killed_embedding_continues_in_two_processes_to_the_same(
    tiny_base: Path, tiny_groups: Path, tiny_yaml: Path, tmp_path: Path
) -> None:
    words = ["--config", tiny_yaml, "--groups", tiny_groups, "--init-from", tiny_base / "model"]
    words += ["--output", tmp_path / "two"]
    kill_when(begin("embed", *words, jobs=2), tmp_path / "two", "train.*.part.jsonl", 2)
    finish(begin("embed", *words, jobs=2))
    assert stored_frames(tmp_path / "two") == stored_frames(tiny_base / "embeddings")


def test_killed_training_of_two_processes_continues_to_the_same(
    tiny_base: Path, tiny_yaml: Path, tmp_path: Path
) -> None:
    words = ["--config", tiny_yaml, "--groups", tiny_base / "embeddings", "--processes", 2]
    words += ["--init-from", tiny_base / "model", "--device", "cpu", "--threads", 1]
    for setting in ("max_steps=12", "checkpoint_every=2", "valid_every=12", "max_duration=15"):
        words += ["--set", f"train.{setting}"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    train = [sys.executable, "-m", "tagspeech", "train", "tagspeech", *map(str, words)]

    def start(output: Path) -> subprocess.Popen[str]:
        command = [*train, "--output", str(output)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(command, **pipes, text=True, start_new_session=True)

    finish(start(whole))
    kill_when(start(killed), killed, "checkpoints.json", 1)
    assert not (killed / "pretrained").exists()
    process = start(killed)
    said = process.communicate(timeout=300)[1]
    assert process.returncode == 0, said
    assert "resuming after step" in said
    weights = "pretrained/model.safetensors"
    assert (killed / weights).read_bytes() == (whole / weights).read_bytes()
