"""An audio file opens at its real length, or one line says why it cannot and what to do."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tagspeech.audio_files import open_recording
from tagspeech.errors import InputError

RATE = 8000
SAMPLES = np.random.default_rng(1).integers(-9000, 9000, 3 * RATE, dtype=np.int16)


def wav(data: bytes, *, size: int, riff: int, before: bytes = b"", after: bytes = b"") -> bytes:
    """A WAV file of 16 bit mono whose header has these sizes, whatever the data."""
    format = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, RATE, 2 * RATE, 2, 16)
    head = struct.pack("<4sI4s", b"RIFF", riff, b"WAVE") + format + before
    return head + struct.pack("<4sI", b"data", size) + data + after


LIST = struct.pack("<4sI4s4sI6s", b"LIST", 18, b"INFO", b"ISFT", 6, b"Lavf58")
UNKNOWN = 0xFFFFFFFF


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3", "a.w64", "a.rf64"])
def test_formats(tmp_path: Path, name: str) -> None:
    format = {"mp3": "MP3", "w64": "W64", "rf64": "RF64"}.get(name.split(".")[1])
    soundfile.write(tmp_path / name, SAMPLES, RATE, format=format)
    recording = open_recording(tmp_path / name)
    assert (recording.id, recording.num_samples, recording.sampling_rate) == ("a", 3 * RATE, RATE)
    assert open_recording(tmp_path / name, "other").id == "other"


@pytest.mark.parametrize(
    "content",
    [
        wav(SAMPLES.tobytes(), size=UNKNOWN, riff=UNKNOWN, before=LIST),  # ffmpeg to a pipe
        wav(SAMPLES.tobytes(), size=0x7FFFFFFF - 36, riff=0x7FFFFFFF),  # sox to a pipe
        wav(SAMPLES.tobytes(), size=0x80000000, riff=0x80000024),  # arecord, killed
        wav(SAMPLES.tobytes(), size=6 * RATE, riff=6 * RATE + 36, after=LIST),
        wav(SAMPLES.tobytes(), size=6 * RATE + 36, riff=6 * RATE + 36),  # off by the header
    ],
)
def test_sizes_that_stand_for_the_rest_of_the_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.wav").write_bytes(content)
    recording = open_recording(tmp_path / "a.wav")
    assert recording.num_samples == 3 * RATE
    assert np.array_equal(np.round(recording.load_audio()[0] * 2**15), SAMPLES)


@pytest.mark.parametrize("after", [b"", LIST])
def test_a_file_without_samples_is_empty(tmp_path: Path, after: bytes) -> None:
    (tmp_path / "a.wav").write_bytes(wav(b"", size=0, riff=36 + len(after), after=after))
    assert open_recording(tmp_path / "a.wav").num_samples == 0


def streamed(path: Path, riff: int = 0, data: bytes = SAMPLES.tobytes()) -> None:
    path.write_bytes(wav(data, size=0, riff=riff))


def cut(path: Path) -> None:
    """Half of the file."""
    soundfile.write(path, SAMPLES, RATE)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


SIZE_0 = "its header says that it has no audio, yet 48000 bytes follow, as after streaming; "


@pytest.mark.parametrize(
    ("name", "spoil", "words"),
    [
        ("a.wav", None, "does not exist"),
        ("a.wav", Path.mkdir, "cannot be read as audio: it is not a file"),
        ("a.wav", lambda path: path.write_bytes(b""), "cannot be read as audio: it has 0 bytes"),
        ("a.wav", lambda path: path.write_text("text"), "Format not recognised; convert it to WAV"),
        ("a.m4a", lambda path: path.write_bytes(b"\0\0\0 ftypM4A "), "; convert it to WAV or FLAC"),
        ("a.wav", streamed, SIZE_0 + "write it again: ffmpeg -i {path} NEW.wav"),
        ("a.wav", lambda path: streamed(path, riff=36), SIZE_0),
        ("a.wav", lambda path: streamed(path, data=bytes(48000)), SIZE_0),
        ("a.wav", cut, "it is cut off: its header says 3.00 s, 1.50 s are there; get it again"),
        ("a.flac", cut, "it is cut off or damaged: its header says 3.00 s, the end of which"),
        ("a.mp3", cut, "it is cut off or damaged: its header says 3.00 s, the end of which"),
    ],
)
def test_one_line_says_what_to_do(
    tmp_path: Path, name: str, spoil: Callable[[Path], object] | None, words: str
) -> None:
    path = tmp_path / name
    if spoil:
        spoil(path)
    with pytest.raises(InputError) as error:
        open_recording(path)
    assert str(error.value).startswith(f"{path}: ")
    assert words.format(path=path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_flac_that_does_not_know_its_length(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.flac", SAMPLES, RATE)
    content = bytearray((tmp_path / "a.flac").read_bytes())
    content[21] &= 0xF0  # the 36 bits of STREAMINFO that count the samples, all 0
    content[22:26] = bytes(4)
    (tmp_path / "a.flac").write_bytes(content)
    with pytest.raises(InputError, match=r"its header does not say how long it is; write it again"):
        open_recording(tmp_path / "a.flac")
