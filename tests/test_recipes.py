"""Recipes of published corpora on replicas: from the corpus to utterance groups."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tagspeech.data.batches import read_groups
from tagspeech.data.replicas import simulate_replica

SPLITS = ("train", "dev", "test")

# Stands in for Lhotse's download: puts the replica there. All else is Lhotse's own command.
LHOTSE = """#!/usr/bin/env bash
if [[ $1 == download ]]; then
  echo "$*" >"$CALLS"
  mkdir -p "${!#}"
  cp -R "$REPLICA"/* "${!#}"
else
  exec "$REAL" "$@"
fi
"""
DF = "#!/bin/sh\necho Filesystem\necho /dev/disk 9000000 8000000 1000000 80% /\n"  # 1 GB is free


@pytest.fixture(scope="module")
def replicas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("replicas")
    for layout in ("ami", "alimeeting"):
        simulate_replica(layout, folder / layout, minutes=0.2)
    return folder


def run(command: Path, *options: object, code: int = 0, **environment: str) -> str:
    """Runs a script of the repository, gives what it says."""
    here = str(Path(sys.executable).parent)
    path = os.pathsep.join([environment.pop("before", here), here, os.environ["PATH"]])
    done = subprocess.run(
        [command, *map(str, options)],
        env={**os.environ, **environment, "PATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == code, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def drive(root: Path, recipe: str, folder: Path, *options: object, **environment: str) -> str:
    """Stages 0 to 2 by the stage driver."""
    places = ("--data", folder / "data", "--exp", folder / "exp")
    command = root / "egs" / recipe / "run.sh"
    return run(command, "--install", "false", "--stop-stage", 2, *places, *options, **environment)


def channels(folder: Path) -> set[int]:
    """The numbers of channels of the groups that stage 2 has made, of all splits."""
    files = [folder / "data" / "groups" / f"{split}.jsonl.gz" for split in SPLITS]
    return {cut.num_channels for file in files for cut in read_groups(file)}


def programs(folder: Path, **texts: str) -> str:
    """A folder of programs that come before all others."""
    folder.mkdir()
    for name, text in texts.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return str(folder)


def test_ami_from_a_folder(root: Path, tmp_path: Path, replicas: Path) -> None:
    options = ("--corpus-dir", replicas / "ami", "--mic", "mdm")
    assert drive(root, "ami", tmp_path, *options).count("(begin: not done yet)") == 3
    assert drive(root, "ami", tmp_path, *options).count("done already") == 3
    assert channels(tmp_path) == {8}
    assert "its audio ends at" in (tmp_path / "data" / "rejected.jsonl").read_text()


def test_ami_downloaded(root: Path, tmp_path: Path, replicas: Path) -> None:
    """With the annotations as an archive, as they are published."""
    corpus, annotations = tmp_path / "published", "ami_public_manual_1.6.2"
    shutil.copytree(replicas / "ami" / "wav_db", corpus / "wav_db")
    shutil.make_archive(str(corpus / annotations), "zip", replicas / "ami" / annotations)
    calls = {"REPLICA": str(corpus), "CALLS": str(tmp_path / "calls")}
    real = {"REAL": str(Path(sys.executable).parent / "lhotse")}
    before = programs(tmp_path / "bin", lhotse=LHOTSE)
    said = drive(root, "ami", tmp_path, "--mic", "ihm-mix", before=before, **calls, **real)
    place = tmp_path / "data" / "corpus" / "ami"
    assert f"the corpus needs about 12 GB in {place}: 0 GB are there, " in said
    assert (tmp_path / "calls").read_text() == f"download ami --mic ihm-mix {place}\n"
    assert channels(tmp_path) == {1}


def test_alimeeting_from_a_folder(root: Path, tmp_path: Path, replicas: Path) -> None:
    pytest.importorskip("textgrid", reason="Lhotse reads AliMeeting with the package textgrid")
    said = drive(root, "alimeeting", tmp_path, "--corpus-dir", replicas / "alimeeting")
    assert re.findall("(R[0-9_M]+): left out by Lhotse", said) == ["R0010_M0085"]
    assert channels(tmp_path) == {1}


@pytest.mark.parametrize("recipe", ["ami", "alimeeting"])
def test_what_is_wrong_with_a_corpus_is_said(
    root: Path, tmp_path: Path, replicas: Path, recipe: str
) -> None:
    stage = (root / "egs" / recipe / "local/data.sh", "--data", tmp_path / "data", "--stage", 0)
    said = run(*stage, "--mic", "ihm", code=2)
    assert "--mic wants sdm" in said
    said = run(*stage, "--corpus-dir", tmp_path / "nowhere", code=2)
    assert f"{tmp_path / 'nowhere'}: no such folder; --corpus-dir" in said
    (tmp_path / "empty").mkdir()
    said = run(*stage, "--corpus-dir", tmp_path / "empty", code=1)
    assert "is it the corpus that README.md describes?" in said
    said = run(*stage, code=1, before=programs(tmp_path / "bin", df=DF))
    assert "0 GB are there, 1 GB are free" in said
    assert "GB more, 1 GB are free; make room" in said
    shutil.copytree(replicas / recipe, tmp_path / "broken")
    broken = sorted((tmp_path / "broken").rglob("*Array1-01.wav" if recipe == "ami" else "*.wav"))
    broken[-1].write_bytes(b"")
    said = run(*stage, "--corpus-dir", tmp_path / "broken", code=1)
    assert f"{broken[-1]}: is empty; get it again" in said
    assert not (tmp_path / "data" / "corpus" / "files.txt").exists()
