"""Experiments that share `--data` or `--encoders`: one at a time changes such a folder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from test_stage_driver import House, build, is_alive


@pytest.fixture
def house(tmp_path: Path, root: Path) -> House:
    """Nothing has run yet."""
    return build(tmp_path / "a house", root)


@pytest.fixture
def hanging(house: House) -> Iterator[Callable[..., tuple[subprocess.Popen[str], int]]]:
    """Starts a run whose verb waits, and gives the run and the process of the verb."""
    processes: list[int] = []

    def start(verb: str, pid_file: str, *args: str) -> tuple[subprocess.Popen[str], int]:
        run = house.start(*args, STAND_IN_HANG=verb)
        pid = int(house.wait_for(pid_file).read_text())
        processes.extend((run.pid, pid))
        return run, pid

    yield start
    for pid in processes:
        if is_alive(pid):
            os.kill(pid, signal.SIGKILL)


def test_second_experiment_waits_for_shared_encoders(house: House, hanging: Callable) -> None:
    shared = ("--encoders", "shared", "--stop-stage", "5")
    first, pid = hanging("train-semantic", "shared/semantic/pid", "--exp", "a", *shared)
    second = house.start("--exp", "b", *shared)
    time.sleep(2)
    assert second.poll() is None
    assert house.calls().count("train-semantic") == 1
    os.kill(pid, signal.SIGKILL)
    first.communicate(timeout=20)
    _, messages = second.communicate(timeout=60)
    assert second.returncode == 0, messages
    assert f"another run (process {first.pid}) is at work in shared: waiting for it" in messages
    assert "stage 3: semantic encoder (continue)" in messages


def test_first_experiment_reads_what_the_second_would_redo(house: House, hanging: Callable) -> None:
    """The second has other options for the shared encoders, and is refused while they are read."""
    first, _ = hanging("train-tagspeech", "a/tagspeech/pid", "--exp", "a", "--encoders", "shared")
    mark = house.folder / "shared/.stages/03-semantic-encoder.done"
    before = mark.read_bytes()
    same = ("--exp", "b", "--encoders", "shared", "--stop-stage", "5")
    assert house.run(*same).count("done already") == 6
    messages = house.run(*same, "--set", "semantic.train.x=9", code=1)
    assert messages.splitlines()[-1] == (
        "run.sh: error: stage 3 (semantic encoder) must be done (begin: configuration "
        "semantic.train.x changed), but another run uses shared: wait until it has ended, or name "
        "another folder"
    )
    assert mark.read_bytes() == before
    first.terminate()
    first.communicate(timeout=20)
    house.run(*same, "--set", "semantic.train.x=9")
    assert json.loads(mark.read_bytes())["config"]["semantic.train.x"] == "9"


def test_work_left_in_a_shared_folder_is_ended(house: House, hanging: Callable) -> None:
    first, pid = hanging("groups", "data/groups/pid", "--exp", "a", "--data", "data")
    first.kill()
    first.wait()
    messages = house.run("--exp", "b", "--data", "data", "--stop-stage", "2")
    assert f"process {first.pid} was killed and left its stage at work" in messages
    assert not is_alive(pid)
    assert "stage 2: utterance groups (continue)" in messages


def test_killed_on_another_machine(house: House, hanging: Callable) -> None:
    """A process number of another machine says nothing here: nothing is ended."""
    first, pid = hanging("train-semantic", "a/semantic/pid", "--exp", "a")
    (house.folder / "a/.stages/host").write_text("elsewhere\n")
    first.kill()
    first.wait()
    messages = house.run("--exp", "a", code=1)
    assert messages == (
        f"run.sh: error: another run (process {first.pid} on elsewhere) is at work in a\n"
    )
    assert is_alive(pid)


def test_two_experiments_begin_at_once(house: House) -> None:
    runs = [house.start("--exp", name, "--data", "data", "--encoders", "shared") for name in "abc"]
    for run in runs:
        _, messages = run.communicate(timeout=120)
        assert run.returncode == 0, messages
    verbs = house.calls()
    for verb in ("simulate", "groups", "train-semantic", "train-voice", "embed"):
        assert verbs.count(verb) == 1, verb
    assert verbs.count("train-tagspeech") == 3


def test_data_that_cannot_be_written_is_read(house: House) -> None:
    if os.geteuid() == 0:
        pytest.skip("root can write everywhere")
    house.run("--exp", "a", "--data", "data", "--stop-stage", "2")
    marks = house.folder / "data/.stages"
    marks.chmod(0o555)
    house.run("--exp", "b", "--data", "data", "--stop-stage", "3")
    marks.chmod(0o755)
