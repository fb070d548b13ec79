"""A campaign against the toolkit: kills of run.sh at random moments, and damaged inputs.

    python benchmarks/campaign.py --minutes 60

One process kills a tiny recipe again and again and compares what it makes with a run that nobody
killed; another one gives damaged files and odd options to readers, configurations, folders and
verbs (`campaign_inputs.py`). Progress goes to stderr, the summary line to stdout:

    campaign: 312 kills, 0 differences, 20412 inputs, 0 tracebacks, 0 hangs, ...

Exit code 1: something was found. What led to it is in --output. A seed repeats the inputs; moments
of kills also depend on the machine.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FIRST, LAST = 0.5, 12.0  # seconds after which a run is killed, at first
PATIENCE = 1.3  # times longer after each kill without progress
LIMIT = 900.0  # seconds without progress that count as a hang
SIZES = {"train_groups": 20, "dev_groups": 6, "test_groups": 6, "meetings": 0}
STEPS = ("semantic.train", "voice.train", "llm.new.train", "train")
# What says when, where or how fast, and not what came out
UNLIKE = {".stages", "log", "tensorboard", "curve.jsonl", "results.json", "report.html"}
UNLIKE |= {"parts.json", "made_from.json", "test.raw.origin.json"}  # of files that name folders


class Recipe:
    """A tiny recipe in folders of its own."""

    def __init__(self, folder: Path, stop_stage: int) -> None:
        self.folder, self.stop_stage = folder, stop_stage
        self.said = folder / "said"

    def command(self) -> list[str]:
        """The call of run.sh."""
        options: dict[str, object] = {
            "recipe": "mini",
            "install": "false",
            "config": ROOT / "egs/template/conf/tiny.yaml",
            "from-scratch": "true",
            "offline": "true",
            "data": self.folder / "data",
            "exp": self.folder / "exp",
            "encoders": self.folder / "encoders",
            "whole": "test",
            "jobs": 1,
            "threads": 1,
            "stop-stage": self.stop_stage,
            **SIZES,
        }
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        sets = [f"{part}.{key}" for part in STEPS for key in ("max_steps=6", "checkpoint_every=1")]
        sets += [f"{part}.warmup_steps=2" for part in STEPS] + ["decode.max_new_tokens=40"]
        return [str(ROOT / "run.sh"), *words, *(word for key in sets for word in ("--set", key))]

    def start(self) -> subprocess.Popen[bytes]:
        """Starts run.sh in a process group of its own."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.said.open("ab") as said:
            return subprocess.Popen(
                self.command(), start_new_session=True, stdout=said, stderr=said, cwd=ROOT
            )

    def finished(self) -> int:
        """The number of finished stages."""
        return len(list(self.folder.glob("*/.stages/*.done")))

    def kill(self, run: subprocess.Popen[bytes], stage_too: bool) -> None:
        """SIGKILL for the driver, or also for the stage at work."""
        groups = [run.pid]
        for lock in self.folder.glob("*/.stages/lock") if stage_too else ():
            words = lock.read_text().split()
            groups += [int(words[1])] if len(words) == 2 and words[0] == str(run.pid) else []
        for group in groups:
            with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
                os.killpg(group, signal.SIGKILL)
        run.wait()

    def contents(self) -> dict[str, str]:
        """A checksum of each result."""
        return dict(self._contents())

    def _contents(self) -> Iterator[tuple[str, str]]:
        for path in sorted(self.folder.rglob("*")):
            inside = path.relative_to(self.folder)
            if not path.is_file() or UNLIKE & set(inside.parts) or path == self.said:
                continue
            data = path.read_bytes()
            if path.suffix == ".gz":
                data = gzip.decompress(data)
            data = data.replace(str(self.folder).encode(), b"FOLDER")
            if path.suffix == ".pt":  # the archive has the name of the file that was written first
                data = _weights(path)
            yield inside.as_posix(), hashlib.sha256(data).hexdigest()


def _weights(path: Path) -> bytes:
    """The tensors of a `.pt` file, as bytes."""
    import torch

    def flat(value: Any) -> Iterator[bytes]:
        if torch.is_tensor(value):
            yield value.numpy().tobytes()
        elif isinstance(value, dict):
            for key in sorted(value, key=str):
                if key != "seconds":
                    yield str(key).encode()
                    yield from flat(value[key])
        elif isinstance(value, (list, tuple)):
            for item in value:
                yield from flat(item)
        else:
            yield repr(value).encode()

    return b"\0".join(flat(torch.load(path, map_location="cpu", weights_only=True)))


def kill_runs(folder: Path, rng: random.Random, end: float, stop_stage: int) -> Counter[str]:
    """Kills runs until time `end`; counts kills, runs, differences, failures and hangs."""
    counts: Counter[str] = Counter()
    whole = Recipe(folder / "whole", stop_stage)
    if whole.start().wait() != 0:
        counts["failures"] += 1
        note(f"the run that nobody kills failed; see {whole.said}")
        return counts
    expected = whole.contents()
    note(f"{len(expected)} files to compare")
    while time.monotonic() < end:
        recipe = Recipe(folder / f"killed-{counts['runs']}", stop_stage)
        if not _run_and_kill(recipe, rng, end, counts):
            break
        counts["runs"] += 1
        found = recipe.contents()
        different = sorted(
            name for name in {**expected, **found} if expected.get(name) != found.get(name)
        )
        counts["differences"] += len(different)
        counts["leftovers"] += len(list(recipe.folder.rglob(".*.partial*")))
        if different:
            note(f"{recipe.folder}: {', '.join(different[:5])} differ")
        else:
            shutil.rmtree(recipe.folder)
        note(f"{counts['kills']} kills of {counts['runs']} finished runs")
    return counts


def _run_and_kill(recipe: Recipe, rng: random.Random, end: float, counts: Counter[str]) -> bool:
    """Kills a run until it finishes; False: the time is over, or it failed by itself."""
    longest, done, since = LAST, 0, time.monotonic()
    while True:
        run = recipe.start()
        try:
            code = run.wait(rng.uniform(FIRST, longest))
        except subprocess.TimeoutExpired:
            counts["kills"] += 1
            recipe.kill(run, stage_too=rng.random() < 0.7)
        else:
            counts["failures"] += code != 0
            if code != 0:
                note(f"a run ended with exit code {code}; see {recipe.said}")
            return code == 0
        if recipe.finished() > done:
            longest, done, since = LAST, recipe.finished(), time.monotonic()
        else:
            longest *= PATIENCE
        if time.monotonic() - since > LIMIT:
            counts["hangs"] += 1
            note(f"no progress for {LIMIT:.0f} s; see {recipe.said}")
            return False
        if time.monotonic() > end:
            return False


def note(text: str) -> None:
    """Says what happens on stderr."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--parts", default="kills,inputs", help="kills, inputs or both")
    parser.add_argument("--stop-stage", type=int, default=10, help="of the runs that are killed")
    parser.add_argument("--output", type=Path, default=ROOT / "egs/mini/exp-campaign")
    args = parser.parse_args(arguments)
    begun = time.monotonic()
    end = begun + 60 * args.minutes
    shutil.rmtree(args.output, ignore_errors=True)
    args.output.mkdir(parents=True)
    inputs: subprocess.Popen[bytes] | None = None
    if "inputs" in args.parts:
        script = Path(__file__).with_name("campaign_inputs.py")
        words = ["--minutes", args.minutes, "--seed", args.seed, "--output", args.output / "inputs"]
        inputs = subprocess.Popen([sys.executable, str(script), *map(str, words)])
    counts: Counter[str] = Counter()
    if "kills" in args.parts:
        rng = random.Random(args.seed)
        counts = kill_runs(args.output / "kills", rng, end, args.stop_stage)
    if inputs is not None:
        code = inputs.wait()
        summary = args.output / "inputs/summary.json"
        if code != 0 or not summary.exists():
            note(f"the process with the inputs ended with exit code {code}")
            counts["tracebacks"] += 1
        else:
            counts.update(json.loads(summary.read_text()))
    wrong = ("differences", "failures", "leftovers", "tracebacks", "hangs", "outside", "executed")
    shown = ("kills", "runs", "inputs", *wrong)
    minutes = (time.monotonic() - begun) / 60
    print(
        f"campaign: {', '.join(f'{counts[key]} {key}' for key in shown)}; "
        f"peak {counts['megabytes'] / 1000:.1f} GB; {minutes:.1f} minutes, seed {args.seed}"
    )
    return int(any(counts[key] for key in wrong) or counts["megabytes"] > 4000)


if __name__ == "__main__":
    sys.exit(main())
