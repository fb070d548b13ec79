"""What requirements.txt must bring along, and what utils/install.sh reads in it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from tagspeech import formats
from tagspeech.segments import Segment


def test_meetevals_own_command_runs(tmp_path: Path) -> None:
    """Its programs need packages that meeteval[cli] names, to read and write JSON."""
    for side, words in (("ref", "one two"), ("hyp", "one too")):
        formats.write([Segment("s", "A", 0, 1, words)], tmp_path / f"{side}.seglst.json")
    files = ("-r", "ref.seglst.json", "-h", "hyp.seglst.json", "--average-out", "average.json")
    command = Path(sys.executable).with_name("meeteval-wer")
    subprocess.run([command, "cpwer", *files], cwd=tmp_path, check=True, capture_output=True)
    average = json.loads((tmp_path / "average.json").read_text(encoding="utf-8"))
    assert average["error_rate"] == 0.5


@pytest.mark.parametrize("name", ["meeteval", "spy-der", "torch"])
def test_install_finds_the_pinned_version(root: Path, name: str) -> None:
    """It compares it with what is installed: an empty answer would never be equal."""
    script = (root / "utils/install.sh").read_text(encoding="utf-8")
    function = re.search(r"^pinned\(\) \{\n.*?^\}", script, re.M | re.S)
    assert function is not None
    call = ["bash", "-c", f'{function[0]}\npinned "$1"', "bash", name]
    found = subprocess.run(call, cwd=root, check=True, capture_output=True, text=True).stdout
    assert found.strip() == metadata.version(name).partition("+")[0]
