"""Recordings of any length and number of channels: nothing is lost without a word."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from tagspeech import TagSpeech
from tagspeech.audio.sources import ArrayAudio, Span, open_audio
from tagspeech.cli import main
from tagspeech.config import DecodeConfig
from tagspeech.errors import InputError
from tagspeech.inference.meeting import cut_windows
from tagspeech.inference.recognizer import Recognizer
from tagspeech.options import TranscribeOptions

RATE = 16000
ENERGY = ("--vad", "energy")


def bursts(seconds: float, every: float = 3.0, seed: int = 1) -> NDArray[np.float32]:
    """Noise that an energy detector takes for speech: two seconds of every three."""
    rng = np.random.default_rng(seed)
    audio = rng.normal(0, 1e-4, round(seconds * RATE))
    for start in np.arange(0, seconds, every):
        part = audio[round(start * RATE) : round((start + every - 1) * RATE)]
        part[:] = rng.normal(0, 0.1, len(part))
    return audio.astype(np.float32)


def run(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[list[dict[str, object]], str]:
    """The segments that `tagspeech transcribe` prints, and its messages."""
    assert main(["transcribe", "--threads", "1", *map(str, args)]) == 0
    out, err = capsys.readouterr()
    return json.loads(out), err


@pytest.mark.parametrize("seconds", [0.0, 0.1, 5, 20, 60, 79, 81])
@pytest.mark.parametrize("vad", ["auto", "energy", "none"])
def test_the_window_of_the_model_decides(seconds: float, vad: str) -> None:
    options = TranscribeOptions(vad=vad, max_window=12.0).resolved(DecodeConfig())
    spans = list(cut_windows(ArrayAudio("a", bursts(seconds), RATE), options))
    assert all(span.end - span.start <= 12.0 + 1e-6 for span in spans)
    assert bool(spans) == (seconds > 0) or vad == "auto"
    if 0 < seconds <= 12:
        whole = vad in ("auto", "none")
        assert (len(spans) == 1 and spans[0] == (0.0, seconds)) or not whole


def test_recordings_of_any_length_in_python(tiny_model_folder: Path, tmp_path: Path) -> None:
    model = TagSpeech.from_pretrained(tiny_model_folder)
    arrays = [bursts(seconds) for seconds in (0.0, 0.1, 5, 90)]
    options = TranscribeOptions(vad="energy", max_window=10)
    found = model.transcribe(arrays, options)
    assert [len(segments) > 0 for segments in found] == [False, True, True, True]
    assert max(segment.end for segment in found[3]) > 80
    assert model.transcribe(arrays, options, batch_size=3) == found
    soundfile.write(tmp_path / "a.wav", arrays[3], RATE, subtype="FLOAT")
    (from_file,) = model.transcribe([tmp_path / "a.wav"], options)
    assert [(one.start, one.words) for one in from_file] == [
        (one.start, one.words) for one in found[3]
    ]


def test_the_number_of_speakers_counts_for_short_recordings(
    tiny_model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    soundfile.write(tmp_path / "a.wav", bursts(30), RATE)
    args = ("--model", tiny_model_folder, *ENERGY, "--max-window", 4, tmp_path / "a.wav")
    for number in (1, 2):
        rows, _ = run(capsys, "--num-speakers", number, *args)
        assert len({row["speaker"] for row in rows}) == number


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e30])
@pytest.mark.parametrize("vad", ["silero", "energy"])
def test_a_sample_that_is_no_number_loses_nothing_else(
    bad: float,
    vad: str,
    tiny_model_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    audio = bursts(200)
    options = ("--model", tiny_model_folder, "--vad", "energy", "--max-window", 20)
    audio[60 * RATE] = 0.0
    soundfile.write(tmp_path / "a.wav", audio, RATE, subtype="FLOAT")
    whole, _ = run(capsys, *options, tmp_path / "a.wav")
    audio[60 * RATE] = bad
    soundfile.write(tmp_path / "a.wav", audio, RATE, subtype="FLOAT")
    if vad == "energy":
        rows, _ = run(capsys, *options, tmp_path / "a.wav")
        assert rows == whole
    else:
        (opened,) = open_audio(tmp_path / "a.wav")
        assert all(np.isfinite(piece).all() for piece in opened.pieces(RATE))
    (told,) = [record.getMessage() for record in caplog.records if "no numbers" in record.msg]
    assert re.search(r"a\.wav: 1 samples from 60\.00 s on are no numbers or far too large", told)


def test_arrays_with_such_samples_are_refused(tiny_model_folder: Path) -> None:
    model = TagSpeech.from_pretrained(tiny_model_folder)
    for bad in (np.nan, np.inf, 1e30):
        audio = bursts(10)
        audio[5 * RATE] = bad
        with pytest.raises(InputError, match=r"0: has samples .* the first at 5\.00 s"):
            model.transcribe([audio])


def call(path: Path, channels: int, *loud: int) -> Path:
    """A recording of which only some channels have sound."""
    audio = np.zeros((10 * RATE, channels), dtype=np.float32)
    for channel in loud:
        audio[:, channel] = bursts(10, seed=channel)
    soundfile.write(path, audio, RATE)
    return path


def test_no_side_of_a_call_is_lost(
    tiny_model_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = ("--model", tiny_model_folder, *ENERGY)
    right = call(tmp_path / "right.wav", 2, 1)
    rows, _ = run(capsys, *model, right)
    assert rows
    assert "right.wav: has 2 channels; transcribing their mix" in caplog.text
    assert run(capsys, *model, "--channel", "mix", right)[0] == rows
    alone, _ = run(capsys, *model, "--channel", 1, right)
    assert alone
    assert run(capsys, *model, "--channel", 0, right)[0] == []
    assert "right.wav: nobody talks in it" in caplog.text

    both = call(tmp_path / "both.wav", 2, 0, 1)
    apart, _ = run(capsys, *model, "--channel", "each", both)
    sides = [run(capsys, *model, "--channel", side, both)[0] for side in (0, 1)]
    expected = [{**row, "speaker": f"{n}-{row['speaker']}"} for n in (0, 1) for row in sides[n]]
    assert sorted(apart, key=str) == sorted(expected, key=str)
    assert apart == sorted(apart, key=lambda row: (row["start_time"], row["end_time"]))


def test_an_array_is_said_to_be_taken_by_its_first_channel(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (audio,) = open_audio(call(tmp_path / "array.wav", 8, 0))
    assert audio.channels == (0,)
    assert "array.wav: has 8 channels; transcribing channel 0" in caplog.text
    assert [one.channels for one in open_audio(tmp_path / "array.wav", "each")] == [
        (channel,) for channel in range(8)
    ]
    with pytest.raises(InputError, match=r"has no channel 8; it has \[0, 1"):
        open_audio(tmp_path / "array.wav", "8")


def test_turns_beyond_the_end_are_named_and_the_rest_is_transcribed(
    tiny_model_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    soundfile.write(tmp_path / "m.wav", bursts(10), RATE)
    turns = [(0.0, 2.0, "ann"), (9.0, 5.0, "bob"), (45.2, 1.0, "ann")]
    (tmp_path / "m.rttm").write_text(
        "".join(f"SPEAKER m 1 {a} {b} <NA> <NA> {who} <NA> <NA>\n" for a, b, who in turns)
    )
    args = ("--model", tiny_model_folder, "--diarization", tmp_path / "m.rttm", tmp_path / "m.wav")
    rows, _ = run(capsys, *args)
    assert {row["speaker"] for row in rows} == {"ann", "bob"}
    assert (
        "m.rttm: 2 turns of m reach beyond the end of the recording at 10.00 s, the first from "
        "9.00 s on" in caplog.text
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--max-window", "inf"), "--max-window: must be 1 or more, got inf"),
        (("--max-window", "nan"), "--max-window: must be 1 or more, got nan"),
        (("--max-pause", "-1"), "--max-pause: must be 0 or more, got -1"),
        (("--batch-size", "0"), "--batch-size: must be 1 or more, got 0"),
        (("--num-speakers", "0"), "--num-speakers: must be 1 or more, got 0"),
        (("--min-speakers", "3", "--max-speakers", "2"), "must be 1 or more, got 3 to 2"),
        (("--max-window", "4", "--window-overlap", "3"), "window overlap: must be from 0 to half"),
        (("--channel", "left"), "channel: must be auto, mix, each or a number from 0, got 'left'"),
        (("--follow", "--window-overlap", "1"), "--window-overlap: has no effect with --follow"),
    ],
)
def test_options_out_of_range_are_refused_before_work_starts(
    options: tuple[str, ...], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(RATE), RATE)
    assert main(["transcribe", "--model", "none", *options, str(tmp_path / "a.wav")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line


def test_a_recording_that_is_damaged_within_is_one_line(
    tiny_model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.flac"
    soundfile.write(path, bursts(120), RATE)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 5000] = bytes(5000)
    path.write_bytes(data)
    args = ["--model", str(tiny_model_folder), *ENERGY, "--max-window", "20", str(path)]
    code = main(["transcribe", *args])
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if line.startswith("tagspeech transcribe: ")]
    assert code == 2
    assert out == ""
    assert len(lines) == 1
    assert "a.flac: cannot be read from " in lines[0]


def test_speakers_of_a_single_window_stay(tiny_model_folder: Path) -> None:
    """What a model says of a recording that fits into its window is not clustered again."""
    model = TagSpeech.from_pretrained(tiny_model_folder)
    (segments,) = model.transcribe([bursts(6)])
    recognizer = Recognizer(model)
    from tagspeech.inference.recognizer import Window

    audio = ArrayAudio("0", bursts(6), RATE)
    (result,) = recognizer.recognize([Window(audio, Span(0.0, 6.0))])
    assert segments == sorted(result.segments, key=lambda one: (one.start, one.end))
