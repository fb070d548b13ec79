"""Cost of a recording by its length: `tagspeech transcribe` as a process, one CPU thread.

    python benchmarks/meeting.py

measures CPU seconds and peak memory for recordings of 3 minutes to 8 hours with the model of the
recipe mini and draws `benchmarks/meeting.svg`. The recordings repeat a simulated meeting. Outputs
of the LLM are limited to 40 tokens (`--tokens`) to decode hours in minutes; time for generation is
proportional to the length, and its memory is freed after each window. The last line is JSON.

    python benchmarks/meeting.py --minutes 3 30 --tokens 300

does not truncate outputs.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import soundfile

ROOT = Path(__file__).resolve().parent.parent
MODEL = ROOT / "egs/mini/exp/tagspeech/pretrained"
MEETING = ROOT / "egs/mini/data/corpus/meetings/sim-meetings-00001.wav"
GIB = 2**30
BLOCK = 10  # seconds written at a time


def repeat(meeting: Path, minutes: float, output: Path) -> None:
    """Writes the meeting repeatedly until the recording has the given length."""
    with soundfile.SoundFile(meeting) as source:
        left = round(minutes * 60 * source.samplerate)
        with soundfile.SoundFile(output, "w", source.samplerate, source.channels) as target:
            while left:
                block = source.read(min(left, BLOCK * source.samplerate), dtype="int16")
                target.write(block)
                left -= len(block)
                if not len(block):
                    source.seek(0)


def limit_tokens(model: Path, tokens: int, output: Path) -> Path:
    """Copies the model with another `decode.max_new_tokens`."""
    shutil.copytree(model, output)
    config = json.loads((output / "config.json").read_text())
    config["decode"]["max_new_tokens"] = tokens
    (output / "config.json").write_text(json.dumps(config))
    return output


def measure(model: Path, meeting: Path, minutes: float, folder: Path) -> dict[str, float]:
    """CPU seconds and peak memory (GiB) of a transcription."""
    audio = folder / f"{minutes:g}.wav"
    repeat(meeting, minutes, audio)
    command = [sys.executable, "-m", "tagspeech", "transcribe", "--model", str(model)]
    command += ["--speakers", "voice", "--batch-size", "8", "--threads", "1"]
    command += ["--output", str(folder), str(audio)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"failed: {' '.join(command)}")
    audio.unlink()
    rows = json.loads((folder / f"{minutes:g}.seglst.json").read_text())
    return {
        "minutes": minutes,
        "seconds": round(used.ru_utime + used.ru_stime, 1),
        "gib": round(used.ru_maxrss * 1024 / GIB, 3),  # Linux reports KiB
        "segments": len(rows),
        "speakers": len({row["speaker"] for row in rows}),
    }


def plot(figures: list[dict[str, float]], output: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3), layout="constrained")
    hours = [row["minutes"] / 60 for row in figures]
    keys = {"seconds": "CPU seconds", "gib": "peak memory, GiB"}
    for axes, (key, label) in zip(figure.subplots(1, 2), keys.items(), strict=True):
        axes.plot(hours, [row[key] for row in figures], "o-")
        axes.set(xlabel="hours of audio", ylabel=label, xlim=(0, None), ylim=(0, None))
    figure.savefig(output)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, nargs="+", default=[3, 30, 120, 480])
    parser.add_argument("--tokens", type=int, default=40, help="limit of an output of the LLM")
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--meeting", type=Path, default=MEETING, help="16-bit WAV")
    parser.add_argument("--plot", type=Path, default=ROOT / "benchmarks/meeting.svg")
    args = parser.parse_args()
    figures = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = limit_tokens(args.model, args.tokens, folder / "model")
        for minutes in args.minutes:
            figures.append(measure(model, args.meeting, minutes, folder))
            print(figures[-1], flush=True)
    plot(figures, args.plot)
    by_minutes = {row["minutes"]: row for row in figures}
    ratios = {}
    if {3, 30} <= set(by_minutes):
        ratios["memory_ratio_30_to_3"] = round(by_minutes[30]["gib"] / by_minutes[3]["gib"], 3)
    print(json.dumps({**ratios, "figures": figures}))


if __name__ == "__main__":
    main()
