"""Kaldi's data directories, whole ones and broken ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from corpora import Source, imported, manifests, noise, rejected
from lhotse.kaldi import load_kaldi_data_dir

from tagspeech.corpus.importing import ImportConfig, import_corpus
from tagspeech.corpus.splits import SPLITS
from tagspeech.errors import InputError


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


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("text", None, "text: No such file"),
        ("segments", "a-1 a 0 1\na-1 a 1 2\n", "segments, line 2: 'a-1' has an earlier line"),
        ("segments", "a-1 a 0 1 A\n", "make each channel a recording"),
        (
            "segments",
            "a-1 a zero 1\n",
            "a-1: start and end must be numbers, got zero and 1",
        ),
        ("segments", "a-1 a 1 1\n", "segments, utterance a-1: "),
        ("spk2gender", "anna x\n", "spk2gender, speaker anna: gender must be m, f or u, got 'x'"),
        ("reco2file_and_channel", "a sides left\n", "must be a file and a channel such as A"),
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
