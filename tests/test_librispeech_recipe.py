"""The recipe "librispeech": read utterances in, either layout, conversations out."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from lhotse import RecordingSet, SupervisionSegment, SupervisionSet
from lhotse.qa import validate_recordings_and_supervisions
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import WhisperConfig, WhisperForConditionalGeneration

from tagspeech.data.batches import read_groups
from tagspeech.simulation.conversation import SAMPLING_RATE, utter
from tagspeech.simulation.espeak import Espeak
from tagspeech.simulation.sentences import draw_sentence
from tagspeech.simulation.voices import voices

SPLITS = ("train", "dev", "test")
FOLDERS = {"train": "train-clean-100", "dev": "dev-clean", "test": "test-clean"}
SPEAKERS = {
    "train": ("11", "12", "13", "14"),
    "dev": ("21", "22", "23"),
    "test": ("31", "32", "33"),
}
HEARD = ("41", "42")  # voices without text
SIZES = {"train_groups": 20, "dev_groups": 10, "test_groups": 10, "meetings": 1}
NAMED = {"dev_speakers": " ".join(SPEAKERS["dev"]), "test_speakers": " ".join(SPEAKERS["test"])}
PAUSE = 0.4  # seconds between sentences
SHARED_ID = "11-110-0000"  # says what a speaker of test says
LONG_ID = "12-120-0000"  # has no pause

Words = list[tuple[str, float, float]]


class Spoken:
    """Utterances in espeak-ng's voices: audio (N,) and true word times by ID; who is F or M."""

    def __init__(self) -> None:
        self.audio: dict[str, np.ndarray] = {}
        self.words: dict[str, Words] = {}
        self.gender: dict[str, str] = {}
        rng = np.random.default_rng(0)
        with Espeak() as espeak:
            for split, names in {**SPEAKERS, "heard": HEARD}.items():
                source = "train" if split == "heard" else split
                for place, name in enumerate(names):
                    voice = voices(source)[3 * place + (50 if split == "heard" else 0)]
                    self.gender[name] = voice.gender
                    for number in range(1 if split == "heard" else 4):
                        texts = [draw_sentence(rng, source) for _ in range(4)]
                        key = f"{name}-{name}0-{number:04d}"
                        if key == SHARED_ID:
                            texts = ["so the same sentence is heard in two places"] * 2
                        if key == "31-310-0000":
                            texts[0] = "so the same sentence is heard in two places"
                        pause = 0.0 if key == LONG_ID else PAUSE
                        parts = [utter(espeak, voice, text) for text in texts]
                        self._join(rng, key, parts, pause)

    def _join(self, rng: np.random.Generator, key: str, parts: list[Any], pause: float) -> None:
        audio: list[np.ndarray] = [np.zeros(4000, np.float32)]
        words: Words = []
        for part in parts:
            offset = sum(map(len, audio)) / SAMPLING_RATE
            words += [(word, offset + a, offset + b) for word, a, b in part.words]
            audio += [part.samples, np.zeros(round(pause * SAMPLING_RATE), np.float32)]
        joined = np.concatenate(audio)
        self.audio[key] = joined + rng.normal(0, 1e-4, len(joined)).astype(np.float32)
        self.words[key] = words

    def text(self, key: str) -> str:
        return " ".join(word for word, _, _ in self.words[key]).upper()

    def rows(self) -> list[dict[str, Any]]:
        """Word times as Whisper has them: a word ends where the next one starts."""
        rows = []
        for key, words in self.words.items():
            starts = [
                0.0,
                *(start for _, start, _ in words[1:]),
                len(self.audio[key]) / SAMPLING_RATE,
            ]
            times = [
                [word, round(a, 2), round(b, 2)]
                for (word, _, _), a, b in zip(words, starts[:-1], starts[1:], strict=True)
            ]
            origin = "whisper" if key.split("-")[0] in HEARD else "reference"
            rows.append({"id": key, "transcript": origin, "words": times})
        return rows

    def write_small(self, folder: Path) -> None:
        """Writes the small layout."""
        table, texts = ["speaker\tsex\tfolder"], []
        for name, gender in self.gender.items():
            place = "voices" if name in HEARD else "audio"
            table.append(f"{name}\t{gender}\t{place}")
            (folder / place).mkdir(parents=True, exist_ok=True)
            for key in (key for key in self.audio if key.startswith(f"{name}-")):
                soundfile.write(folder / place / f"{key}.flac", self.audio[key], SAMPLING_RATE)
                texts += [f"{key} {self.text(key)}"] if place == "audio" else []
        (folder / "speakers.tsv").write_text("\n".join(table) + "\n")
        (folder / "trans.txt").write_text("\n".join(texts) + "\n")

    def write_published(self, folder: Path) -> None:
        """Writes the layout as published; a chapter of 13 is of the same book as one of 21."""
        speakers, chapters = [";ID |SEX| SUBSET |MINUTES| NAME"], []
        for split, names in SPEAKERS.items():
            for name in names:
                speakers.append(f"{name} | {self.gender[name]} | {FOLDERS[split]} | 1.0 | A Reader")
                book = "7" if name in ("13", "21") else name
                chapters.append(f"{name}0 |{name} | 1.0 | {FOLDERS[split]} | 9 | {book} | C | B")
                place = folder / FOLDERS[split] / name / f"{name}0"
                place.mkdir(parents=True)
                keys = [key for key in self.audio if key.startswith(f"{name}-")]
                lines = [f"{key} {self.text(key)}\n" for key in keys]
                (place / f"{name}-{name}0.trans.txt").write_text("".join(lines))
                for key in keys:
                    soundfile.write(place / f"{key}.flac", self.audio[key], SAMPLING_RATE)
        (folder / "SPEAKERS.TXT").write_text("\n".join(speakers) + "\n")
        (folder / "CHAPTERS.TXT").write_text("\n".join(chapters) + "\n")


@pytest.fixture(scope="module")
def spoken() -> Spoken:
    return Spoken()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, spoken: Spoken) -> Path:
    folder = tmp_path_factory.mktemp("small")
    spoken.write_small(folder)
    return folder


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory, spoken: Spoken) -> Path:
    path = tmp_path_factory.mktemp("words") / "words.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in spoken.rows()))
    return path


def run(root: Path, command: str, code: int = 0, **options: object) -> str:
    """Runs a script of the repository, gives what it says."""
    named = {name.replace("_", "-"): value for name, value in options.items()}
    given = [str(part) for name, value in named.items() for part in (f"--{name}", value)]
    done = subprocess.run([root / command, *given], capture_output=True, text=True, timeout=300)
    assert done.returncode == code, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


Stage = Callable[..., str]


@pytest.fixture
def stage(root: Path, small: Path, words: Path, tmp_path: Path) -> Stage:
    """Runs stage 0 on the small layout; gives what it says."""

    def run_stage(code: int = 0, **options: object) -> str:
        given = {"data": tmp_path / "data", "corpus_dir": small, "words": words, "jobs": 1}
        given |= {**SIZES, **NAMED, **options}
        return run(root, "egs/librispeech/local/data.sh", code, stage=0, **given)

    return run_stage


@pytest.fixture(scope="module")
def made(
    root: Path, small: Path, words: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """What stages 0 to 2 make of the small layout with two processes, and what they say."""
    folder = tmp_path_factory.mktemp("made")
    options: dict[str, object] = {
        **{"install": "false", "stop_stage": 2, "data": folder / "data", "exp": folder / "exp"},
        **{"corpus_dir": small, "words": words, "jobs": 2, **SIZES, **NAMED},
    }
    said = run(root, "egs/librispeech/run.sh", **options)
    assert said.count("(begin: not done yet)") == 3
    assert run(root, "egs/librispeech/run.sh", **options).count("done already") == 3
    return folder / "data", said


def supervisions(data: Path, split: str) -> list[SupervisionSegment]:
    return list(SupervisionSet.from_file(data / f"manifests/{split}_supervisions.jsonl.gz"))


def pieces(data: Path, split: str) -> list[dict[str, Any]]:
    path = data / f"corpus/pieces/{split}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def contents(data: Path) -> dict[str, str]:
    """Checksums of sessions and pieces."""
    corpus = data / "corpus"
    files = [p for p in corpus.rglob("*") if p.suffix in (".wav", ".json", ".jsonl", ".npy")]
    return {
        str(path.relative_to(corpus)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


@pytest.mark.parametrize("split", [*SPLITS, "meetings"])
def test_manifests(made: tuple[Path, str], split: str) -> None:
    data, _ = made
    recorded = RecordingSet.from_file(data / f"manifests/{split}_recordings.jsonl.gz")
    found = SupervisionSet.from_file(data / f"manifests/{split}_supervisions.jsonl.gz")
    validate_recordings_and_supervisions(recorded, found, read_data=True)
    for segment in found:
        said = segment.alignment["word"]
        assert segment.text == " ".join(word.symbol for word in said)
        assert all(word.duration > 0 for word in said)
        assert said[0].start >= segment.start
        assert said[-1].end <= segment.end + 1e-6
        assert 0.9 < segment.duration < 7.9
    if split == "meetings":
        assert all(recording.duration >= 300 for recording in recorded)


def test_groups_are_those_that_were_mixed(made: tuple[Path, str]) -> None:
    data, _ = made
    for split in SPLITS:
        cuts = list(read_groups(data / f"groups/{split}.jsonl.gz"))
        assert len(cuts) == SIZES[f"{split}_groups"]
        assert max(cut.duration for cut in cuts) < 20.1
        assert {len({s.speaker for s in cut.supervisions}) for cut in cuts} <= {1, 2, 3}


def test_speakers_of_a_split_are_in_no_other(made: tuple[Path, str], spoken: Spoken) -> None:
    data, _ = made
    names = {split: {s.speaker for s in supervisions(data, split)} for split in SPLITS}
    assert names["dev"] <= set(SPEAKERS["dev"])
    assert names["test"] <= set(SPEAKERS["test"])
    assert {s.speaker for s in supervisions(data, "meetings")} <= set(SPEAKERS["test"])
    people = {name.split("-sp")[0] for name in names["train"]}
    assert people <= {*SPEAKERS["train"], *HEARD}
    assert people & {*HEARD}
    assert any("-sp0.9" in name for name in names["train"])
    assert any("-sp1.1" in name for name in names["train"])
    for split in SPLITS:
        for segment in supervisions(data, split):
            assert segment.gender == spoken.gender[segment.speaker.split("-sp")[0]]


def test_pieces_are_cut_in_the_pauses(made: tuple[Path, str], spoken: Spoken) -> None:
    data, _ = made
    audio = np.load(data / "corpus/pieces/audio.npy", mmap_mode="r")
    offsets = np.cumsum([0] + [len(spoken.audio[key]) for key in sorted(spoken.audio)])
    first = dict(zip(sorted(spoken.audio), offsets[:-1].tolist(), strict=True))
    assert len(audio) == offsets[-1]
    count = 0
    for split in SPLITS:
        for piece in pieces(data, split):
            start = (piece["start"] - first[piece["recorded"]]) / SAMPLING_RATE
            end = start + piece["samples"] / SAMPLING_RATE
            true = [
                word for word in spoken.words[piece["recorded"]] if start < sum(word[1:]) / 2 < end
            ]
            assert [word for word, _, _ in piece["words"]] == [word for word, _, _ in true]
            assert 1 <= end - start <= 7.1
            assert -0.01 <= true[0][1] - start < 0.1  # little silence, no word cut into
            assert -0.1 < end - true[-1][2] < 0.1
            count += 1
    assert count > 100


def test_what_test_has_is_not_in_train(made: tuple[Path, str]) -> None:
    data, said = made
    assert SHARED_ID not in {piece["recorded"] for piece in pieces(data, "train")}
    assert "31-310-0000" in {piece["recorded"] for piece in pieces(data, "test")}
    assert "pieces removed because dev or test has their text" in said
    texts = {
        split: {" ".join(word for word, _, _ in piece["words"]) for piece in pieces(data, split)}
        for split in SPLITS
    }
    assert not texts["train"] & (texts["dev"] | texts["test"])
    assert not texts["dev"] & texts["test"]


def test_what_cannot_be_cut_is_counted(made: tuple[Path, str]) -> None:
    data, said = made
    assert LONG_ID not in {piece["recorded"] for piece in pieces(data, "train")}
    assert "h of it are left out: phrases too long without a pause, too short" in said


def test_the_same_seed_gives_the_same_bytes(
    made: tuple[Path, str], stage: Stage, tmp_path: Path
) -> None:
    data, _ = made
    stage()
    assert contents(tmp_path / "data") == contents(data)
    stage(seed=2)
    assert contents(tmp_path / "data").keys() == contents(data).keys()
    assert contents(tmp_path / "data") != contents(data)


def test_the_published_layout_has_its_own_splits(
    root: Path, tmp_path: Path, spoken: Spoken, words: Path
) -> None:
    spoken.write_published(tmp_path / "LibriSpeech")
    extra = tmp_path / "LibriSpeech/dev-other"
    shutil.copytree(tmp_path / "LibriSpeech/dev-clean/22", extra / "22")
    for path in extra.rglob("*0000.flac"):
        path.rename(path.with_name("22-229-0000.flac"))
    (extra / "22/220/22-220.trans.txt").write_text("22-229-0000 YES\n")
    data = tmp_path / "data"
    options = {"stage": 0, "data": data, "corpus_dir": tmp_path, "words": words, **SIZES, "jobs": 1}
    said = run(root, "egs/librispeech/local/data.sh", **options)
    run(root, "egs/librispeech/local/data.sh", **{**options, "stage": 1})
    assert "left out: 1 utterances of dev-other, which is in no split" in said
    assert "train: 4 of 16 utterances removed because dev or test has their chapter or book" in said
    names = {split: {s.speaker for s in supervisions(data, split)} for split in SPLITS}
    assert names["dev"] <= set(SPEAKERS["dev"])
    assert names["test"] <= set(SPEAKERS["test"])
    assert {name.split("-sp")[0] for name in names["train"]} <= {"11", "12", "14"}


def test_what_is_wrong_is_said_in_one_line(stage: Stage, tmp_path: Path, spoken: Spoken) -> None:
    def error(**options: object) -> str:
        lines = stage(code=2, **options).splitlines()
        return lines[-1]

    assert error(test_speakers="31 99").endswith(
        "--test-speakers: 99 must be a speaker of --corpus-dir with texts"
    )
    assert error(dev_speakers="31 21 22").endswith("both have 31")
    assert "voice_share must be a number from 0 to 1, got '2'" in error(voice_share=2)
    assert "cuttings must be a whole number" in error(cuttings=1.5)
    assert "speeds must be a number from 0.5 to 2, got 'fast'" in error(speeds="fast")
    assert "no such folder" in error(corpus_dir=tmp_path / "none")
    assert "must have SPEAKERS.TXT" in error(corpus_dir=tmp_path)
    assert "no such file; --words names" in error(words=tmp_path / "none.jsonl")
    rows = spoken.rows()
    rows[0]["words"][0][0] = "wrong"
    other = tmp_path / "other.jsonl"
    other.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert "words must be those of its text" in error(words=other)
    assert "must be a folder of a Whisper" in error(words="", aligner=tmp_path / "none")


def test_utterances_without_words_are_counted(stage: Stage, tmp_path: Path, spoken: Spoken) -> None:
    rows = [row for row in spoken.rows() if row["id"] != "14-140-0001"]
    fewer = tmp_path / "fewer.jsonl"
    fewer.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert "left out: 1 of 42 utterances, without words" in stage(words=fewer)


@pytest.fixture(scope="module")
def whisper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a tiny Whisper with random weights, whose tokens are bytes."""
    folder = tmp_path_factory.mktemp("whisper")
    symbols = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<|endoftext|>", "<|startoftranscript|>", "<|notimestamps|>"]
    vocabulary = {token: number for number, token in enumerate([*symbols, *special])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens(special)
    tokenizer.save(str(folder / "tokenizer.json"))
    ends = dict.fromkeys(("bos_token", "eos_token", "unk_token"), special[0])
    kind = {"tokenizer_class": "WhisperTokenizer", "processor_class": "WhisperProcessor"}
    (folder / "tokenizer_config.json").write_text(json.dumps({**ends, **kind}))
    extractor = {"feature_extractor_type": "WhisperFeatureExtractor", "feature_size": 80}
    (folder / "processor_config.json").write_text(
        json.dumps({"feature_extractor": extractor, "processor_class": "WhisperProcessor"})
    )
    torch.manual_seed(1)
    layers = {f"{part}_layers": 2 for part in ("encoder", "decoder")}
    heads = {f"{part}_attention_heads": 2 for part in ("encoder", "decoder")}
    widths = {f"{part}_ffn_dim": 16 for part in ("encoder", "decoder")}
    ids = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), len(symbols))
    config = WhisperConfig(
        **{**layers, **heads, **widths, **ids, "vocab_size": len(vocabulary), "d_model": 16},
        decoder_start_token_id=len(symbols) + 1,
    )
    WhisperForConditionalGeneration(config).save_pretrained(folder)
    generation = {"alignment_heads": [[0, 1], [1, 0]], "is_multilingual": False, **ids}
    generation["decoder_start_token_id"] = len(symbols) + 1
    (folder / "generation_config.json").write_text(json.dumps(generation))
    return folder


def test_whisper_finds_when_words_are_spoken(
    root: Path, small: Path, tmp_path: Path, spoken: Spoken, whisper: Path
) -> None:
    output = tmp_path / "words.jsonl"
    options = {"corpus_dir": small, "output": output, "aligner": whisper, "batch": 2}
    said = run(root, "egs/librispeech/local/align_words.py", device="cpu", **options)
    assert "aligning 42 utterances on cpu (0 are done)" in said
    whole = output.read_text()
    rows = {row["id"]: row for row in map(json.loads, whole.splitlines())}
    assert rows.keys() == spoken.audio.keys()
    for key, row in rows.items():
        is_heard = key.split("-")[0] in HEARD
        assert row["transcript"] == ("whisper" if is_heard else "reference")
        if is_heard:
            continue  # random weights write no English
        assert [word for word, _, _ in row["words"]] == spoken.text(key).lower().split()
        starts = [start for _, start, _ in row["words"]]
        ends = [end for _, _, end in row["words"]]
        assert starts[0] == 0
        assert starts[1:] == ends[:-1]
        assert starts == sorted(starts)
        assert ends[-1] == pytest.approx(len(spoken.audio[key]) / SAMPLING_RATE, abs=0.02)

    # What an interrupted run has written stays; a complete file needs no model.
    output.write_text("\n".join(whole.splitlines()[:30]) + '\n{"id": "cut o')
    said = run(root, "egs/librispeech/local/align_words.py", device="cpu", **options)
    assert "aligning 12 utterances on cpu (30 are done)" in said
    assert {row["id"] for row in map(json.loads, output.read_text().splitlines())} == rows.keys()
    options["aligner"] = tmp_path / "none"
    assert run(root, "egs/librispeech/local/align_words.py", **options) == ""


def test_the_small_layout_of_real_recordings(root: Path, shared: Path, tmp_path: Path) -> None:
    corpus = shared / "data/librispeech"
    if not corpus.exists():
        pytest.skip(f"{corpus} is absent: no recordings of people")
    rows = [
        {"id": key, "transcript": "reference", "words": []}
        for key in ("61-70968-0000", "2094-142345-0000")
    ]
    (tmp_path / "words.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = run(
        root,
        "egs/librispeech/local/data.sh",
        code=2,
        **{"stage": 0, "data": tmp_path / "data", "corpus_dir": corpus},
        words=tmp_path / "words.jsonl",
    )
    assert "left out: 2871 of 2871 utterances, without words" in said
    assert said.splitlines()[-1].endswith("no piece of train can be cut")
