"""A corpus of one's own: each layout with real audio in, Lhotse manifests with its content out."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from lhotse import CutSet, Recording, RecordingSet, SupervisionSegment, SupervisionSet
from lhotse.kaldi import export_to_kaldi, load_kaldi_data_dir
from lhotse.qa import validate_recordings_and_supervisions

from tagspeech.cli import main
from tagspeech.config import Config
from tagspeech.config_file import load_config, to_tree
from tagspeech.data.importing import SPLITS, ImportConfig, import_corpus
from tagspeech.data.layouts import Audio, read_files
from tagspeech.data.simulate import SimulateConfig, simulate
from tagspeech.data.splits import by_shares
from tagspeech.errors import InputError
from tagspeech.formats import write
from tagspeech.segments import Segment


def manifests(folder: Path, split: str) -> tuple[list[Recording], list[SupervisionSegment]]:
    return (
        list(RecordingSet.from_file(folder / f"{split}_recordings.jsonl.gz")),
        list(SupervisionSet.from_file(folder / f"{split}_supervisions.jsonl.gz")),
    )


def segments_of(supervisions: list[SupervisionSegment]) -> list[Segment]:
    """What is said, with times in whole milliseconds, in order."""
    found = [
        Segment(
            session=one.recording_id,
            speaker=one.speaker,
            start=round(one.start, 3),
            end=round(one.end, 3),
            words=one.text,
            gender=(one.gender or "u").lower(),
        )
        for one in supervisions
    ]
    return sorted(found, key=lambda one: (one.session, one.start, one.end, one.speaker))


class Source:
    """Simulated sessions, and what is in them, as people might have them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.supervisions = [one for split in SPLITS for one in manifests(folder, split)[1]]
        self.segments = segments_of(self.supervisions)
        self.wavs = {path.stem: path for split in SPLITS for path in folder.glob(f"{split}/*.wav")}

    def split(self, name: str) -> str:
        return self.wavs[name].parent.name

    def write_audio(self, corpus: Path) -> None:
        """As audio/SPLIT/NAME; dev as FLAC."""
        for name, path in self.wavs.items():
            folder = corpus / "audio" / self.split(name)
            folder.mkdir(parents=True, exist_ok=True)
            if self.split(name) == "dev":
                soundfile.write(folder / f"{name}.flac", *soundfile.read(path, dtype="int16"))
            else:
                (folder / path.name).symlink_to(path)
        test = corpus / "audio/test"
        test.rename(corpus / "elsewhere")
        test.symlink_to(corpus / "elsewhere")  # people link folders too
        (test / "._hidden.wav").write_text("of a file manager")

    def write_words(self, corpus: Path, format: str) -> None:
        """As all.stm, all.seglst.json, textgrid/NAME.TextGrid or audio/SPLIT/NAME.json."""
        if format in ("stm", "seglst"):
            write(self.segments, corpus / ("all.stm" if format == "stm" else "all.seglst.json"))
            return
        for name in self.wavs:
            own = [one for one in self.segments if one.session == name]
            if format == "textgrid":
                write(own, corpus / f"words/{name}.TextGrid")
                continue
            rows = [
                {
                    **{"speaker": one.speaker, "start": one.start, "end": one.end},
                    **{"text": one.words, "gender": {"m": "male", "f": "F"}[one.gender]},
                }
                for one in own
            ]
            path = corpus / "audio" / self.split(name) / f"{name}.json"
            path.write_text(json.dumps(rows))

    def write_ctm(self, corpus: Path) -> None:
        """The true times of all words, and the turns."""
        lines = [
            f"{one.recording_id} 1 {word.start:.3f} {word.duration:.3f} {word.symbol}\n"
            for one in self.supervisions
            for word in one.alignment["word"]
        ]
        (corpus / "all.ctm").write_text("".join(lines))
        write(self.segments, corpus / "all.rttm")

    def write_kaldi(self, folder: Path) -> None:
        """A data directory for each split, written by Lhotse, and one of all."""
        for split in SPLITS:
            recordings, supervisions = manifests(self.folder, split)
            export_to_kaldi(
                RecordingSet.from_recordings(recordings),
                SupervisionSet.from_segments(supervisions),
                folder / split,
            )
            genders = {one.speaker: one.gender.lower() for one in supervisions}
            lines = [f"{speaker} {gender}\n" for speaker, gender in genders.items()]
            (folder / split / "spk2gender").write_text("".join(lines))
        (folder / "whole").mkdir()
        for path in (folder / "train").iterdir():
            texts = [(folder / split / path.name).read_text() for split in SPLITS]
            (folder / "whole" / path.name).write_text("".join(texts))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    folder = tmp_path_factory.mktemp("simulated")
    simulate(folder, SimulateConfig(20, 10, 10, 0), jobs=1)
    return Source(folder)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory, source: Source) -> Path:
    """All layouts of the same sessions beside each other."""
    folder = tmp_path_factory.mktemp("corpus")
    source.write_audio(folder)
    for format in ("stm", "seglst", "textgrid", "json"):
        source.write_words(folder, format)
    source.write_ctm(folder)
    source.write_kaldi(folder)
    anonymous = [replace(one, speaker="speech") for one in source.segments]
    write(anonymous, folder / "anonymous.stm")
    return folder


def imported(folder: Path, source: Source) -> list[Segment]:
    """What was imported; its manifests are valid and its audio is that of the source."""
    found = []
    for split in SPLITS:
        recordings, supervisions = manifests(folder, split)
        validate_recordings_and_supervisions(
            RecordingSet.from_recordings(recordings),
            SupervisionSet.from_segments(supervisions),
            read_data=True,
        )
        assert {one.id for one in recordings} == {
            n for n in source.wavs if source.split(n) == split
        }
        for one in recordings:
            assert np.array_equal(one.load_audio()[0], soundfile.read(source.wavs[one.id])[0])
        assert len({one.id for one in supervisions}) == len(supervisions)
        found += supervisions
    return segments_of(found)


@pytest.mark.parametrize(
    ("words", "speakers", "knows_gender"),
    [
        ("all.stm", None, False),
        ("all.seglst.json", None, True),
        ("words", None, False),  # TextGrid
        ("audio", None, True),  # JSON
        ("anonymous.stm", "all.rttm", False),
    ],
)
def test_audio_with_files_of_segments(
    corpus: Path,
    source: Source,
    tmp_path: Path,
    words: str,
    speakers: str | None,
    knows_gender: bool,
) -> None:
    rttm = corpus / speakers if speakers else None
    import_corpus(tmp_path, ImportConfig(corpus / "audio", corpus / words, rttm))
    wanted = source.segments
    if not knows_gender:
        wanted = [replace(one, gender="u") for one in wanted]
    assert imported(tmp_path, source) == wanted
    assert (tmp_path / "rejected.jsonl").read_text() == ""
    assert not (tmp_path / "audio").exists()  # what is a file of one channel stays where it is


def test_words_of_a_ctm_go_to_the_turns_of_an_rttm(
    corpus: Path, source: Source, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = ImportConfig(corpus / "audio", corpus / "all.ctm", corpus / "all.rttm")
    import_corpus(tmp_path, config)
    found, wanted = imported(tmp_path, source), source.segments
    assert [replace(one, words="", gender="u") for one in wanted] == [
        replace(one, words="") for one in found
    ]
    assert "lie in turns of several speakers" in caplog.text
    all_words = [Counter(word for one in s for word in one.words.split()) for s in (wanted, found)]
    assert all_words[0] == all_words[1]
    alone = 0
    for one, told in zip(wanted, found, strict=True):
        others = [o for o in wanted if o.session == one.session and o is not one]
        if all(o.end <= one.start or one.end <= o.start for o in others):
            assert told.words == one.words
            alone += 1
    assert alone > 10
    supervision = manifests(tmp_path, "test")[1][0]
    truth = next(one for one in source.supervisions if one.recording_id == supervision.recording_id)
    assert supervision.alignment["word"][0].start == pytest.approx(
        truth.alignment["word"][0].start, abs=1e-3
    )


def test_kaldi_directories(corpus: Path, source: Source, tmp_path: Path) -> None:
    import_corpus(tmp_path, ImportConfig(kaldi=corpus))
    assert imported(tmp_path, source) == source.segments
    for split in SPLITS:
        found = {one.id: one for one in manifests(tmp_path, split)[1]}
        _, theirs, _ = load_kaldi_data_dir(corpus / split, 16000)
        assert set(found) == {one.id for one in theirs}
        for one in theirs:
            mine = found[one.id]
            assert (mine.text, mine.speaker) == (one.text, one.speaker)
            assert (mine.start, mine.end) == pytest.approx((one.start, one.end), abs=1e-4)


NAMES = {"train": "a", "dev": "b", "test": "c"}


def noise(path: Path, seconds: float = 2.0, rate: int = 8000, channels: int = 1) -> np.ndarray:
    """Writes audio of 16 bit and gives its samples, (N, channels)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (round(seconds * rate), channels)
    samples = np.random.default_rng(1).integers(-9000, 9000, shape, dtype=np.int16)
    soundfile.write(path, samples, rate)
    return samples


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Three recordings of two seconds with two segments each."""
    lines = []
    for split, name in NAMES.items():
        noise(tmp_path / f"audio/{split}/{name}.wav")
        lines += [f"{name} 1 anna 0.1 0.9 yes\n", f"{name} 1 bert 0.8 1.7 no <o,f0,male> way\n"]
    (tmp_path / "all.stm").write_text("".join(lines))
    return tmp_path


def take(folder: Path, **config: object) -> dict[str, list[SupervisionSegment]]:
    """Imports the small corpus and gives the supervisions of each split."""
    paths = {"audio": folder / "audio", "words": folder / "all.stm"}
    import_corpus(folder / "out", ImportConfig(**{**paths, **config}))  # type: ignore[arg-type]
    return {split: manifests(folder / "out", split)[1] for split in SPLITS}


def append(path: Path, text: str) -> None:
    path.write_text(path.read_text() + text)


def rejected(folder: Path) -> list[tuple[str, str]]:
    rows = [json.loads(line) for line in (folder / "out/rejected.jsonl").read_text().splitlines()]
    return [(row["reason"], row["text"]) for row in rows]


def test_labels_and_gaps_of_an_stm(small: Path) -> None:
    (small / "all.stm").write_text(
        "a 1 anna 0.1 0.9 <o,f0,female> yes\na 1 bert 0.8 1.7 <na> <laughs> no\n"
        "a 1 inter_segment_gap 1.7 1.8 ignore_time_segment_in_scoring\n"
        "b 1 anna 0.1 0.9 yes\nc 1 anna 0.1 0.9 yes\n"
    )
    told = [(one.speaker, one.gender, one.text) for one in take(small)["train"]]
    assert told == [("anna", "F", "yes"), ("bert", None, "<laughs> no")]


def test_genders_and_local_speakers(small: Path) -> None:
    (small / "genders").write_text("anna f\nbert M\nsomebody u\n")
    found = take(small, genders=small / "genders", local_speakers=True)
    told = [(one.speaker, one.gender) for one in found["dev"]]
    assert told == [("b-anna", "F"), ("b-bert", "M")]


def test_speakers_of_train_in_test_are_warned_about(
    small: Path, caplog: pytest.LogCaptureFixture
) -> None:
    take(small)
    assert "2 of 2 speakers of test are in train too" in caplog.text
    caplog.clear()
    take(small, local_speakers=True)
    assert caplog.text == ""


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
def test_one_channel_of_an_array(small: Path, subtype: str) -> None:
    samples = noise(small / "audio/train/a.wav", channels=3)
    stored = samples / 32768 if subtype == "FLOAT" else samples
    soundfile.write(small / "audio/train/a.wav", stored, 8000, subtype=subtype)
    for split, name in list(NAMES.items())[1:]:
        noise(small / f"audio/{split}/{name}.wav", channels=2)
    take(small, channel=1)
    recordings, supervisions = manifests(small / "out", "train")
    validate_recordings_and_supervisions(
        RecordingSet.from_recordings(recordings),
        SupervisionSet.from_segments(supervisions),
        read_data=True,
    )
    assert recordings[0].num_channels == 1
    assert np.array_equal(recordings[0].load_audio()[0] * 32768, samples[:, 1])


def kaldi(folder: Path) -> Path:
    """A data directory of three recordings: a command, stereo, a whole recording's utterance."""
    samples = noise(folder / "wav/two sides.wav", channels=2)
    soundfile.write(folder / "wav/c.wav", samples[:, 0], 8000)
    files = {
        "wav.scp": "a cat 'wav/two sides.wav' |\nb wav/two sides.wav\nc wav/c.wav\n",
        "reco2file_and_channel": "a sides A\nb sides B\nc c B\n",
        "segments": "a-1 a 0.25 1.5\nb-1 b 0 -1\nc-1 c 0.5 2.5\nc-2 c 0.1 0.2\n",
        "text": "a-1 shall  we\nb-1 yes\nc-1\nc-3 lost\n",
        "utt2spk": "a-1 anna\nb-1 bert\nc-1 anna\nc-2 anna\nc-3 anna\n",
        "spk2gender": "anna f\n",
    }
    (folder / "data").mkdir()
    for name, text in files.items():
        (folder / "data" / name).write_text(text)
    return folder / "data"


def test_kaldi_commands_channels_relative_paths_and_missing_lines(tmp_path: Path) -> None:
    config = ImportConfig(
        kaldi=kaldi(tmp_path), wav_root=tmp_path, split_by="shares", max_rejected=0.5
    )
    import_corpus(tmp_path / "out", config)
    found = [manifests(tmp_path / "out", split) for split in SPLITS]
    recordings = {one.id: one for own, _ in found for one in own}
    told = {one.id: one for _, own in found for one in own}
    samples = soundfile.read(tmp_path / "wav/two sides.wav")[0]
    for name, channel in (("a", 0), ("b", 1), ("c", 0)):  # c is mono: it is channel B already
        assert np.array_equal(recordings[name].load_audio()[0], samples[:, channel]), name
    fields = ("start", "end", "text", "speaker", "gender")
    assert {id: tuple(getattr(one, name) for name in fields) for id, one in told.items()} == {
        "a-1": (0.25, 1.5, "shall we", "anna", "F"),
        "b-1": (0.0, 2.0, "yes", "bert", None),
        "c-1": (0.5, 2.0, "", "anna", "F"),
    }
    folder = tmp_path / "data"
    assert sorted(rejected(tmp_path)) == [
        (f"it is missing in {folder}/segments", "lost"),
        (f"it is missing in {folder}/text", ""),
    ]


def test_kaldi_without_segments(tmp_path: Path) -> None:
    folder = kaldi(tmp_path)
    (folder / "segments").unlink()
    for name, last in (("text", "hello"), ("utt2spk", "anna")):
        (folder / name).write_text("".join(f"{recording} {last}\n" for recording in "abc"))
    import_corpus(
        tmp_path / "out", ImportConfig(kaldi=folder, wav_root=tmp_path, split_by="shares")
    )
    told = [one for split in SPLITS for one in manifests(tmp_path / "out", split)[1]]
    assert sorted((one.id, one.recording_id, one.start, one.end) for one in told) == [
        (name, name, 0.0, 2.0) for name in "abc"
    ]


# Splits


@settings(max_examples=60)
@given(st.integers(3, 200), st.tuples(st.integers(1, 9), st.integers(1, 9)), st.integers(0, 9))
def test_shares_take_whole_recordings(count: int, parts: tuple[int, int], seed: int) -> None:
    dev, test = (part / 20 for part in parts)
    shares = (1 - dev - test, dev, test)
    audio = {f"meeting{number}": Audio("") for number in range(count)}
    splits = by_shares(audio, shares, seed)
    assert splits.keys() == audio.keys()
    backwards = dict(reversed(list(audio.items())))
    assert by_shares(backwards, shares, seed) == splits
    for split, share in zip(SPLITS, shares, strict=True):
        number = list(splits.values()).count(split)
        assert number >= 1
        assert abs(number - share * count) <= 2


def test_another_seed_draws_others() -> None:
    audio = {str(number): Audio("") for number in range(50)}
    assert by_shares(audio, (0.8, 0.1, 0.1), 1) != by_shares(audio, (0.8, 0.1, 0.1), 2)


def test_lists_choose_and_leave_out(small: Path, caplog: pytest.LogCaptureFixture) -> None:
    noise(small / "audio/d.wav")  # no list names it: it needs no segments
    for split, name in (("train", "c"), ("dev", "a"), ("test", "b")):
        (small / f"{split}.txt").write_text(f"{name}\n\n")
    found = take(small, split_by="lists", lists=small)
    assert [found[split][0].recording_id for split in SPLITS] == ["c", "a", "b"]
    assert "1 recordings are in no list and left out" in caplog.text
    (small / "dev.txt").write_text("a\nb\nnobody\nnothing\n")
    with pytest.raises(InputError, match=r"2 names in .*dev\.txt are those of no recording"):
        take(small, split_by="lists", lists=small)
    (small / "dev.txt").write_text("a\nb\nc\n")
    with pytest.raises(InputError, match=r"1 names in .*dev\.txt are in another list too .*: c\)"):
        take(small, split_by="lists", lists=small)


# What is wrong


def test_what_audio_and_segments_do_not_share_is_counted(
    small: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("x", "y"):
        noise(small / f"audio/train/{name}.wav")
    append(small / "all.stm", "z 1 anna 0 1 hello\n")
    with pytest.raises(InputError) as error:
        take(small)
    assert str(error.value).startswith(
        "2 of 5 recordings have no segments (the first: x), 1 of 4 sessions with segments have no "
        "recording (the first: z); "
    )
    found = take(small, skip_unmatched=True)
    assert {one.recording_id for own in found.values() for one in own} == {"a", "b", "c"}
    assert caplog.text.count(": left out") == 2


def test_segments_at_and_past_the_end(small: Path, caplog: pytest.LogCaptureFixture) -> None:
    append(small / "all.stm", "a 1 anna 1.9 2.5 long\na 1 anna 2.0 2.5 late\n")
    found = take(small, max_rejected=0.13)
    assert found["train"][-1].text == "long"
    assert found["train"][-1].end == 2.0
    assert rejected(small) == [("it starts outside its recording", "late")]
    assert "1 segments reach past the end of their recording" in caplog.text
    with pytest.raises(InputError, match="1 segments are rejected, 1 of them because it starts"):
        take(small, max_rejected=0.12)


def test_segments_at_whose_time_nobody_has_a_turn(small: Path) -> None:
    lines = [f"SPEAKER {name} 1 0.0 1.0 <NA> <NA> carla <NA> <NA>\n" for name in NAMES.values()]
    (small / "all.rttm").write_text("".join(lines))
    append(small / "all.stm", "a 1 x 1.0 1.5 alone\n")  # touches the turn, does not overlap it
    found = take(small, speakers=small / "all.rttm", max_rejected=0.2)
    assert {one.speaker for one in found["train"]} == {"carla"}
    assert rejected(small) == [(f"{small / 'all.rttm'} has no turn at its time", "alone")]


def test_segments_without_a_speaker(small: Path) -> None:
    rows = [
        {"session_id": name, "start_time": start, "end_time": start + 1, "words": "yes"}
        | ({"speaker": "anna"} if start else {})
        for name in NAMES.values()
        for start in (0, 0.5)
    ]
    (small / "all.json").write_text(json.dumps(rows))
    found = take(small, words=small / "all.json", max_rejected=0.5)
    assert [one.start for one in found["train"]] == [0.5]
    assert rejected(small) == [("it has no speaker", "yes")] * 3


def no_audio(folder: Path) -> None:
    (folder / "audio/dev/b.wav").write_text("no audio")


def two_alike(folder: Path) -> None:
    noise(folder / "audio/dev/a.flac")


def other_folder(folder: Path) -> None:
    (folder / "audio/dev").rename(folder / "audio/valid")


def other_format(folder: Path) -> None:
    (folder / "all.stm").unlink()
    (folder / "all.txt").write_text("hello")


def json_without(folder: Path) -> None:
    (folder / "all.json").write_text('[{"speaker": "a", "start": 1, "end": 2}]')


def json_gender(folder: Path) -> None:
    row = {"speaker": "a", "start": 1, "end": 2, "text": "b", "gender": "x"}
    (folder / "all.json").write_text(json.dumps([row]))


@pytest.mark.parametrize(
    ("spoil", "config", "words"),
    [
        (no_audio, {}, "1 of 3 recordings cannot be read as audio (the first: "),
        (two_alike, {}, "would both be recording a"),
        (other_folder, {}, "1 recordings are in none of the folders train, dev, test"),
        (other_format, {"words": "all.txt"}, "all.txt: its extension names none of stm, ctm"),
        (other_format, {"words": "nowhere.stm"}, "nowhere.stm: No such file"),
        (other_format, {"words": "audio"}, "audio: holds no file of stm, ctm"),
        (json_without, {"words": "all.json"}, "all.json, entry 1: wants an object with speaker"),
        (json_without, {"words": ""}, "holds 1 files of seglst and 1 files of stm"),
        (json_gender, {"words": "all.json"}, "all.json, entry 1: gender is 'x'"),
        (None, {"channel": 1}, "3 of 3 recordings have no channel 1"),
        (None, {"audio": "nowhere"}, "nowhere: no such folder"),
        (None, {"split_by": "lists"}, "together with --lists"),
        (None, {"split_by": "shares", "shares": (0.8, 0.1)}, "wants three above 0"),
        (None, {"kaldi": "audio"}, "not both"),
        (lambda folder: append(folder / "all.stm", "a 1 x 9 8 no\n"), {}, "all.stm, line 7: "),
    ],
)
def test_one_line_says_what_is_wrong(
    small: Path, spoil: Callable[[Path], None] | None, config: dict[str, object], words: str
) -> None:
    if spoil:
        spoil(small)
    paths = ("audio", "words", "kaldi")
    own = {key: small / str(value) if key in paths else value for key, value in config.items()}
    with pytest.raises(InputError) as error:
        take(small, **own)
    assert words in str(error.value)
    assert "\n" not in str(error.value)
    assert not list((small / "out").glob("*.jsonl.gz"))


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("text", None, "text: No such file"),
        ("segments", "a-1 a 0 1\na-1 a 1 2\n", "segments, line 2: 'a-1' has a line before"),
        ("segments", "a-1 a 0 1 A\n", "each channel as a recording of its own"),
        ("segments", "a-1 a zero 1\n", "utterance a-1: zero and 1 are no times"),
        ("segments", "a-1 a 1 1\n", "segments, utterance a-1: "),
        ("spk2gender", "anna x\n", "spk2gender, speaker anna: gender is 'x'"),
        ("reco2file_and_channel", "a sides left\n", "wants a file and a channel such as A"),
        ("reco2file_and_channel", "b sides 3\n", "have no channel 2"),
        ("wav.scp", "a exit 3 |\nb wav/c.wav\nc wav/c.wav\n", "come from a command that fails"),
        ("wav.scp", "a wav/a.wav\nb b.wav\nc wav/c.wav\n", "2 of 3 recordings do not exist"),
    ],
)
def test_one_line_says_what_is_wrong_in_a_kaldi_directory(
    tmp_path: Path, name: str, text: str | None, words: str
) -> None:
    folder = kaldi(tmp_path)
    if text is None:
        (folder / name).unlink()
    else:
        (folder / name).write_text(text)
    config = ImportConfig(
        kaldi=folder, wav_root=tmp_path, split_by="shares", skip_unmatched=name == "segments"
    )
    with pytest.raises(InputError) as error:
        import_corpus(tmp_path / "out", config)
    assert words in str(error.value)
    assert not list((tmp_path / "out").rglob("*.gz"))


def test_ctm_wants_speakers(small: Path) -> None:
    (small / "all.ctm").write_text("a 1 0.1 0.2 yes\n")
    with pytest.raises(InputError, match="CTM has no speakers; --speakers wants an RTTM"):
        take(small, words=small / "all.ctm")


# Any segments

LETTERS = st.text("abcxyzäß世 '%()", min_size=1, max_size=8).map(str.strip).filter(bool)
SEGMENTS = st.lists(
    st.builds(
        lambda session, speaker, start, length, words, gender: Segment(
            session, speaker, start / 1000, (start + length) / 1000, " ".join(words.split()), gender
        ),
        st.sampled_from("abc"),
        LETTERS,
        st.integers(0, 20000),
        st.integers(1, 9000),
        LETTERS,
        st.sampled_from("mfu"),
    ),
    max_size=12,
)


@settings(max_examples=25)
@given(SEGMENTS)
def test_any_segments_come_in_unchanged(
    tmp_path_factory: pytest.TempPathFactory, segments: list[Segment]
) -> None:
    folder = tmp_path_factory.mktemp("any")
    (folder / "audio").mkdir()
    (folder / "audio/a.wav").touch()
    write(segments, folder / "all.seglst.json")
    write(segments, folder / "all.stm")
    for name in "abc":
        write([one for one in segments if one.session == name], folder / f"grids/{name}.TextGrid")
    rows = [
        {"session": one.session, "speaker": one.speaker, "start": one.start, "end": one.end}
        | {"text": one.words, "gender": one.gender}
        for one in segments
    ]
    (folder / "all.json").write_text(json.dumps(rows))
    for words, knows_gender in (
        ("all.seglst.json", True),
        ("all.json", True),
        ("all.stm", False),
        ("grids", False),
    ):
        wanted = [one if knows_gender else replace(one, gender="u") for one in segments]
        found = read_files(folder / "audio", folder / words, None)
        assert Counter(segments_of(found.supervisions)) == Counter(wanted), words
        assert found.rejected == []


# The command and the page


def run(command: list[object], cwd: Path, code: int = 0, timeout: int = 100) -> str:
    """Runs a command, checks its exit code, gives its stderr."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == code, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stderr


def test_command(
    small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["import", "--output", "out", "--audio", "audio", "--words", "all.stm"]
    messages = run([sys.executable, "-m", "tagspeech", *options, "--verbose"], small)
    assert "train: 1 recordings, 0.00 hours, 2 segments, 2 speakers (0 of known gender)" in messages
    source = Path(manifests(small / "out", "dev")[0][0].sources[0].source)
    assert source == small / "audio/dev/b.wav"  # whatever folder one stands in later
    monkeypatch.chdir(small)
    (small / "audio/dev/b.wav").unlink()
    assert main(options) == 2
    out, messages = capsys.readouterr()
    assert messages.startswith("tagspeech import: 1 of 3 sessions with segments have no recording")
    assert (out, messages.count("\n")) == ("", 1)
    with pytest.raises(SystemExit):
        main([*options, "--shares", "most"])
    assert "--shares: wants three numbers: 0.8,0.1,0.1; not 'most'" in capsys.readouterr().err


@pytest.fixture
def house(root: Path, tmp_path: Path) -> Path:
    """A copy of the repository whose environment is installed."""
    folder = tmp_path / "house"
    folder.mkdir()
    wanted = [f"folder {folder}\ngpu false"]
    for name in ("run.sh", "path.sh", "pyproject.toml", *(p.name for p in root.glob("req*.txt"))):
        shutil.copy2(root / name, folder)
    for name in ("pyproject.toml", "requirements.txt", "requirements-gpu.txt"):
        wanted.append((folder / name).read_text().rstrip("\n"))
    for name in ("local", "utils", "tagspeech", "egs/template"):
        shutil.copytree(root / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / ".venv").mkdir()
    (folder / ".venv/.installed").write_text("\n".join(wanted) + "\n")
    return folder


def test_page_runs_as_written(root: Path, house: Path, corpus: Path, source: Source) -> None:
    page = (root / "egs/template/README.md").read_text()
    copying, trying = re.findall(r"^```bash\n(.*?)^```", page, re.M | re.S)
    run(["bash", "-euc", copying], house)
    conf = house / "egs/mycorpus/conf/recipe.conf"
    assert conf.read_text().count('corpus_dir=""') == 1
    conf.write_text(conf.read_text().replace('corpus_dir=""', f'corpus_dir="{corpus}"'))
    messages = run(["bash", "-euc", trying], house)
    assert messages.count("(begin: not done yet)") == 3
    log = (house / "egs/mycorpus/exp/log/00-download-or-simulate.log").read_text()
    assert "test: 1 recordings" in log
    data = house / "egs/mycorpus/data"
    assert imported(data / "manifests", source) == [
        replace(one, gender="u") for one in source.segments
    ]
    grouped = [
        replace(one, start=one.start + cut.start)
        for split in SPLITS
        for cut in CutSet.from_file(data / f"groups/{split}.jsonl.gz")
        for one in cut.supervisions
    ]
    assert segments_of(grouped) == [replace(one, gender="u") for one in source.segments]
    assert (data / "rejected.jsonl").read_text() == ""
    messages = run(["egs/mycorpus/run.sh", "--stop-stage", 2], house)
    assert messages.count("done already") == 3
    everything, *_ = re.findall(r"^```sh\n(.*?)^```", page, re.M | re.S)
    steps = ("max_steps=2", "warmup_steps=1", "valid_every=2", "checkpoint_every=2")
    few = [f"{part}.{one}" for part in ("semantic.train", "voice.train", "train") for one in steps]
    sets = [f"--set {one}" for one in (*few, "decode.max_new_tokens=30")]
    run(["bash", "-euc", " ".join([everything.rstrip(), *sets])], house, timeout=600)
    results = json.loads((house / "egs/mycorpus/exp-tiny/results.json").read_text())
    assert results["test"]["cpwer"] > 0
    assert results["test"]["sessions"] == len(CutSet.from_file(data / "groups/test.jsonl.gz"))


@pytest.mark.parametrize(
    "options",
    [
        ". --words all.ctm --speakers all.rttm --genders train/spk2gender --split-by lists",
        "whole --kaldi true --split-by shares --local-speakers true --skip-unmatched true",
    ],
)
def test_variables_of_the_recipe(house: Path, corpus: Path, source: Source, options: str) -> None:
    for split in SPLITS:
        names = [name for name in source.wavs if source.split(name) == split]
        (corpus / f"{split}.txt").write_text("\n".join(names))
    folder, *words = options.split()
    command = ["egs/template/local/data.sh", "--corpus-dir", corpus / folder, *words]
    for stage in (0, 1):
        run([*command, "--stage", stage], house)
    found = [manifests(house / "egs/template/data/manifests", split) for split in SPLITS]
    assert {one.id for own, _ in found for one in own} == set(source.wavs)
    assert sum(len(own) for _, own in found) == len(source.segments)
    speakers = {one.speaker.startswith("sim-") for _, own in found for one in own}
    assert speakers == {"--local-speakers" in options}
    assert any(one.gender for _, own in found for one in own)


def test_corpus_must_be_named(house: Path) -> None:
    messages = run(["egs/template/local/data.sh", "--stage", 0], house, code=2)
    assert "no corpus: --corpus-dir wants its folder, or set it in egs/template/conf" in messages
    words = ["--corpus-dir", "nowhere"]
    messages = run(["egs/template/local/data.sh", "--stage", 0, *words], house, code=2)
    assert messages.endswith("--corpus-dir nowhere: no such folder\n")


def test_the_template_has_the_geometry_of_the_paper(root: Path) -> None:
    tree = to_tree(load_config(root / "egs/template/conf/tagspeech.yaml"))
    for stream in ("semantic", "voice"):
        assert max(tree[stream]["encoder"]["encoder_dim"]) == 768
        tree[stream]["encoder"] = to_tree(Config())[stream]["encoder"]
    assert tree["llm"].pop("name") == "Qwen/Qwen2.5-7B-Instruct"
    assert tree["llm"].pop("revision") == "main"
    paper = to_tree(Config())
    assert tree == {**paper, "llm": {key: paper["llm"][key] for key in tree["llm"]}}
    tiny = load_config(root / "egs/template/conf/tiny.yaml")
    assert (tiny.semantic.stack, tiny.semantic.anchor_interval) == (4, 8)
    assert tiny.llm.trainable == "full"
