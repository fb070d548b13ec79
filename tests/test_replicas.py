"""Replicas of published corpora: Lhotse's preparers read them, and their faults do no harm."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from alimeeting import MEETINGS as ALIMEETING
from ami import MEETINGS as AMI
from lhotse import Recording, SupervisionSegment
from lhotse.recipes.ali_meeting import prepare_ali_meeting
from lhotse.recipes.ami import PARTITIONS, prepare_ami
from make import make_replica
from mandarin import BACKCHANNELS, GRAMMAR

from tagspeech.corpus.groups import group_segments, make_groups
from tagspeech.data.batches import read_groups
from tagspeech.errors import InputError
from tagspeech.formats.textgrid import parse
from tagspeech.simulation.espeak import Espeak
from tagspeech.simulation.sentences import draw_sentence, split_of

MINUTES = 0.3
SPLITS = ("train", "dev", "test")
AMI_MICS = ("sdm", "ihm-mix", "mdm")
ALIMEETING_MICS = ("far", "sdm", "mdm")


def of_fault(plans: Any, fault: str) -> str:
    """The meeting that has `fault`."""
    return next(plan.name for plan in plans if plan.fault == fault)


@pytest.fixture(scope="module")
def ami_replica(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("replica") / "ami"
    make_replica("ami", output, minutes=MINUTES)
    return output


@pytest.fixture(scope="module")
def alimeeting_replica(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("replica") / "alimeeting"
    make_replica("alimeeting", output, minutes=MINUTES)
    return output


@pytest.fixture(scope="module", params=[("ami", mic) for mic in AMI_MICS])
def ami_prepared(request: pytest.FixtureRequest, ami_replica: Path) -> tuple[str, Any]:
    mic = request.param[1]
    return mic, prepare_ami(ami_replica, mic=mic, partition="full-corpus-asr")


@pytest.fixture(scope="module", params=ALIMEETING_MICS)
def alimeeting_prepared(
    request: pytest.FixtureRequest, alimeeting_replica: Path
) -> tuple[str, Any]:
    pytest.importorskip("textgrid", reason="Lhotse reads AliMeeting with the package textgrid")
    manifests = prepare_ali_meeting(alimeeting_replica, mic=request.param)
    return request.param, {**manifests, "dev": manifests["eval"]}


def of_recording(part: Any, name: str) -> tuple[Recording, list[SupervisionSegment]]:
    (recording,) = [one for one in part["recordings"] if one.id == name]
    own = [one for one in part["supervisions"] if one.recording_id == name]
    return recording, sorted(own, key=lambda one: (one.start, one.id))


def own_overlaps(supervisions: list[SupervisionSegment]) -> int:
    """How often a speaker starts before the end of their previous segment."""
    return sum(
        one.speaker == later.speaker and later.start < one.end - 1e-6
        for one, later in itertools.combinations(supervisions, 2)
    )


def check_sound(recording: Recording, supervisions: list[SupervisionSegment]) -> None:
    """Checks that every channel is louder during speech than before the first speech."""
    audio = recording.load_audio()
    assert audio.shape == (recording.num_channels, recording.num_samples)
    before = audio[:, : 16000 // 2]
    for one in supervisions:
        inside = audio[:, round(one.start * 16000) : round(one.end * 16000)]
        assert (np.mean(inside**2, axis=1) > 2 * np.mean(before**2, axis=1)).all()
    assert 0.05 < np.abs(audio).max() < 0.96


# AMI


def test_ami_meetings_are_in_the_same_split_of_all_partitions() -> None:
    for plan, partition in itertools.product(AMI, PARTITIONS):
        assert plan.name in PARTITIONS[partition][plan.split]
    assert {plan.split for plan in AMI} == set(SPLITS)


def test_lhotse_prepares_ami(ami_prepared: tuple[str, Any]) -> None:
    mic, manifests = ami_prepared
    for split in SPLITS:
        part = manifests[split]
        wanted = {plan.name for plan in AMI if plan.split == split}
        assert {one.id for one in part["recordings"]} == wanted
        assert {one.num_channels for one in part["recordings"]} == {8 if mic == "mdm" else 1}
        for one in part["supervisions"]:
            assert one.text == " ".join(word.symbol for word in one.alignment["word"])
            assert split_of(one.text.lower()) in (split, "any")
            assert re.fullmatch("[FM]EE[0-9]{3}", one.speaker)
            assert one.gender == one.speaker[0]
    recording, supervisions = of_recording(manifests["train"], "ES2002a")
    assert len({one.speaker for one in supervisions}) == 4
    assert own_overlaps(supervisions) == 0
    assert supervisions[0].start >= 0.5
    assert MINUTES * 60 < recording.duration < MINUTES * 60 + 15
    check_sound(recording, supervisions)
    same_people = {one.speaker for one in of_recording(manifests["train"], "ES2002b")[1]}
    assert same_people <= {one.speaker for one in supervisions}


def test_lhotse_handles_the_faults_of_ami(ami_replica: Path, ami_prepared: tuple[str, Any]) -> None:
    mic, manifests = ami_prepared

    def meeting(fault: str) -> tuple[Recording, list[SupervisionSegment]]:
        return of_recording(manifests["train"], of_fault(AMI, fault))

    def annotated(fault: str) -> float:
        """When the last word ends."""
        name = of_fault(AMI, fault)
        words = (ami_replica / "ami_public_manual_1.6.2" / "words").glob(f"{name}.*")
        found = [re.findall('endtime="([0-9.]+)"', path.read_text()) for path in words]
        return max(float(time) for times in found for time in times)

    past, supervisions = meeting("past-end")
    assert annotated("past-end") > past.duration + 0.2
    assert all(one.end <= past.duration for one in supervisions)
    short, supervisions = meeting("short-audio")
    assert annotated("short-audio") > short.duration
    assert max(one.end for one in supervisions) == pytest.approx(short.duration)
    assert [one.text for one in meeting("empty-segment")[1]][:1] == [""]
    assert own_overlaps(meeting("own-overlap")[1]) == 1
    assert len({one.speaker for one in meeting("one-speaker")[1]}) == 1
    folder = ami_replica / "wav_db" / of_fault(AMI, "sample-count") / "audio"
    frames = [soundfile.info(path).frames for path in sorted(folder.glob("*Array*"))]
    assert len(frames) == 8
    assert [frames[0] - count for count in frames] == [0, 0, 0, 0, 32000, 0, 0, 0]
    if mic != "mdm":
        file = Path(meeting("sample-count")[0].sources[0].source)
        promised = int.from_bytes(file.read_bytes()[40:44], "little")
        assert promised == file.stat().st_size - 44 + 2 * 16000
        check_sound(*meeting("sample-count"))


def test_ami_keeps_all_words_if_a_speaker_overlaps_themselves(ami_replica: Path) -> None:
    manifests = prepare_ami(ami_replica, mic="sdm")
    name = of_fault(AMI, "own-overlap")
    files = (ami_replica / "ami_public_manual_1.6.2" / "words").glob(f"{name}.*")
    written = [re.findall(">([^<,.?]+)</w>", path.read_text()) for path in files]
    read = " ".join(one.text for one in of_recording(manifests["train"], name)[1])
    assert sorted(w.upper() for words in written for w in words) == sorted(read.split())


# AliMeeting


def test_lhotse_prepares_alimeeting(alimeeting_prepared: tuple[str, Any]) -> None:
    mic, manifests = alimeeting_prepared
    left_out = of_fault(ALIMEETING, "own-overlap")  # Lhotse finds its TextGrid invalid
    for split in SPLITS:
        part = manifests[split]
        wanted = {plan.name for plan in ALIMEETING if plan.split == split} - {left_out}
        assert {one.id for one in part["recordings"]} == wanted
        assert {one.num_channels for one in part["recordings"]} == {8}
        for one in part["supervisions"]:
            assert one.channel == (0 if mic == "sdm" else list(range(8)))
            assert re.fullmatch("[\u4e00-\u9fff]*", one.text)
            assert one.gender in "FM"
    recording, supervisions = of_recording(manifests["train"], "R0003_M0046")
    assert len({one.speaker for one in supervisions}) == 4
    assert all(one.text for one in supervisions)
    check_sound(recording, supervisions)


def test_lhotse_handles_the_faults_of_alimeeting(alimeeting_prepared: tuple[str, Any]) -> None:
    _, manifests = alimeeting_prepared

    def meeting(fault: str) -> tuple[Recording, list[SupervisionSegment]]:
        return of_recording(manifests["train"], of_fault(ALIMEETING, fault))

    for fault in ("past-end", "short-audio"):
        recording, supervisions = meeting(fault)
        assert all(one.end <= recording.duration + 1e-3 for one in supervisions)
    assert {one.text for one in meeting("empty-segment")[1][:4]} == {""}
    assert len({one.speaker for one in meeting("one-speaker")[1]}) == 1
    check_sound(*meeting("sample-count"))


def test_textgrids_have_the_faults(alimeeting_replica: Path) -> None:
    """Uses our reader, so the package textgrid is not needed."""
    folder = alimeeting_replica / "Train_Ali_far"

    def meeting(fault: str) -> tuple[float, Any]:
        """The seconds of audio, and the segments by start."""
        name = of_fault(ALIMEETING, fault)
        (audio,) = (folder / "audio_dir").glob(f"{name}_MS*.wav")
        grid = folder / "textgrid_dir" / f"{name}.TextGrid"
        found = parse(grid.read_text(), str(grid), name)
        for one in found:
            assert re.fullmatch(f"{name}_[FM]_SPK[0-9]{{4}}", one.speaker)
        return soundfile.info(audio).duration, sorted(found, key=lambda one: one.start)

    duration, segments = meeting("past-end")
    assert segments[-1].start > duration
    duration, segments = meeting("short-audio")
    assert segments[-1].start < duration < segments[-1].end
    assert not any(one.words.strip() for one in meeting("empty-segment")[1][:4])
    _, segments = meeting("own-overlap")
    assert own_overlaps(segments) == 1
    assert len({one.speaker for one in meeting("one-speaker")[1]}) == 1
    assert len({one.speaker for one in meeting("")[1]}) == 4


def test_mandarin_sentences_are_spoken_and_splits_share_none() -> None:
    rng = np.random.default_rng(0)
    said = {
        split: {draw_sentence(rng, split, grammar=GRAMMAR) for _ in range(300)} for split in SPLITS
    }
    texts = {split: {text.replace(" ", "") for text in said[split]} for split in SPLITS}
    assert not texts["train"] & texts["dev"]
    assert not (texts["train"] | texts["dev"]) & texts["test"]
    assert all(re.fullmatch("[\u4e00-\u9fff]+", text) for text in set().union(*texts.values()))
    with Espeak() as espeak:
        for text in [*sorted(said["test"])[:20], *BACKCHANNELS]:
            samples, _ = espeak.speak(text, "cmn+f2")
            assert 0.15 < len(samples) / 22050 / len(text.replace(" ", "")) < 0.6


# Utterance groups


def group_all(folder: Path, manifests: Any, language: str) -> Iterator[Any]:
    """The groups of all splits, by `make_groups` from files with the names of stage 2."""
    folder.mkdir(parents=True)
    for split, kind in itertools.product(SPLITS, ("recordings", "supervisions")):
        manifests[split][kind].to_file(folder / f"{split}_{kind}.jsonl.gz")
    make_groups(
        folder,
        folder / "groups",
        rejected=folder / "rejected.jsonl",
        splits=SPLITS,
        max_pause=0.0,
        language=language,
        max_rejected=1.0,
    )
    for split in SPLITS:
        yield from read_groups(folder / "groups" / f"{split}.jsonl.gz")


def check_groups(groups: list[Any], manifests: Any, lost: int) -> None:
    """Checks that all but `lost` supervisions are in a group, and that audio can be read."""
    supervisions = [one for split in SPLITS for one in manifests[split]["supervisions"]]
    assert sum(len(cut.supervisions) for cut in groups) == len(supervisions) - lost
    assert len(groups) > 20
    assert max(len(group_segments(cut)) for cut in groups) >= 3
    for cut in groups:
        audio = cut.load_audio()
        assert audio.shape == (cut.num_channels, cut.num_samples)
        if any(one.text for one in cut.supervisions):
            assert (np.abs(audio).max(axis=1) > 0.01).all()


def test_ami_groups(tmp_path: Path, ami_prepared: tuple[str, Any]) -> None:
    mic, manifests = ami_prepared
    groups = list(group_all(tmp_path / "groups", manifests, "en"))
    lines = (tmp_path / "groups" / "rejected.jsonl").read_text().splitlines()
    rejected = [json.loads(line) for line in lines]
    name = of_fault(AMI, "sample-count")
    assert {cut.num_channels for cut in groups} == {8 if mic == "mdm" else 1}
    if mic == "mdm":  # one channel is shorter than the others
        whole = max(one.duration for one in manifests["train"]["recordings"] if one.id == name)
        assert rejected[0]["reason"] == "its audio ends before its manifest says"
        assert rejected[0]["id"] == name
        assert max(cut.end for cut in groups if cut.recording_id == name) <= whole - 2 + 1e-3
        assert all(one["id"].startswith(name) for one in rejected)
    else:
        assert rejected == []
    outside = [one for one in rejected if one["reason"] == "it starts outside its recording"]
    check_groups(groups, manifests, lost=len(outside))
    assert own_overlaps(
        [one for cut in groups for one in cut.supervisions if cut.recording_id == "TS3005a"]
    )


def test_alimeeting_groups(tmp_path: Path, alimeeting_prepared: tuple[str, Any]) -> None:
    mic, manifests = alimeeting_prepared
    groups = list(group_all(tmp_path / "groups", manifests, "zh"))
    assert (tmp_path / "groups" / "rejected.jsonl").read_text() == ""
    assert {cut.num_channels for cut in groups} == {1 if mic == "sdm" else 8}
    check_groups(groups, manifests, lost=0)


# Making


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("layout", ["ami", "alimeeting"])
def test_same_bytes_for_the_same_seed_and_after_a_kill(tmp_path: Path, layout: str) -> None:
    make_replica(layout, tmp_path / "one", minutes=0.05, seed=3)
    whole = contents(tmp_path / "one")
    audio = sorted((tmp_path / "one").rglob("*.wav"))
    make_replica(layout, tmp_path / "one", minutes=0.05, seed=3)
    assert contents(tmp_path / "one") == whole
    audio[-1].write_bytes(b"cut off")  # of a run that was killed before its last file
    (tmp_path / "one" / "replica.json").unlink()
    make_replica(layout, tmp_path / "one", minutes=0.05, seed=3)
    assert contents(tmp_path / "one") == whole
    make_replica(layout, tmp_path / "one", minutes=0.05, seed=4)
    other = contents(tmp_path / "one")
    assert list(other) == list(whole)
    assert all(other[name] != whole[name] for name in whole if name.endswith(".wav"))


def make_by_command(root: Path, *args: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(root / "local/replicas/make.py"), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)


def test_command_line(root: Path, tmp_path: Path) -> None:
    options = ("--layout", "alimeeting", "--minutes", 0.05, "--seed", 3)
    done = make_by_command(root, "--output", tmp_path / "one", *options)
    assert (done.returncode, done.stdout) == (0, "")
    made_with = json.loads((tmp_path / "one" / "replica.json").read_text())
    assert made_with == {"revision": 1, "layout": "alimeeting", "minutes": 0.05, "seed": 3}
    assert len(list((tmp_path / "one").rglob("*.TextGrid"))) == len(ALIMEETING)
    done = make_by_command(root, "--output", tmp_path, "--layout", "icsi")
    assert done.returncode == 2
    assert "argument --layout: invalid choice: 'icsi'" in done.stderr
    done = make_by_command(root, "--output", tmp_path, "--layout", "ami", "--minutes", 0)
    assert (done.returncode, done.stderr) == (2, "make.py: minutes must be more than 0, got 0.0\n")


def test_invalid_parameters_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="minutes must be more than 0, got 0"):
        make_replica("ami", tmp_path, minutes=0)
    with pytest.raises(InputError, match="seed must be 0 or more, got -1"):
        make_replica("ami", tmp_path, seed=-1)
    assert list(tmp_path.iterdir()) == []
