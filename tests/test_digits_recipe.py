"""The recipe "digits": recordings of single digits in, conversations with exact times out."""

from __future__ import annotations

import hashlib
import io
import itertools
import shutil
import subprocess
import tarfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
from lhotse import CutSet, Recording, RecordingSet, SupervisionSegment, SupervisionSet
from lhotse.qa import validate_recordings_and_supervisions

SPLITS = ("train", "dev", "test")
TONES = {"train": 1600, "dev": 800, "test": 400}  # Hz
INDICES = {8: "train", 7: "dev", 4: "test"}
PEOPLE = ("george", "theo", "anna")
SIZES = {"train-groups": 70, "dev-groups": 10, "test-groups": 20}
SPOKEN = 0.3  # seconds of each recording, between silences


def recording(digit: int, index: int) -> bytes:
    """A wav file of 8 kHz: silence, a tone that tells its split, silence, a click at the end."""
    time = np.arange(round((SPOKEN + digit / 100) * 8000)) / 8000
    tone = 0.3 * np.sin(2 * np.pi * TONES[INDICES[index]] * time)
    samples = np.concatenate([np.zeros(800), tone, np.zeros(4000), [0.3]])
    samples += np.random.default_rng(digit).normal(0, 1e-4, len(samples))
    file = io.BytesIO()
    soundfile.write(file, samples, 8000, format="WAV", subtype="PCM_16")
    return file.getvalue()


@pytest.fixture(scope="module")
def recordings() -> dict[str, bytes]:
    """A dataset in small: three people, ten digits, one recording for each split."""
    return {
        f"{digit}_{person}_{index}.wav": recording(digit, index)
        for person, digit, index in itertools.product(PEOPLE, range(10), INDICES)
    }


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory, recordings: dict[str, bytes]) -> Path:
    """As it is downloaded, with members that do not belong into a folder of recordings."""
    path = tmp_path_factory.mktemp("archive") / "fsdd.tar.gz"
    folder = "free-spoken-digit-dataset-1.0.10"
    with tarfile.open(path, "w:gz") as file:
        for name, content in {
            **{f"{folder}/recordings/{name}": content for name, content in recordings.items()},
            "../outside.wav": b"RIFF",
            f"{folder}/README.md": b"digits",
        }.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
        link = tarfile.TarInfo(f"{folder}/recordings/1_theo_9.wav")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        file.addfile(link)
    return path


def run(
    root: Path, command: str, options: dict[str, object], code: int | None = 0
) -> subprocess.CompletedProcess[str]:
    """Runs a script of the repository; `code` None is any failure."""
    words = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
    done = subprocess.run([root / command, *words], capture_output=True, text=True, timeout=120)
    right = done.returncode == code if code is not None else done.returncode != 0
    assert right, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def drive(root: Path, folder: Path, **options: object) -> str:
    """Stages 0 to 2 by the stage driver; what it said."""
    return run(
        *(root, "egs/digits/run.sh"),
        {
            **{"install": "false", "stop-stage": 2, "data": folder / "data", "exp": folder / "exp"},
            **{name.replace("_", "-"): value for name, value in options.items()},
        },
    ).stderr


@pytest.fixture(scope="module")
def data(root: Path, tmp_path_factory: pytest.TempPathFactory, archive: Path) -> Path:
    """What stages 0 to 2 make of the small dataset, by two processes."""
    folder = tmp_path_factory.mktemp("digits")
    sizes = {name.replace("-", "_"): value for name, value in SIZES.items()}
    options = {**sizes, "corpus_dir": archive, "checksum": "", "jobs": 2}
    messages = drive(root, folder, **options)
    assert messages.count("(begin: not done yet)") == 3
    assert drive(root, folder, **options).count("done already") == 3
    return folder / "data"


def manifests(data: Path, split: str) -> tuple[list[Recording], list[SupervisionSegment]]:
    folder = data / "manifests"
    return (
        list(RecordingSet.from_file(folder / f"{split}_recordings.jsonl.gz")),
        list(SupervisionSet.from_file(folder / f"{split}_supervisions.jsonl.gz")),
    )


def groups(data: Path, split: str) -> list[list[SupervisionSegment]]:
    """The supervisions of each utterance group, as they were mixed."""
    found = defaultdict(list)
    for supervision in manifests(data, split)[1]:
        found[supervision.id.rsplit("-", 1)[0]].append(supervision)
    return list(found.values())


def overlapped_share(found: Sequence[Sequence[SupervisionSegment]]) -> float:
    """The share of the time with speech in which two people or more speak."""
    speech = overlapped = 0
    for group in found:
        first = min(one.start for one in group)
        active = np.zeros(round((max(one.end for one in group) - first) * 1000) + 1, int)
        for one in group:
            active[round((one.start - first) * 1000) : round((one.end - first) * 1000)] += 1
        speech, overlapped = speech + (active > 0).sum(), overlapped + (active > 1).sum()
    return float(overlapped / speech)


def test_only_recordings_are_unpacked(data: Path, recordings: dict[str, bytes]) -> None:
    found = {path.name: path.read_bytes() for path in (data / "corpus/recordings").iterdir()}
    assert found == recordings
    assert not list(data.parent.rglob("outside.wav"))


@pytest.mark.parametrize("split", SPLITS)
def test_manifests_and_groups(data: Path, split: str) -> None:
    recorded, supervisions = manifests(data, split)
    validate_recordings_and_supervisions(
        RecordingSet.from_recordings(recorded),
        SupervisionSet.from_segments(supervisions),
        read_data=True,
    )
    cuts = list(CutSet.from_file(data / f"groups/{split}.jsonl.gz"))
    assert len(cuts) == len(groups(data, split)) == SIZES[f"{split}-groups"]
    assert {one.speaker for one in supervisions} == set(PEOPLE)
    assert all(one.gender == (None if one.speaker == "anna" else "M") for one in supervisions)
    for group in groups(data, split):
        assert 1 <= len(group) <= 5
        assert max(one.end for one in group) - min(one.start for one in group) <= 12
    assert {1, 2, 3} == {len({one.speaker for one in group}) for group in groups(data, split)}


@pytest.mark.parametrize("split", SPLITS)
def test_each_split_hears_its_own_recordings(data: Path, split: str) -> None:
    """Each segment sounds with the tone of its split; the tones of the others stay noise."""
    recorded, supervisions = manifests(data, split)
    audio = {one.id: one.load_audio()[0] for one in recorded}
    for one in supervisions:
        samples = audio[one.recording_id][round(one.start * 16000) : round(one.end * 16000)]
        time = np.arange(len(samples)) / 16000
        power = {
            name: abs(np.mean(samples * np.exp(-2j * np.pi * tone * time)))
            for name, tone in TONES.items()
        }
        assert all(power[split] > 5 * power[other] for other in SPLITS if other != split)


@pytest.mark.parametrize("split", SPLITS)
def test_word_times_are_those_of_the_recordings(data: Path, split: str) -> None:
    names = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    for one in manifests(data, split)[1]:
        words = one.alignment["word"]
        assert one.text == " ".join(word.symbol for word in words)
        assert 2 <= len(words) <= 6
        assert words[0].start == pytest.approx(one.start, abs=1e-6)
        assert words[-1].end == pytest.approx(one.end, abs=1e-6)
        for word in words:  # silence and click are gone, but for 0.02 s on each side
            spoken = SPOKEN + names.index(word.symbol) / 100
            assert spoken <= word.duration <= spoken + 0.06
        pauses = [later.start - sooner.end for sooner, later in itertools.pairwise(words)]
        assert all(0.029 < pause < 0.201 for pause in pauses)


def test_no_string_of_three_digits_is_in_two_splits(data: Path) -> None:
    texts = {split: {one.text for one in manifests(data, split)[1]} for split in SPLITS}
    for one, other in itertools.combinations(SPLITS, 2):
        assert not {text for text in texts[one] & texts[other] if len(text.split()) > 2}


def content_of(data: Path) -> dict[str, str]:
    """Checksums of the audio, the sidecars and the supervisions."""
    paths = [*data.glob("corpus/*/sim-*"), *data.glob("corpus/*_supervisions.jsonl.gz")]
    return {
        str(path.relative_to(data)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(paths)
    }


def test_a_stopped_run_goes_on_and_gives_the_same(
    root: Path, tmp_path: Path, data: Path, archive: Path
) -> None:
    """Stopped in the download, with one finished session of an earlier call and a half of one."""
    corpus = tmp_path / "corpus"
    (corpus / "train").mkdir(parents=True)
    (corpus / "fsdd.tar.gz.partial").write_bytes(archive.read_bytes()[:5000])
    for name in ("sim-train-00003.json", "sim-train-00003.wav", "sim-train-00001.wav"):
        shutil.copy(data / "corpus/train" / name, corpus / "train")
    before = (corpus / "train/sim-train-00003.wav").stat().st_mtime_ns
    options = {"data": tmp_path, "jobs": 1, "checksum": "", "url": archive.as_uri(), **SIZES}
    run(root, "egs/digits/local/data.sh", {"stage": 0, **options})
    assert (corpus / "train/sim-train-00003.wav").stat().st_mtime_ns == before
    assert content_of(tmp_path) == content_of(data)
    assert (corpus / "fsdd.tar.gz").read_bytes() == archive.read_bytes()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such archive or folder"),
        (b"no archive", "is not an intact archive of recordings"),
        (slice(0, 20000), "is not an intact archive of recordings"),
        (slice(None), "the checksum of its 90 recordings must be"),
    ],
)
def test_a_bad_archive_is_one_line(
    root: Path, tmp_path: Path, archive: Path, content: bytes | slice | None, message: str
) -> None:
    path = tmp_path / "bad.tar.gz"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else archive.read_bytes()[content])
    options = {"stage": 0, "data": tmp_path / "data", "corpus-dir": path}
    done = run(root, "egs/digits/local/data.sh", options, code=None)
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert str(path) in done.stderr
    assert message in done.stderr
    assert not (tmp_path / "data").exists()


def test_an_incomplete_dataset_is_one_line(
    root: Path, tmp_path: Path, recordings: dict[str, bytes]
) -> None:
    folder = tmp_path / "recordings"
    folder.mkdir()
    for name, content in recordings.items():
        if name != "7_theo_4.wav":
            (folder / name).write_bytes(content)
    options = {"stage": 0, "data": tmp_path / "data", "corpus-dir": tmp_path, "checksum": ""}
    done = run(root, "egs/digits/local/data.sh", options, code=None)
    assert done.stderr.endswith("recordings: test has no 7_theo_INDEX.wav\n")
    assert done.stderr.count("\n") == 1


def test_a_failed_download_says_what_to_do(root: Path, tmp_path: Path, archive: Path) -> None:
    options = {"stage": 0, "data": tmp_path, "url": "http://127.0.0.1:9/fsdd.tar.gz"}
    done = run(root, "egs/digits/local/data.sh", options, code=None)
    assert "http://127.0.0.1:9/fsdd.tar.gz cannot be downloaded (curl: (7)" in done.stderr
    assert done.stderr.endswith("--corpus-dir PATH\n")
    (tmp_path / "corpus/fsdd.tar.gz").write_bytes(archive.read_bytes()[:20000])
    done = run(root, "egs/digits/local/data.sh", options, code=None)
    assert done.stderr.endswith("(removed: the same command downloads it again)\n")
    assert not (tmp_path / "corpus/fsdd.tar.gz").exists()


def test_the_dataset_itself(root: Path, shared: Path, tmp_path: Path) -> None:
    archive = shared / "data/fsdd.tar.gz"
    if not archive.exists():
        pytest.skip(f"{archive} is absent: no recordings of people")
    sizes = {"train-groups": 10, "dev-groups": 10}
    options = {"data": tmp_path, "jobs": 1, "corpus-dir": archive, **sizes}
    for stage in (0, 1):
        run(root, "egs/digits/local/data.sh", {"stage": stage, **options})
    found = groups(tmp_path, "test")
    assert len(found) == 300
    assert overlapped_share(found) >= 0.10
    lengths = [len({one.speaker for one in group}) for group in found]
    assert min(map(lengths.count, (1, 2, 3))) > 50
    spoken = [one for group in found for one in group]
    assert len({one.speaker for one in spoken}) == 6
    assert {one.gender for one in spoken} == {"M"}
    assert len({word for one in spoken for word in one.text.split()}) == 10
    durations = [word.duration for one in spoken for word in one.alignment["word"]]
    assert all(0.1 < duration < 1.1 for duration in durations)
