"""Whole meetings: decoded, linked, scored; killed and gone on; speakers found by their voices."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from lhotse import AudioSource, RecordingSet, SupervisionSet, load_manifest

from tagspeech.formats import read


def start(model: Path, manifests: Path, config: Path, output: Path) -> subprocess.Popen[str]:
    options = {
        "config": config,
        "model": model,
        "manifests": manifests,
        "max-pause": 1.0,
        "output": output,
    }
    words = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
    return subprocess.Popen(
        [sys.executable, "-m", "tagspeech", "meetings", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def stage(
    tiny_model_folder: Path,
    tiny_groups: Path,
    tiny_yaml: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, str]:
    """The folder and what was printed."""
    output = tmp_path_factory.mktemp("stage") / "meetings"
    process = start(tiny_model_folder, tiny_groups.parent / "corpus/test", tiny_yaml, output)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return output, out


def test_three_rows_are_scored(stage: tuple[Path, str]) -> None:
    output, printed = stage
    results = json.loads((output / "results.json").read_text())
    assert list(results) == ["groups", "linked", "whole", "computed_on"]
    assert results["computed_on"] == ["cpu in float32"]
    assert results["groups"]["sessions"] == 10
    assert results["linked"]["sessions"] == results["whole"]["sessions"] == 1
    assert results["groups"]["wer"] is not None
    for words in ("oracle groups, linked", "whole meetings", "tcpWER", "DER, collar 0.25 s"):
        assert words in printed
    words = [
        " ".join(s.words for s in read(output / f"ref{x}.seglst.json")) for x in ("", "-groups")
    ]
    assert sorted(words[0].split()) == sorted(words[1].split())
    by_name = {one.words: one for one in read(output / "ref.seglst.json")}
    last = read(output / "ref-groups.seglst.json")[-1]
    begins = int(last.session.split("-")[-2]) / 100  # a group's name says where it begins
    assert by_name[last.words].start == pytest.approx(begins + last.start, abs=0.02)


@pytest.mark.parametrize("channels", [[1], [0, 1]])
def test_the_channels_of_the_groups_are_heard_as_far_as_all_go(
    stage: tuple[Path, str],
    tiny_model_folder: Path,
    tiny_groups: Path,
    tiny_yaml: Path,
    tmp_path: Path,
    channels: list[int],
) -> None:
    """A file for each channel: the recording itself where a group has it, otherwise noise."""
    (one,) = load_manifest(tiny_groups.parent / "corpus/test_recordings.jsonl.gz")
    said = load_manifest(tiny_groups.parent / "corpus/test_supervisions.jsonl.gz")
    speech = soundfile.read(one.sources[0].source, dtype="int16")[0]
    noise = np.random.default_rng(1).integers(-9999, 9999, len(speech) + 32000, dtype=np.int16)
    for channel in (0, 1):
        samples = speech if channel in channels else noise
        soundfile.write(tmp_path / f"{channel}.wav", samples, one.sampling_rate)
    array = replace(
        one,
        sources=[AudioSource("file", [n], str(tmp_path / f"{n}.wav")) for n in (0, 1)],
        channel_ids=[0, 1],
        num_samples=len(noise),
        duration=len(noise) / one.sampling_rate,
    )
    RecordingSet.from_recordings([array]).to_file(tmp_path / "test_recordings.jsonl.gz")
    chosen = channels[0] if len(channels) == 1 else channels
    SupervisionSet.from_segments([replace(s, channel=chosen) for s in said]).to_file(
        tmp_path / "test_supervisions.jsonl.gz"
    )
    process = start(tiny_model_folder, tmp_path / "test", tiny_yaml, tmp_path / "out")
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    for name in ("hyp", "hyp-linked", "hyp-groups", "ref"):
        ours, theirs = (folder / f"{name}.seglst.json" for folder in (tmp_path / "out", stage[0]))
        assert ours.read_bytes() == theirs.read_bytes(), name


def test_killed_gives_the_same_bytes(
    stage: tuple[Path, str],
    tiny_model_folder: Path,
    tiny_groups: Path,
    tiny_yaml: Path,
    tmp_path: Path,
) -> None:
    output = tmp_path / "meetings"
    process = start(tiny_model_folder, tiny_groups.parent / "corpus/test", tiny_yaml, output)
    deadline = time.monotonic() + 120
    while not any(path.stat().st_size for path in output.glob("heard/*.jsonl")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert not (output / "results.json").exists()
    process = start(tiny_model_folder, tiny_groups.parent / "corpus/test", tiny_yaml, output)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    for path in sorted(stage[0].glob("*.json*")):
        if "rejected" not in path.name:
            assert (output / path.name).read_bytes() == path.read_bytes(), path.name


def test_run_sh_has_stage_10(root: Path) -> None:
    bash = shutil.which("bash")
    assert bash
    done = subprocess.run(
        [bash, root / "run.sh", "--install", "false", "--stop-stage", "11"],
        capture_output=True,
        text=True,
        env=os.environ,
    )
    assert done.returncode == 2
    assert "--stop-stage must be a number from 0 to 10" in done.stderr
