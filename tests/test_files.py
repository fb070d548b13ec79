"""Files that appear whole: what a killed process leaves behind goes with the next start."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tagspeech.files import atomic_path, write_text

WRITER = """
import sys, time
from pathlib import Path
from tagspeech.files import atomic_path

with atomic_path(Path(sys.argv[1])) as temporary:
    if sys.argv[2] == "folder":
        (temporary / "llm").mkdir(parents=True)
        temporary = temporary / "llm/model.safetensors"
    temporary.write_bytes(b"half")
    print("begun", flush=True)
    time.sleep(60)
"""


def begin(path: Path, kind: str = "file") -> subprocess.Popen[str]:
    """A process that is at work on `path`."""
    command = [sys.executable, "-c", WRITER, str(path), kind]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    return process


def start(path: Path) -> None:
    """A new process writes `path`."""
    code = "import sys; from tagspeech.files import write_text; write_text(sys.argv[1], 'whole')"
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_the_next_start_removes_what_a_killed_one_left(tmp_path: Path, kind: str) -> None:
    process = begin(tmp_path / "model", kind)
    process.kill()
    process.wait()
    (left,) = names(tmp_path)
    assert left.startswith(f".model.partial-{process.pid}")
    start(tmp_path / "another.json")  # of another name: whatever lies in this folder
    assert names(tmp_path) == ["another.json"]


def test_what_a_live_process_writes_stays(tmp_path: Path) -> None:
    process = begin(tmp_path / "model")
    start(tmp_path / "another.json")
    assert len(names(tmp_path)) == 2
    process.kill()
    process.wait()


def test_another_machine_may_be_at_work_in_a_shared_folder(tmp_path: Path) -> None:
    process = begin(tmp_path / "model")
    process.kill()
    process.wait()
    (left,) = tmp_path.iterdir()
    pid, host = left.name.rpartition("-")[0], left.name.rpartition("-")[2]
    theirs = left.rename(left.with_name(f"{pid}-{int(host, 16) ^ 1:08x}"))
    start(tmp_path / "another.json")
    assert theirs.exists()
    long_ago = time.time() - 3 * 86400
    os.utime(theirs, (long_ago, long_ago))
    start(tmp_path / "another.json")
    assert names(tmp_path) == ["another.json"]


def test_files_of_users_are_not_taken_for_leftovers(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    kept = [".bashrc", f"model.partial-{process.pid}", f".model.partial-{process.pid}.bak"]
    for name in kept:
        (tmp_path / name).write_text("mine")
    (tmp_path / f".old.partial-{process.pid}").write_text("of an earlier version")
    start(tmp_path / "another.json")
    assert names(tmp_path) == sorted([*kept, "another.json"])


def test_leftover_of_the_same_process_number_is_no_obstacle(tmp_path: Path) -> None:
    """In a container every start may have the same number."""
    with atomic_path(tmp_path / "model") as temporary:
        temporary.write_text("whole")
    temporary.mkdir()
    write_text(tmp_path / "model", "whole again")
    assert names(tmp_path) == ["model"]
    assert (tmp_path / "model").read_text() == "whole again"
