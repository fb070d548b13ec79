"""A very short campaign: the programs work, and find nothing."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

NOTHING = (
    r"0 differences, 0 failures, 0 leftovers, 0 tracebacks, 0 hangs, 0 outside, 0 executed; "
    r"peak \d\.\d GB; \d+\.\d minutes, seed 7\n"
)


def campaign(root: Path, output: Path, *words: str) -> str:
    command = [sys.executable, str(root / "benchmarks/campaign.py"), "--seed", "7"]
    said = subprocess.run(
        [*command, "--output", str(output), *words], capture_output=True, text=True, check=False
    )
    assert said.returncode == 0, said.stdout + said.stderr
    return said.stdout


def test_damaged_inputs(root: Path, tmp_path: Path) -> None:
    said = campaign(root, tmp_path / "campaign", "--minutes", "0.1", "--parts", "inputs")
    match = re.fullmatch(r"campaign: 0 kills, 0 runs, (\d+) inputs, " + NOTHING, said)
    assert match, said
    assert int(match[1]) > 0
    summary = json.loads((tmp_path / "campaign/inputs/summary.json").read_text())
    assert summary["inputs"] == int(match[1])


def test_kills_of_the_first_stage(root: Path, tmp_path: Path) -> None:
    words = ("--minutes", "0.1", "--parts", "kills", "--stop-stage", "0")
    said = campaign(root, tmp_path / "campaign", *words)
    assert re.fullmatch(r"campaign: \d+ kills, \d+ runs, 0 inputs, " + NOTHING, said), said


def test_what_is_found_is_told(root: Path, tmp_path: Path) -> None:
    """A target that fails: the input and the traceback are kept, and the exit code says so."""
    program = (
        "import sys; sys.path.insert(0, sys.argv.pop(1))\n"
        "import campaign_inputs, campaign_targets\n"
        "target = campaign_targets.Target('fails', [{'x': b'1'}], lambda box: 1 / 0)\n"
        "campaign_inputs.make_targets = lambda folder: [target]\n"
        "sys.exit(campaign_inputs.main())\n"
    )
    command = [sys.executable, "-c", program, str(root / "benchmarks"), "--minutes", "0.001"]
    said = subprocess.run(
        [*command, "--output", str(tmp_path / "out")], capture_output=True, text=True, check=True
    )
    assert "tracebacks of fails: ZeroDivisionError: division by zero" in said.stderr
    assert "ZeroDivisionError" in (tmp_path / "out/found/0.txt").read_text()
    assert (tmp_path / "out/found/0-x").exists()
    assert json.loads((tmp_path / "out/summary.json").read_text())["tracebacks"] >= 1
