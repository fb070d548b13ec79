"""The model for English that `tagspeech transcribe` takes where none is named."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tagspeech import default_model
from tagspeech.config import Config
from tagspeech.config_file import from_tree
from tagspeech.errors import InputError

MOST = 24e6  # bytes that it may take in the repository


def test_it_is_whole_small_and_for_english() -> None:
    folder = default_model.default_model()
    for line in (folder / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split(maxsplit=1)
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest, name
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < MOST
    tree = json.loads((folder / "config.json").read_text())
    assert tree["language"] == "en"
    for part in (*tree["parts"].values(), tree["llm"]):
        if part["name"]:
            assert part["name"].startswith("package:")
            assert re.fullmatch("[0-9a-f]{64}", part["sha256"])


def test_its_configuration_is_that_of_the_recipe(root: Path) -> None:
    from tagspeech.config_file import load_config

    tree = json.loads((default_model.FOLDER / "config.json").read_text())
    recipe = load_config(root / "egs/librispeech/conf/tagspeech.yaml")
    sections = {name: tree[name] for name in ("language", "semantic", "voice", "target")}
    config = from_tree(Config, sections, "config.json")
    for stream in ("semantic", "voice"):
        own, theirs = getattr(config, stream), getattr(recipe, stream)
        for name in ("encoder_config", "stack", "anchor_interval", "projector", "normalise"):
            assert getattr(own, name) == getattr(theirs, name), (stream, name)
    assert config.target.time_grid == recipe.target.time_grid


def test_a_package_without_the_repository_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(default_model, "FOLDER", tmp_path / "none")
    with pytest.raises(InputError, match="--model: must name a model"):
        default_model.default_model()


def test_it_writes_english_for_a_real_meeting(shared: Path, tmp_path: Path) -> None:
    """With the real packages: the words of the first seconds of an AMI meeting."""
    clip = shared / "data/ami_meetings/dev00.flac"
    if os.environ.get("TAGSPEECH_REAL_PARTS") != "1":
        pytest.skip("downloads 245 MB: TAGSPEECH_REAL_PARTS=1 runs it")
    if not clip.exists():
        pytest.skip(f"{clip} is absent: no recording of a meeting")
    command = ["transcribe", "--page", "--format", "seglst", "--output", tmp_path, clip]
    done = subprocess.run(
        [sys.executable, "-m", "tagspeech", *map(str, command)], capture_output=True, text=True
    )
    if "cannot download" in done.stderr:
        pytest.skip(f"the real packages cannot be had here: {done.stderr.splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    assert "for English" in done.stderr
    rows = json.loads((tmp_path / "dev00.seglst.json").read_text())
    words = {word for row in rows for word in row["words"].split()}
    assert {"because", "of", "action", "we", "group"} & words >= {"because", "of", "we"}
    assert len({row["speaker"] for row in rows}) >= 2
    assert (tmp_path / "dev00.html").exists()
