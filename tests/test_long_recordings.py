"""Recordings that are no tidy meeting, and long ones: by the command line, sense or a message."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

RATE = 16000


def transcribe(model: Path, audio: Path, *options: str) -> tuple[list[Any], str, float]:
    """Segments, messages and peak memory of the process."""
    command = [sys.executable, "-m", "tagspeech", "transcribe", "--model", str(model)]
    command += ["--threads", "1", "--format", "seglst", *options, str(audio)]
    outputs = [audio.with_suffix(end) for end in (".out", ".err")]
    with outputs[0].open("w") as out, outputs[1].open("w") as err:
        begun = subprocess.Popen(command, stdout=out, stderr=err)
        _, status, usage = os.wait4(begun.pid, 0)
    begun.returncode = os.waitstatus_to_exitcode(status)
    told = outputs[1].read_text()
    assert begun.returncode == 0, told
    return json.loads(outputs[0].read_text()), told, usage.ru_maxrss


def music(seconds: int) -> NDArray[np.float32]:
    """Chords of three tones and their overtones, one each second, struck and fading."""
    time = np.arange(RATE) / RATE
    chords = []
    for number in range(seconds):
        root = 220 * 2 ** ((0, 5, 7, 3)[number % 4] / 12)
        tones = [root, root * 2 ** (4 / 12), root * 2 ** (7 / 12)]
        waves = [np.sin(2 * np.pi * k * tone * time) / k for tone in tones for k in (1, 2, 3, 4)]
        chords.append(np.sum(waves, 0) * np.exp(-3 * time) * np.minimum(1, time * 100))
    audio = np.concatenate(chords)
    return (0.3 * audio / np.abs(audio).max()).astype(np.float32)


@pytest.mark.parametrize("kind", ["silence", "music"])
def test_where_nobody_speaks_a_message_says_so(
    kind: str, tiny_model_folder: Path, tmp_path: Path
) -> None:
    audio = np.zeros(100 * RATE, dtype=np.float32) if kind == "silence" else music(100)
    path = tmp_path / f"{kind}.wav"
    soundfile.write(path, audio, RATE)
    rows, told, _ = transcribe(tiny_model_folder, path)
    assert rows == []
    assert f"{path}: nobody talks in it, as far as --vad silero can tell" in told


@pytest.mark.parametrize("people", [1, 10])
def test_any_number_of_speakers(tiny_model_folder: Path, tmp_path: Path, people: int) -> None:
    """Bursts of noise, in turn with a tone of each."""
    rng = np.random.default_rng(2)
    audio = rng.normal(0, 1e-4, 100 * RATE)
    for number, start in enumerate(range(0, 100 * RATE, 5 * RATE)):
        tone = np.sin(np.arange(4 * RATE) * (0.1 + 0.1 * (number % people)))
        audio[start : start + 4 * RATE] += rng.normal(0, 0.05, 4 * RATE) + 0.2 * tone
    soundfile.write(tmp_path / "a.wav", audio, RATE)
    options = ["--vad", "energy", "--max-window", "20", "--num-speakers", str(people)]
    rows, _, _ = transcribe(tiny_model_folder, tmp_path / "a.wav", *options)
    assert rows
    assert all(0 <= row["start_time"] < row["end_time"] <= 100.5 for row in rows)
    assert len({row["speaker"] for row in rows}) <= people


def test_the_peak_of_memory_does_not_grow_with_the_recording(
    tiny_model_folder: Path, tmp_path: Path
) -> None:
    rng = np.random.default_rng(1)
    minute = rng.normal(0, 1e-4, 60 * RATE)
    for start in range(0, 60, 6):
        minute[start * RATE : (start + 4) * RATE] += rng.normal(0, 0.1, 4 * RATE)
    peaks, counts = [], []
    for minutes in (2, 12):
        path = tmp_path / f"{minutes}.wav"
        with soundfile.SoundFile(path, "w", RATE, 1, "PCM_16") as file:
            for _ in range(minutes):
                file.write(minute)
        rows, _, peak = transcribe(
            tiny_model_folder, path, "--vad", "energy", "--max-window", "20", "--batch-size", "4"
        )
        assert rows
        peaks.append(peak)
        counts.append(max(row["end_time"] for row in rows))
    assert counts[1] > 11 * 60
    assert peaks[1] / peaks[0] <= 1.25
