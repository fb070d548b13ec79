"""Names in two Unicode spellings, names that are no file names, and files that are not read."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from corpora import manifests, noise, take
from test_import_kaldi import kaldi

from tagspeech.corpus.importing import ImportConfig, import_corpus
from tagspeech.errors import InputError


def decomposed(text: str) -> str:
    return unicodedata.normalize("NFD", text)


COMPOSED, DECOMPOSED = "Gespräch", decomposed("Gespräch")


@pytest.mark.parametrize("names", [(COMPOSED, DECOMPOSED), (DECOMPOSED, COMPOSED)])
def test_composed_and_decomposed_names_are_equal(small: Path, names: tuple[str, str]) -> None:
    """macOS decomposes letters in names of files, editors compose them."""
    file, session = names
    (small / "audio/train/a.wav").rename(small / f"audio/train/{file}.wav")
    text = (small / "all.stm").read_text().replace("a 1 anna", f"{session} 1 Zoë")
    text = text.replace("a 1 bert", f"{session} 1 bert")
    (small / "all.stm").write_text(text)
    turns = [f"{file} 1 0.0 0.85 {decomposed('Zoë')}", f"{file} 1 0.85 1 bert"]
    turns += [f"{name} 1 0.0 2.0 carla" for name in "bc"]
    lines = ["SPEAKER {} {} {} {} <NA> <NA> {} <NA> <NA>\n".format(*turn.split()) for turn in turns]
    (small / "all.rttm").write_text("".join(lines))
    (small / "genders").write_text(f"{decomposed('Zoë')} f\n")
    for split, name in (("train", file), ("dev", "b"), ("test", "c")):
        (small / f"{split}.txt").write_text(f"{name}\n")
    found = take(
        small,
        speakers=small / "all.rttm",
        genders=small / "genders",
        split_by="lists",
        lists=small,
    )
    told = [(one.recording_id, one.speaker, one.gender) for one in found["train"]]
    assert told == [(COMPOSED, "Zoë", "F"), (COMPOSED, "bert", None)]
    (recording,) = manifests(small / "out", "train")[0]
    assert recording.id == COMPOSED
    assert recording.num_samples == 16000  # the file is found by the name that it has


def test_two_files_with_the_same_name_are_an_error(small: Path) -> None:
    for name in (COMPOSED, DECOMPOSED):
        noise(small / f"audio/train/{name}.wav")
    with pytest.raises(InputError, match=f"are both named {COMPOSED}; rename one"):
        take(small)


def test_kaldi_names_in_two_spellings(tmp_path: Path) -> None:
    folder = kaldi(tmp_path)
    for path in folder.iterdir():
        normalize = decomposed if path.name in ("segments", "spk2gender") else str
        text = path.read_text().replace("a-1 a ", "a-1 ä ").replace("anna", "Ännä")
        if path.name in ("wav.scp", "reco2file_and_channel"):
            text = text.replace("a ", "ä ", 1)
        path.write_text(normalize(text))
    config = ImportConfig(kaldi=folder, wav_root=tmp_path, split_by="shares", max_rejected=0.5)
    import_corpus(tmp_path / "out", config)
    found = [
        one for split in ("train", "dev", "test") for one in manifests(tmp_path / "out", split)[1]
    ]
    assert ("ä", "Ännä", "F") in [(one.recording_id, one.speaker, one.gender) for one in found]


@pytest.mark.parametrize("name", ["../../../x", "a/b", ".."])
def test_recording_id_must_be_a_file_name(tmp_path: Path, name: str) -> None:
    folder = kaldi(tmp_path)
    for path in (folder / "wav.scp", folder / "segments"):
        path.write_text(
            path.read_text().replace("a cat", f"{name} cat").replace(" a 0", f" {name} 0")
        )
    config = ImportConfig(kaldi=folder, wav_root=tmp_path, split_by="shares", skip_unmatched=True)
    with pytest.raises(InputError) as error:
        import_corpus(tmp_path / "out", config)
    assert str(error.value) == (
        f"{folder}/wav.scp: recording id {name!r} must be usable as a file name: not empty, "
        "without / and control characters; rename the recording"
    )
    assert not (tmp_path / "out").exists()


def test_files_of_macos_are_skipped_with_a_line(
    small: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (small / "words").mkdir()
    (small / "all.stm").rename(small / "words/all.stm")
    for name in ("words/._all.stm", "audio/train/._a.wav", "audio/dev/._b.wav"):
        (small / name).write_bytes(b"\0\5\26\7\0\2\0\0Mac OS X        ")
    take(small, words=small / "words")
    audio = f"{small}/audio: 2 hidden files are skipped (the first: {small}/audio/dev/._b.wav)"
    words = f"{small}/words: 1 hidden files are skipped (the first: {small}/words/._all.stm)"
    assert audio in caplog.text
    assert words in caplog.text


def test_files_that_are_not_read_are_logged(small: Path, caplog: pytest.LogCaptureFixture) -> None:
    (small / "audio/dev/x.mp3").write_bytes(b"")
    (small / "audio/dev/y.m4a").write_bytes(b"")
    (small / "audio/dev/notes.txt").write_text("b was noisy")
    (small / "words").mkdir()
    (small / "all.stm").rename(small / "words/all.stm")
    (small / "words/b.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nyes\n")
    take(small, words=small / "words")
    audio = f"{small}/audio: 2 audio files are not read (the first: {small}/audio/dev/x.mp3)"
    words = f"{small}/words: 1 files of srt are not read (the first: {small}/words/b.srt)"
    assert f"{audio}; convert them to WAV or FLAC" in caplog.text
    assert words in caplog.text
    assert "notes.txt" not in caplog.text


def test_ignored_words_turns_and_genders_are_logged(
    small: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Gaps in an STM, turns of an RTTM without words, genders of unknown speakers."""
    turns = [("a", 0.0, 1.7), ("a", 1.8, 0.1), ("b", 0.0, 2.0), ("c", 0.0, 2.0), ("d", 0.0, 2.0)]
    lines = [
        f"SPEAKER {name} 1 {start} {duration} <NA> <NA> carla <NA> <NA>\n"
        for name, start, duration in turns
    ]
    (small / "all.rttm").write_text("".join(lines))
    with open(small / "all.stm", "a") as file:
        file.write("a 1 inter_segment_gap 1.7 1.8 ignore_time_segment_in_scoring\n")
    (small / "genders").write_text("carla f\nKarla f\n")
    take(small, speakers=small / "all.rttm", genders=small / "genders")
    assert (
        f"{small}/all.stm, line 7: dropped 1 segments (0.10 s) marked "
        "ignore_time_segment_in_scoring" in caplog.text
    )
    assert (
        f"{small}/all.rttm: 2 of 5 turns have no words and are left out (the first: d, 0-2 s)"
        in caplog.text
    )
    assert f"{small}/genders: 1 of 2 speakers have no segments (the first: Karla)" in caplog.text
