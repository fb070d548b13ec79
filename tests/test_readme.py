"""The blocks in `bash` and `python` of README.md and docs/*.md run as written after ./run.sh."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tagspeech.config import DecodeConfig


@pytest.fixture
def house(root: Path, tmp_path: Path, tiny_groups: Path, tiny_model_folder: Path) -> Path:
    """The repository as ./run.sh leaves it, with a tiny random model."""
    from tagspeech.inference.decode import decode
    from tagspeech.scoring import score_files

    files = subprocess.check_output(["git", "ls-files"], cwd=root, text=True).split("\n")
    for name in filter(None, files):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / name, tmp_path / name)
    mini = tmp_path / "egs/mini"
    shutil.copytree(tiny_groups, mini / "data/groups")
    shutil.copytree(tiny_model_folder, mini / "exp/tagspeech/pretrained")
    decode(
        tiny_model_folder,
        tiny_groups / "test.jsonl.gz",
        mini / "exp/tagspeech/greedy",
        DecodeConfig(max_new_tokens=20),
    )
    greedy = mini / "exp/tagspeech/greedy"
    sides = (greedy / f"test.{side}.seglst.json" for side in ("ref", "hyp"))
    score_files(*sides, greedy / "test.raw.jsonl", output=greedy / "scores.json")
    meeting = mini / "data/corpus/meetings/sim-meetings-00001.wav"
    meeting.parent.mkdir(parents=True)
    soundfile.write(meeting, np.random.default_rng(1).normal(0, 0.1, 90 * 8000), 8000)
    return tmp_path


def blocks_of(page: Path) -> list[tuple[str, str]]:
    return re.findall(r"^```(bash|python)\n(.*?)^```", page.read_text(), re.M | re.S)


def run_block(kind: str, text: str, house: Path) -> None:
    """Runs a block in the root of `house`."""
    environment = {**os.environ, "PYTHONPATH": str(house)}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    command = ["bash", "-euo", "pipefail", "-c"] if kind == "bash" else [sys.executable, "-c"]
    done = subprocess.run(
        [*command, text], cwd=house, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"


def test_blocks_run_as_written(root: Path, house: Path) -> None:
    readme = blocks_of(root / "README.md")
    assert [kind for kind, _ in readme].count("python") >= 1
    assert [kind for kind, _ in readme].count("bash") >= 2
    for page in (root / "README.md", *sorted(root.glob("docs/*.md"))):
        for kind, text in blocks_of(page):
            run_block(kind, text, house)
    for name in ("group.seglst.json", "group.rttm"):
        assert (house / "egs/mini/exp/transcripts" / name).exists()


def test_quick_inference_runs_on_a_published_checkpoint(
    root: Path, house: Path, shared: Path
) -> None:
    """The same block with a model in the released layout in place of that of the recipe."""
    checkpoint = shared / "golden/checkpoint"
    if not checkpoint.is_dir():
        pytest.skip(f"{checkpoint} is absent")
    pretrained = house / "egs/mini/exp/tagspeech/pretrained"
    shutil.rmtree(pretrained)
    shutil.copytree(checkpoint, pretrained)
    kind, text = next(
        block for block in blocks_of(root / "README.md") if "from_pretrained" in block[1]
    )
    run_block(kind, text, house)
