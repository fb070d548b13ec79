"""Recordings with several channels: which channel is used, and that it is logged."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from corpora import NAMES, manifests, noise, take
from lhotse import Recording

from tagspeech.corpus.importing import ImportConfig, import_corpus
from tagspeech.corpus.splits import SPLITS
from tagspeech.errors import InputError


def sides(folder: Path, channels: int = 2) -> dict[str, np.ndarray]:
    """The small corpus with several channels of different noise, (N, channels)."""
    for split, name in NAMES.items():
        noise(folder / f"audio/{split}/{name}.wav", channels=channels)
    return {
        name: soundfile.read(folder / f"audio/{split}/{name}.wav", always_2d=True)[0]
        for split, name in NAMES.items()
    }


def recordings(folder: Path) -> dict[str, Recording]:
    """All imported recordings by id; each has one channel."""
    found = {one.id: one for split in SPLITS for one in manifests(folder / "out", split)[0]}
    assert {one.num_channels for one in found.values()} == {1}
    return found


def test_two_channels_are_mixed_and_logged(small: Path, caplog: pytest.LogCaptureFixture) -> None:
    samples = sides(small)
    take(small)
    for name, one in recordings(small).items():
        assert one.load_audio()[0] == pytest.approx(samples[name].mean(axis=1), abs=2**-15)
    assert (
        f"3 recordings have 2 channels: using their mix (the first: {small}/audio/train/a.wav); "
        "--channel chooses another or each" in caplog.text
    )


def test_float_channels_are_mixed(small: Path) -> None:
    samples = sides(small)["a"]
    samples[:, 0] = 0
    soundfile.write(small / "audio/train/a.wav", samples, 8000, subtype="FLOAT")
    take(small)
    assert recordings(small)["a"].load_audio()[0] == pytest.approx(samples[:, 1] / 2, abs=1e-6)


def test_first_channel_of_an_array_is_used(small: Path, caplog: pytest.LogCaptureFixture) -> None:
    samples = sides(small, channels=4)
    take(small)
    assert np.array_equal(recordings(small)["a"].load_audio()[0], samples["a"][:, 0])
    assert "3 recordings have 4 channels, one array: using channel 0" in caplog.text
    caplog.clear()
    take(small, channel="mix")
    mix = recordings(small)["a"].load_audio()[0]
    assert mix == pytest.approx(samples["a"].mean(axis=1), abs=2**-15)
    assert "3 recordings have 4 channels: using their mix" in caplog.text


def test_chosen_channel_is_logged(small: Path, caplog: pytest.LogCaptureFixture) -> None:
    samples = sides(small)
    take(small, channel=1)
    assert np.array_equal(recordings(small)["a"].load_audio()[0], samples["a"][:, 1])
    assert "3 recordings have 2 channels: using channel 1" in caplog.text


@pytest.mark.parametrize("labels", [("A", "B"), ("1", "2"), ("0", "1")])
def test_each_channel_is_a_recording_with_its_segments(
    small: Path, caplog: pytest.LogCaptureFixture, labels: tuple[str, str]
) -> None:
    samples = sides(small)
    lines = [
        f"{name} {label} {speaker} 0.1 0.9 words of {speaker}\n"
        for name in NAMES.values()
        for label, speaker in zip(labels, ("anna", "bert"), strict=True)
    ]
    (small / "all.stm").write_text(";; a comment\n" + "".join(lines))
    found = take(small, channel="each")
    segments = [(s.recording_id, s.speaker, s.text) for s in found["train"]]
    assert segments == [("a-ch0", "anna", "words of anna"), ("a-ch1", "bert", "words of bert")]
    for name, one in recordings(small).items():
        side = samples[name[0]][:, int(name[-1])]
        assert np.array_equal(one.load_audio()[0], side)
    assert "3 recordings have 2 channels: each is a separate recording, ID-ch0 to ID-ch1" in (
        caplog.text
    )


def test_each_with_words_and_turns_of_nist(small: Path) -> None:
    sides(small)
    words, turns = "", ""
    for name in NAMES.values():
        for label, speaker in (("A", "anna"), ("B", "bert")):
            words += f"{name} {label} 0.2 0.3 {speaker}\n"
            turns += f"SPEAKER {name} {label} 0.1 0.8 <NA> <NA> {speaker} <NA> <NA>\n"
    (small / "all.ctm").write_text(words)
    (small / "all.rttm").write_text(turns)
    found = take(small, channel="each", words=small / "all.ctm", speakers=small / "all.rttm")
    assert [(one.recording_id, one.speaker, one.text) for one in found["dev"]] == [
        ("b-ch0", "anna", "anna"),
        ("b-ch1", "bert", "bert"),
    ]


def test_each_keeps_mono_and_named_sessions(small: Path) -> None:
    noise(small / "audio/train/a.wav", channels=2)
    (small / "all.stm").write_text(
        "a-ch0 1 anna 0.1 0.9 yes\na-ch1 1 bert 0.1 0.9 no\n"
        "b 1 anna 0.1 0.9 yes\nc 1 anna 0.1 0.9 yes\n"
    )
    take(small, channel="each")
    assert set(recordings(small)) == {"a-ch0", "a-ch1", "b", "c"}


def test_both_sides_of_a_call_are_in_one_split(small: Path) -> None:
    sides(small)
    lines = [f"{name}-ch{side} 1 anna 0.1 0.9 yes\n" for name in "abc" for side in (0, 1)]
    (small / "all.stm").write_text("".join(lines))
    take(small, channel="each", split_by="shares", shares=(0.4, 0.3, 0.3))
    for split in SPLITS:
        assert len({one.id[0] for one in manifests(small / "out", split)[0]}) == 1


@pytest.mark.parametrize(
    ("channel", "words"),
    [
        ("each", "--channel each makes ID-ch0, ID-ch1, ... of a recording ID"),
        ("left", "channel must be mix, each or a number from 0, got 'left'"),
        (2, "3 of 3 recordings have no channel 2"),
    ],
)
def test_one_line_says_what_is_wrong_with_a_channel(
    small: Path, channel: object, words: str
) -> None:
    sides(small)
    with pytest.raises(InputError) as error:
        take(small, channel=channel)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_unused_kaldi_channel_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    noise(tmp_path / "wav/call.wav", channels=2)
    files = {
        "wav.scp": "a wav/call.wav\nb wav/call.wav\nc wav/call.wav\n",
        "reco2file_and_channel": "a call A\nb call A\nc call A\n",
        "text": "a yes\nb no\nc so\n",
        "utt2spk": "a anna\nb anna\nc anna\n",
    }
    (tmp_path / "data").mkdir()
    for name, text in files.items():
        (tmp_path / "data" / name).write_text(text)
    config = ImportConfig(kaldi=tmp_path / "data", wav_root=tmp_path, split_by="shares")
    import_corpus(tmp_path / "out", config)
    assert "1 files have channels that no recording uses (the first: " in caplog.text
    caplog.clear()
    (tmp_path / "data/reco2file_and_channel").write_text("a call A\nb call B\nc call A\n")
    import_corpus(tmp_path / "out", config)
    assert "channel" not in caplog.text


def test_command_line(small: Path) -> None:
    sides(small)

    def say(*options: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "tagspeech", "import", "--output", "out", *options]
        paths = ("--audio", "audio", "--words", "all.stm")
        done = subprocess.run([*command, *paths], cwd=small, capture_output=True, text=True)
        return done.returncode, done.stderr

    code, said = say()
    assert code == 0
    assert "3 recordings have 2 channels: using their mix" in said
    assert "using channel 1" in say("--channel", "1")[1]
    code, said = say("--channel", "left")
    assert code == 2
    assert "--channel: must be mix, each or a number from 0, got 'left'" in said
