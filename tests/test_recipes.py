"""Recipes of published corpora on replicas: stages 0 to 2, and what is said of a broken corpus."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import soundfile
from lhotse import RecordingSet

from tagspeech.data.batches import read_groups

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
ROOM = DF.replace("1000000", "1000000000")  # on any machine


def run(command: Path, *options: object, code: int = 0, **environment: str) -> str:
    """Runs a script of the repository, gives what it says."""
    here = str(Path(sys.executable).parent)
    path = os.pathsep.join([environment.pop("before", here), here, os.environ["PATH"]])
    done = subprocess.run(
        [command, *map(str, options)],
        env={**os.environ, **environment, "PATH": path},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == code, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def drive(root: Path, recipe: str, folder: Path, *options: object, **more: Any) -> str:
    """Stages 0 to 2 by the stage driver."""
    places = ("--data", folder / "data", "--exp", folder / "exp")
    command = root / "egs" / recipe / "run.sh"
    return run(command, "--install", "false", "--stop-stage", 2, *places, *options, **more)


def channels(folder: Path) -> set[int]:
    """The numbers of channels of the groups that stage 2 has made, of all splits."""
    files = [folder / "data" / "groups" / f"{split}.jsonl.gz" for split in SPLITS]
    return {cut.num_channels for file in files for cut in read_groups(file)}


def read_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def programs(folder: Path, **texts: str) -> str:
    """A folder of programs that come before all others."""
    folder.mkdir()
    for name, text in texts.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return str(folder)


def test_ami_from_a_folder(root: Path, tmp_path: Path, replicas: Path) -> None:
    options = ("--corpus-dir", replicas / "ami", "--mic", "mdm")
    said = drive(root, "ami", tmp_path, *options, "--max-rejected", 0.0001, code=2)
    assert re.search(
        r"stage 2 \(utterance groups\) failed: .* of the speech is rejected, more", said
    )
    said = drive(root, "ami", tmp_path, *options)
    assert said.count("done already") == 2
    assert "stage 2: utterance groups (begin: " in said
    assert drive(root, "ami", tmp_path, *options).count("done already") == 3
    assert channels(tmp_path) == {8}
    assert "its audio ends before its manifest" in (tmp_path / "data/rejected.jsonl").read_text()


def test_ami_downloaded(root: Path, tmp_path: Path, replicas: Path) -> None:
    """With the annotations as an archive, as they are published."""
    corpus, annotations = tmp_path / "published", "ami_public_manual_1.6.2"
    shutil.copytree(replicas / "ami" / "wav_db", corpus / "wav_db")
    shutil.make_archive(str(corpus / annotations), "zip", replicas / "ami" / annotations)
    calls = {"REPLICA": str(corpus), "CALLS": str(tmp_path / "calls")}
    real = {"REAL": str(Path(sys.executable).parent / "lhotse")}
    before = programs(tmp_path / "bin", lhotse=LHOTSE, df=ROOM)
    said = drive(root, "ami", tmp_path, "--mic", "ihm-mix", before=before, **calls, **real)
    place = tmp_path / "data" / "corpus" / "ami"
    assert f"the corpus needs about 12 GB in {place}: 0 GB are there, " in said
    assert (tmp_path / "calls").read_text() == f"download ami --mic ihm-mix {place}\n"
    assert channels(tmp_path) == {1}


@pytest.mark.parametrize("recipe", ["ami", "alimeeting"])
def test_what_is_wrong_with_a_corpus_is_said(
    root: Path, tmp_path: Path, replicas: Path, recipe: str
) -> None:
    stage = (root / "egs" / recipe / "local/data.sh", "--data", tmp_path / "data", "--stage", 0)
    said = run(*stage, "--mic", "ihm", code=2)
    assert "--mic must be sdm" in said
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


def test_musan_is_downloaded_or_named(root: Path, tmp_path: Path, replicas: Path) -> None:
    published = tmp_path / "published"
    for part in ("music", "speech", "noise"):
        (published / "musan" / part).mkdir(parents=True)
        soundfile.write(published / "musan" / part / f"{part}-0001.wav", np.zeros(1600), 16000)
    (published / "musan/music/ANNOTATIONS").write_text("music-0001 rock Y somebody\n")
    calls = {"REPLICA": str(published), "CALLS": str(tmp_path / "calls")}
    real = {"REAL": str(Path(sys.executable).parent / "lhotse")}
    before = programs(tmp_path / "bin", lhotse=LHOTSE, df=ROOM)
    data = ("--data", tmp_path / "data", "--corpus-dir", replicas / "ami")
    stages = root / "egs/ami/local/data.sh"
    run(stages, *data, "--stage", 0, "--musan", "download", before=before, **calls, **real)
    assert (tmp_path / "calls").read_text() == f"download musan {tmp_path / 'data/corpus'}\n"
    run(stages, *data, "--stage", 1, before=before, **calls, **real)
    noise = RecordingSet.from_file(tmp_path / "data/manifests/musan_recordings_noise.jsonl.gz")
    assert [one.id for one in noise] == ["noise-0001"]
    said = run(stages, *data, "--stage", 0, "--musan", published, code=2)
    assert (
        f"{published}: has no folder music; --musan names MUSAN's folder, or says download" in said
    )


def test_a_meeting_of_alimeeting_without_audio_is_named(
    root: Path, tmp_path: Path, replicas: Path
) -> None:
    corpus = Path(shutil.copytree(replicas / "alimeeting", tmp_path / "corpus"))
    audio = corpus / "Eval_Ali/Eval_Ali_far/audio_dir/R8003_M8001_MS010.wav"
    audio.rename(audio.with_name("other.wav"))
    stage = ("--stage", 0, "--data", tmp_path / "data", "--corpus-dir", corpus)
    said = run(root / "egs/alimeeting/local/data.sh", *stage, code=1)
    assert "R8003_M8001.TextGrid: has no audio, R8003_M8001*.wav" in said


def stages(root: Path, recipe: str, folder: Path, corpus: Path) -> str:
    """Stages 0 and 1 of a recipe, gives what they say."""
    script = root / "egs" / recipe / "local/data.sh"
    places = ("--data", folder / "data", "--corpus-dir", corpus)
    return "".join(run(script, *places, "--stage", stage) for stage in (0, 1))


PREPARED = {"ami": 11, "alimeeting": 10}  # a TextGrid of the replica is invalid to Lhotse
HIDDEN = b"\0\5\26\7\0\2\0\0Mac OS X        "  # macOS writes such a file beside every other


@pytest.mark.parametrize("packed", [False, True])
def test_of_a_stereo_file_of_ami_the_first_channel_is_taken(
    root: Path, tmp_path: Path, replicas: Path, packed: bool
) -> None:
    """Lhotse would leave out the whole meeting."""
    corpus = Path(shutil.copytree(replicas / "ami", tmp_path / "ami"))
    audio = corpus / "wav_db/ES2002a/audio/ES2002a.Array1-01.wav"
    samples, rate = soundfile.read(audio, dtype="int16")
    soundfile.write(audio, np.stack([samples, np.zeros_like(samples)], axis=1), rate)
    annotations = corpus / "ami_public_manual_1.6.2"
    if packed:
        shutil.make_archive(str(annotations), "zip", annotations)
        shutil.rmtree(annotations)
    before = set(corpus.iterdir())
    said = stages(root, "ami", tmp_path, corpus)
    assert f"{audio}: has 2 channels: the first of them is taken" in said
    (recording,) = [
        one
        for one in RecordingSet.from_file(tmp_path / "data/manifests/train_recordings.jsonl.gz")
        if one.id == "ES2002a"
    ]
    assert np.array_equal(np.round(recording.load_audio() * 2**15), samples[None])
    rows = read_rows(tmp_path / "data/manifests/left_out.jsonl")
    assert "ES2002a" not in {row["recording_id"] for row in rows}
    assert set(corpus.iterdir()) == before  # a user's folder stays as it is


@pytest.mark.parametrize("recipe", ["ami", "alimeeting"])
def test_files_of_macos_in_a_corpus_are_skipped_with_a_line(
    root: Path, tmp_path: Path, replicas: Path, recipe: str
) -> None:
    corpus = Path(shutil.copytree(replicas / recipe, tmp_path / "corpus"))
    for path in list(corpus.rglob("*")):
        if path.is_file():
            path.with_name(f"._{path.name}").write_bytes(HIDDEN)
    said = stages(root, recipe, tmp_path, corpus)
    found = re.search(
        r"(.*)/corpus: (\d+) files named \._\* are skipped, which macOS writes \(", said
    )
    assert found
    assert int(found[2]) >= 22  # annotations and audio of each meeting
    assert "._" not in (tmp_path / "data/corpus/files.txt").read_text()
    assert said.count("Traceback") == 0
    files = [tmp_path / f"data/manifests/{split}_recordings.jsonl.gz" for split in SPLITS]
    assert sum(len(RecordingSet.from_file(file)) for file in files) == PREPARED[recipe]


def test_marks_in_alimeeting_are_no_words(root: Path, tmp_path: Path, replicas: Path) -> None:
    corpus = Path(shutil.copytree(replicas / "alimeeting", tmp_path / "corpus"))
    (path,) = corpus.rglob("R8002_M8002.TextGrid")
    text = path.read_text()
    labels = [label for label in re.findall('text = "(.*)"', text) if label]
    marked = [f"<sil>{labels[0]}<%>{labels[0]}<$>", "<sil>", "<%>"]
    for old, new in zip(labels, marked, strict=False):
        text = text.replace(f'text = "{old}"', f'text = "{new}"', 1)
    path.write_text(text)
    drive(root, "alimeeting", tmp_path, "--corpus-dir", corpus)
    groups = read_groups(tmp_path / "data/groups/test.jsonl.gz")
    texts = [one.text for cut in groups for one in cut.supervisions if "R8002" in cut.id]
    wanted = [2 * labels[0], "", *labels[3:]]  # somebody laughs or coughs at <%>; <sil> is silence
    assert sorted(texts) == sorted(wanted)
    rows = [row for row in read_rows(tmp_path / "data/rejected.jsonl") if row["split"] == "test"]
    assert [(row["reason"], row["seconds"]) for row in rows] == [("it has no words", 0.0)]


@pytest.mark.parametrize("packed", [False, True])
def test_a_speaker_of_ami_without_words_is_named(
    root: Path, tmp_path: Path, replicas: Path, packed: bool
) -> None:
    """Lhotse ends in a bare KeyError; a speaker that meetings.xml lacks is none to it."""
    corpus = Path(shutil.copytree(replicas / "ami", tmp_path / "ami"))
    annotations = corpus / "ami_public_manual_1.6.2"
    (annotations / "words/ES2002a.B.words.xml").unlink()
    segments = annotations / "segments/ES2002a.B.segments.xml"
    shutil.copy(segments, segments.with_name("ES2002a.0.segments.xml"))
    if packed:
        shutil.make_archive(str(annotations), "zip", annotations)
        shutil.rmtree(annotations)
    stage = (root / "egs/ami/local/data.sh", "--data", tmp_path / "data", "--corpus-dir", corpus)
    said = run(*stage, "--stage", 0, code=1)
    place = f"{annotations}{'.zip' if packed else ''}"
    assert f"{place}: meeting ES2002a has segments/ES2002a.B.segments.xml" in said
    assert "and no words/ES2002a.B.words.xml; get it again" in said
    assert "Traceback" not in said


def test_words_that_lhotse_leaves_out_of_ami_are_listed(
    root: Path, tmp_path: Path, replicas: Path
) -> None:
    """Faults that the replica lacks: words without times, without duration, outside segments, at
    the time of another word; words that end before they start, which lose no time."""
    corpus = Path(shutil.copytree(replicas / "ami", tmp_path / "ami"))
    shutil.rmtree(corpus / "wav_db/ES2002b")
    annotations = corpus / "ami_public_manual_1.6.2"

    def spoil(agent: str, kind: str) -> tuple[ElementTree.ElementTree, Path, ElementTree.Element]:
        path = annotations / kind / f"ES2002a.{agent}.{kind}.xml"
        tree = ElementTree.parse(path)
        return tree, path, tree.getroot()[0]

    tree, path, word = spoil("A", "words")
    timeless = word.text
    del word.attrib["starttime"], word.attrib["endtime"]
    tree.write(path)
    tree, path, word = spoil("B", "words")
    instant = word.text
    word.set("endtime", word.get("starttime", ""))
    other = tree.getroot()[2]
    twin = other.text
    other.set("starttime", tree.getroot()[1].get("starttime", ""))
    other.set("endtime", other.get("starttime", ""))
    tree.write(path)
    tree, path, word = spoil("D", "words")
    backward = word.text
    word.set("endtime", f"{float(word.get('starttime', '')) - 0.5:.3f}")
    tree.write(path)
    tree, path, segment = spoil("C", "segments")
    start, end = (float(segment.get(f"transcriber_{side}", "")) for side in ("start", "end"))
    tree.getroot().remove(segment)
    tree.write(path)
    words = ElementTree.parse(annotations / "words/ES2002a.C.words.xml").getroot()
    inside = [one for one in words if start <= float(one.get("starttime", "")) < end]

    for stage in (0, 1):
        stages = ("--data", tmp_path / "data", "--stage", stage, "--corpus-dir", corpus)
        run(root / "egs/ami/local/data.sh", *stages)
    rows = read_rows(tmp_path / "data/manifests/left_out.jsonl")
    own = [row for row in rows if row["recording_id"] == "ES2002a"]
    outside = " ".join(one.text or "" for one in inside if not one.get("punc"))
    assert {(row["reason"], row["text"], row["seconds"] > 0) for row in own} == {
        ("it ends before it starts", backward, False),
        ("it has no times", timeless, False),
        ("it has zero duration", instant, False),
        ("it has zero duration", twin, False),
        ("no segment holds it", outside, True),
    }
    assert len(own) == 5
    assert min(row["seconds"] for row in rows) == 0
    missing = [row for row in rows if row["reason"] == "its meeting has no audio"]
    assert {row["recording_id"] for row in missing} == {"ES2002b"}
    assert sum(row["seconds"] for row in missing) > 5
