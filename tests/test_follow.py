"""Live use: windows end in time, speakers keep their names, lines come while audio does."""

from __future__ import annotations

import io
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from lhotse import load_manifest
from numpy.typing import NDArray

from tagspeech import formats
from tagspeech.audio.pcm import LOWEST_RATE, PcmStream
from tagspeech.audio.sources import Span
from tagspeech.errors import InputError
from tagspeech.inference.linking import Voices
from tagspeech.inference.live import Cutter
from tagspeech.inference.live_speakers import Identities
from tagspeech.inference.recognizer import WindowResult
from tagspeech.options import TranscribeOptions
from tagspeech.ranges import Limits
from tagspeech.segments import Segment

RATE = 16000
Turns = list[tuple[float, float]]


@pytest.fixture(scope="module")
def speech(tiny_groups: Path) -> tuple[NDArray[np.int16], Turns]:
    """A simulated recording of several groups, and when somebody talks in it."""
    corpus = tiny_groups.parent / "corpus"
    recording = next(iter(load_manifest(corpus / "test_recordings.jsonl.gz")))
    turns = [
        (one.start, one.end)
        for one in load_manifest(corpus / "test_supervisions.jsonl.gz")
        if one.recording_id == recording.id
    ]
    samples, _ = soundfile.read(recording.sources[0].source, dtype="int16")
    return samples[: 40 * RATE], [(start, end) for start, end in turns if end < 40]


def cut(cutter: Cutter, samples: NDArray[np.int16]) -> Iterator[tuple[Span, NDArray[np.float32]]]:
    floats = samples.astype(np.float32) / np.float32(2**15)
    for start in range(0, len(floats), cutter.block):
        for span, window_T in cutter.add(floats[start : start + cutter.block]):
            assert start / RATE - span.start <= cutter.longest  # nothing waits for longer
            yield span, window_T
    yield from cutter.end()


@pytest.mark.parametrize("longest", [4.0, 20.0])
def test_windows_hold_all_speech_and_end_in_time(
    speech: tuple[NDArray[np.int16], Turns], longest: float
) -> None:
    samples, turns = speech
    cutter = Cutter(RATE, TranscribeOptions(max_pause=0.6, max_window=longest))
    spans = []
    for span, window_T in cut(cutter, samples):
        place = round(span.start * RATE)
        assert np.array_equal(window_T * 2**15, samples[place : place + len(window_T)])
        spans.append(span)
    assert all(one.end - one.start <= longest for one in spans)
    assert all(a.end <= b.start + 1e-6 for a, b in itertools.pairwise(spans))
    assert sum(one.end - one.start for one in spans) < len(samples) / RATE - 1  # no long pause
    for start, end in turns:
        heard = sum(max(0.0, min(end, one.end) - max(start, one.start)) for one in spans)
        assert heard > 0.7 * (end - start), (start, end)


def heard(*spoken: tuple[str, list[float], float]) -> WindowResult:
    """A window of (speaker, voice, seconds), one after another."""
    segments = tuple(
        Segment("m", name, 10.0 * n, 10.0 * n + seconds, "x")
        for n, (name, _, seconds) in enumerate(spoken)
    )
    vectors = np.array([voice for _, voice, _ in spoken], np.float32)
    return WindowResult(0, 99, segments, vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def test_names_last() -> None:
    ann, bob, cleo = [1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]
    who = Identities(Voices(0.5))

    def names(*spoken: tuple[str, list[float], float]) -> list[str]:
        return [one.speaker for one in who.name(heard(*spoken))]

    assert names(("1", ann, 2), ("2", bob, 2), ("1", ann, 1)) == ["1", "2", "1"]
    assert names(("1", bob, 2), ("2", [1, 0.3, 0], 2)) == ["2", "1"]
    assert names(("1", cleo, 0.4)) in (["1"], ["2"])  # a word makes no new name
    assert names(("1", cleo, 2)) == ["3"]
    assert sorted(names(("1", ann, 2), ("2", [1, 0.1, 0], 2))) == ["1", "4"]  # one window: two
    few = Identities(Voices(0.5, Limits(maximum=2)))
    for voice in (ann, bob, cleo):
        assert {one.speaker for one in few.name(heard(("1", voice, 2)))} <= {"1", "2"}
    assert few.name(WindowResult(0, 1, (), np.zeros((0, 3), np.float32))) == []
    known = Identities(Voices(0.5, enrolled={"ann": np.array(ann, np.float32)}))
    spoken = ("1", bob, 2.0), ("2", ann, 2.0)
    assert [one.speaker for one in known.name(heard(*spoken))] == ["1", "ann"]


def test_a_wav_says_what_it_is(tmp_path: Path) -> None:
    samples = np.random.default_rng(1).integers(-999, 999, (8000, 2), dtype=np.int16)
    soundfile.write(tmp_path / "a.wav", samples, 8000)
    stream = PcmStream(str(tmp_path / "a.wav"), 16000, 1, idle=0.1)
    read_T = np.concatenate(list(stream.blocks(333)))
    assert stream.rate == 8000
    assert np.array_equal(read_T * 2**15, samples[:, 1])
    soundfile.write(tmp_path / "b.wav", samples, 8000, subtype="FLOAT")
    with pytest.raises(InputError, match=r"b\.wav: --follow needs 16-bit PCM, got 32 bits"):
        PcmStream(str(tmp_path / "b.wav"), 16000, 0, idle=0.1)
    with pytest.raises(InputError, match=r"a\.wav: has no channel 2; it has \[0, 1\]"):
        PcmStream(str(tmp_path / "a.wav"), 16000, 2, idle=0.1)
    with pytest.raises(InputError, match="is no file; --follow needs a growing file"):
        PcmStream(str(tmp_path / "gone.wav"), 16000, 0, idle=0.1)
    soundfile.write(tmp_path / "c.flac", samples, 8000)
    with pytest.raises(InputError, match=r"c\.flac: is FLAC; --follow needs 16-bit PCM"):
        PcmStream(str(tmp_path / "c.flac"), 16000, 0, idle=0.1)
    (tmp_path / "d.raw").write_bytes(samples.tobytes())
    with pytest.raises(InputError, match=r"d\.raw: has no channel 1; it has \[0\]"):
        PcmStream(str(tmp_path / "d.raw"), 16000, 1, idle=0.1)
    with pytest.raises(InputError, match=rf"10 Hz: --follow needs {LOWEST_RATE} Hz or more"):
        PcmStream(str(tmp_path / "d.raw"), 10, 0, idle=0.1)


@pytest.mark.parametrize("size", [1, 777, 10**6])
def test_a_pipe_gives_the_same_blocks_in_pieces_of_any_size(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = np.random.default_rng(2).integers(-999, 999, 5000, dtype=np.int16)
    data = samples.tobytes() + b"x"  # half a sample
    reads, writes = os.pipe()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.FileIO(reads)))

    def write() -> None:
        for start in range(0, len(data), size):
            os.write(writes, data[start : start + size])
        os.close(writes)

    threading.Thread(target=write).start()
    blocks = list(PcmStream("-", RATE, 0, idle=0.1).blocks(512))
    assert [len(one) for one in blocks] == [512] * 9 + [392]
    assert np.array_equal(np.concatenate(blocks) * 2**15, samples)


def test_what_a_file_held_comes_before_its_end_is_mourned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed: list[object] = []
    monkeypatch.setattr(threading, "excepthook", failed.append)
    path = tmp_path / "a.raw"

    def truncate() -> None:
        os.truncate(path, 100)

    def replace() -> None:
        (tmp_path / "b.raw").write_bytes(b"")
        (tmp_path / "b.raw").replace(path)

    for end, words in (
        (truncate, "became shorter"),
        (replace, "was replaced"),
        (path.unlink, "was removed"),
    ):
        path.write_bytes(bytes(9000))
        stream = PcmStream(str(path), RATE, 0, idle=60)
        blocks = stream.blocks(1000)
        first = next(blocks)
        end()
        assert sum(map(len, blocks)) + len(first) == 4500
        assert words in str(stream.problem)
    path.write_bytes(bytes(9000))
    stream = PcmStream(str(path), RATE, 0, idle=60)
    blocks = stream.blocks(1000)
    next(blocks)
    stream.stop()
    assert sum(map(len, blocks)) == 3500
    time.sleep(0.3)  # the reader looks again
    assert stream.problem is None
    assert not failed


def test_windows_of_no_length_are_refused() -> None:
    for window, pause in ((0.5, 1.0), (9.0, -1.0), (float("inf"), 1.0), (9.0, float("nan"))):
        with pytest.raises(InputError, match=r"must be [01] or more, got"):
            Cutter(RATE, TranscribeOptions(max_window=window, max_pause=pause))
    with pytest.raises(InputError, match="--vad none"):
        Cutter(RATE, TranscribeOptions(vad="none", max_window=9.0))


def start(model: Path, audio: object, *args: str) -> subprocess.Popen[bytes]:
    words = ["transcribe", "--model", str(model), "--follow", "--verbose", "--threads", "1"]
    command = [sys.executable, "-m", "tagspeech", *words, *args, str(audio)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe)


@pytest.mark.parametrize("end", ["closed", "interrupted"])
def test_standard_input_is_decoded_while_it_comes(
    tiny_model_folder: Path, speech: tuple[NDArray[np.int16], Turns], end: str
) -> None:
    process = start(tiny_model_folder, "-", "--max-window", "5")
    assert process.stdin
    assert process.stderr
    assert process.stdout
    writer = threading.Thread(target=process.stdin.write, args=(speech[0][: 12 * RATE].tobytes(),))
    writer.start()
    for line in process.stderr:  # the input is open still, and would be for ever
        if b"decoded in" in line:
            break
    else:
        pytest.fail("nothing was decoded before the end of the input")
    writer.join(60)
    if end == "closed":
        process.stdin.close()
    else:
        process.send_signal(signal.SIGTERM)
    lines = process.stdout.read().decode().splitlines()
    assert process.wait(60) == 0, process.stderr.read()
    assert all(json.loads(line)["session_id"] == "live" for line in lines)
    assert lines


def test_a_growing_file_ends_when_it_no_longer_grows(
    tiny_model_folder: Path, speech: tuple[NDArray[np.int16], Turns], tmp_path: Path
) -> None:
    path = tmp_path / "talk.raw"
    path.write_bytes(speech[0][: 3 * RATE].tobytes())
    process = start(tiny_model_folder, path, "--idle", "4", "--format", "rttm")
    time.sleep(1)
    with path.open("ab") as file:
        file.write(speech[0][3 * RATE : 8 * RATE].tobytes())
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert b"decoded in" in err
    (tmp_path / "talk.rttm").write_bytes(out)
    told = formats.read(tmp_path / "talk.rttm")
    assert {one.session for one in told} == {"talk"}
    assert max(one.end for one in told) > 3


def test_a_wav_that_is_removed_while_it_is_written(
    tiny_model_folder: Path, speech: tuple[NDArray[np.int16], Turns], tmp_path: Path
) -> None:
    path, voice = tmp_path / "talk.wav", tmp_path / "ann.wav"
    soundfile.write(voice, speech[0][: 8 * RATE], RATE)
    soundfile.write(path, speech[0][:0], RATE)  # the header says that there is nothing yet
    options = "--idle", "60", "--max-window", "3", "--enroll", f"ann={voice}"
    process = start(tiny_model_folder, path, *options)
    with path.open("ab") as file:
        file.write(speech[0][: 8 * RATE].tobytes())
    assert process.stderr
    for line in process.stderr:
        if b"decoded in" in line:
            break
    path.unlink()
    out, err = process.communicate(timeout=120)
    assert process.returncode == 2
    assert f"{path}: was removed while it was followed" in err.decode()
    assert "ann" in {json.loads(line)["speaker"] for line in out.splitlines()}


def test_what_does_not_go_with_it_is_refused(tiny_model_folder: Path, tmp_path: Path) -> None:
    for args, words in (
        (["--format", "ctm"], "--format ctm: must be one of seglst, rttm, stm with --follow"),
        (["--output", str(tmp_path)], "--output: has no effect with --follow"),
    ):
        process = start(tiny_model_folder, "-", *args)
        _, err = process.communicate(timeout=120)
        assert process.returncode == 2
        assert words in err.decode()
