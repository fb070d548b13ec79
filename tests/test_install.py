"""utils/install.sh finds an NVIDIA driver, or is told; pip and nvidia-smi are stand-ins."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

# Makes an environment whose Python answers what the script asks, and writes down what pip installs.
PYTHON = r"""#!/usr/bin/env bash
case "$*" in
  "-m venv "*)
    mkdir -p "$3/bin"
    cp "$0" "$3/bin/python"
    ;;
  "-m pip --version") ;;
  "-m pip install "*)
    echo "$*" >>"$CALLS"
    [[ $* != *requirements-gpu.txt* ]] || echo 13.0 >.venv/cuda
    ;;
  *print*%d*) echo 3.12 ;;
  "-") { cat; echo; } | if grep -q runpy; then cat .venv/cuda 2>/dev/null || echo None; fi ;;
  "- "*) sed -n "s/^$2\(\[.*\]\)\{0,1\}==\([^; ]*\).*/\2/p" requirements.txt ;;
esac
"""
SMI = "#!/bin/sh\necho 570.86.10\n"
TOOLS = (
    *("bash", "sh", "env", "dirname", "cat", "grep", "sed", "awk", "date", "mkdir", "cp", "mv"),
    "rm",
)


class Machine:
    """A copy of what utils/install.sh reads, and the programs of its machine."""

    def __init__(self, folder: Path, root: Path) -> None:
        self.folder, self.calls = folder, folder / "calls"
        self.bin = folder / "bin"
        self.bin.mkdir(parents=True)
        shutil.copytree(root / "utils", folder / "utils")
        for path in [root / "pyproject.toml", *root.glob("requirements*.txt")]:
            shutil.copy2(path, folder)
        for name in TOOLS:
            (self.bin / name).symlink_to(str(shutil.which(name)))
        self.add("python3", PYTHON)

    def add(self, name: str, text: str) -> None:
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def install(self, *options: str, code: int = 0) -> str:
        """What the script says; `calls` then has what pip installed."""
        self.calls.write_text("")
        done = subprocess.run(
            [self.folder / "utils/install.sh", *options],
            env={
                "PATH": str(self.bin),
                "CALLS": str(self.calls),
                "HOME": os.environ.get("HOME", "/"),
                "TAGSPEECH_DRIVER_FILE": str(self.folder / "version"),
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stderr
        return done.stderr

    def takes_cuda(self) -> bool:
        calls = self.calls.read_text()
        assert "torch==" in calls or "requirements-gpu.txt" in calls, calls
        return "requirements-gpu.txt" in calls


@pytest.fixture
def machine(tmp_path: Path, root: Path) -> Machine:
    return Machine(tmp_path / "machine", root)


def without_torch(machine: Machine) -> None:
    """pip has to install torch, since none is there."""
    text = PYTHON.replace('"- "*)', '"- torch") ;;\n  "- "*)')
    machine.add("python3", text)


def test_a_driver_takes_the_cuda_build_and_is_said(machine: Machine) -> None:
    machine.add("nvidia-smi", SMI)
    without_torch(machine)
    said = machine.install()
    assert "found NVIDIA driver 570.86.10: torch for CUDA" in said
    assert machine.takes_cuda()


def test_the_kernel_module_is_a_driver_too(machine: Machine) -> None:
    version = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.54.03  Tue Jun 6 22:20:39 2023\n"
    (machine.folder / "version").write_text(version)
    without_torch(machine)
    assert "found NVIDIA driver 535.54.03: torch for CUDA" in machine.install()
    assert machine.takes_cuda()


def test_no_driver_takes_the_cpu_build_and_is_said(machine: Machine) -> None:
    without_torch(machine)
    said = machine.install()
    assert "found no NVIDIA driver" in said
    assert "--cuda true takes the CUDA build" in said
    assert not machine.takes_cuda()


def test_the_option_decides_otherwise(machine: Machine) -> None:
    machine.add("nvidia-smi", SMI)
    without_torch(machine)
    assert "found NVIDIA driver" not in machine.install("--cuda", "false")
    assert not machine.takes_cuda()
    said = machine.install()  # the environment stays what it was asked to be
    assert "but .venv has torch for the CPU" in said
    assert machine.calls.read_text() == ""
    machine.install("--cuda", "auto")
    assert machine.takes_cuda()
    assert "must be true, false or auto, not 'yes'" in machine.install("--cuda", "yes", code=2)
