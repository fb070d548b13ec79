"""Damaged inputs for the campaign: each is read under a limit of time, and its error is one line.

    python benchmarks/campaign_inputs.py --minutes 1 --output FOLDER

A target is a reader with examples. An example is damaged at random (bytes, lines, values of JSON)
and read. An `InputError` or `OSError` of one line is as it should be; any other exception, a longer
message, more than a minute, a file outside the folder, or a command that ran is kept in
FOLDER/found. FOLDER/summary.json has the counts.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import io
import json
import logging
import os
import random
import resource
import shutil
import signal
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from campaign_targets import CANARY, Target, make_targets

from tagspeech.errors import InputError, one_line

HANG = 60  # seconds
LONGEST_MESSAGE = 3000  # characters
ODD_VALUES: list[Any] = [
    *(None, True, -1, 0, 1, 0.5, 1e30, -1e30, float("nan"), float("inf"), 10**400, 2**63, ""),
    *("x", "../../../outside", "a/b", "\0", "\n", "\ud800", "é", "x" * 10_000, [], {}, [[]]),
    *([1, "a", None], {"a": {"b": [{}]}}, f"touch {CANARY}", f"pipe:touch {CANARY}"),
    *("<script>alert(1)</script>", "~", "*a", "!!int x"),
]
ODD_BYTES = [
    *(b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\r", b"\n\n", b'"', b"{", b"[" * 3000, b"\x1a", b"-"),
    *(b"9" * 400, b"nan", b"inf", b"1e999", b"\xed\xa0\x80", b"&a [*a]", b"!!int x", b"../../../x"),
    *(b" ", b"\t", b"%s", b"<", b">", b"\x1f\x8b", b"#", b":", b"*", b"'"),
]


class Hang(BaseException):
    """Raised by the clock in whatever runs too long."""


def mutate(data: bytes, rng: random.Random) -> bytes:
    """`data`, damaged in one to three places."""
    if data[:2] == b"\x1f\x8b" and rng.random() < 0.8:  # damage of what is inside is deeper
        return gzip.compress(mutate(gzip.decompress(data), rng), 1)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        data = rng.choice([_json_value, _json_value, _lines, _bytes, _bytes])(data, rng)
    return data


def _bytes(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data) + 1)
    end = min(len(data), start + rng.choice([0, 1, 1, 4, 100, len(data)]))
    middle = data[start:end]
    kind = rng.randrange(5)
    if kind == 0:
        return data[:start]  # cut off
    if kind == 1 and middle:
        flipped = bytes([middle[0] ^ (1 << rng.randrange(8))])
        return data[:start] + flipped + data[start + 1 :]
    if kind == 2:
        return data[:start] + middle + data[start:]  # said twice
    odd = rng.choice(ODD_BYTES) if kind == 3 else bytes([rng.randrange(256)])
    return data[:start] + odd + data[end:]


def _lines(data: bytes, rng: random.Random) -> bytes:
    lines = data.split(b"\n")
    place = rng.randrange(len(lines))
    words = lines[place].split(b" ")
    kind = rng.randrange(4)
    if kind == 0:
        del lines[place]
    elif kind == 1:
        lines.insert(rng.randrange(len(lines)), lines[place])
    elif kind == 2:
        words[rng.randrange(len(words))] = rng.choice(ODD_BYTES)
        lines[place] = b" ".join(words)
    else:
        rng.shuffle(words)
        lines[place] = b" ".join(words)
    return b"\n".join(lines)


def _json_value(data: bytes, rng: random.Random) -> bytes:
    """Another value somewhere in JSON, or in a line of JSON; damaged bytes for other data."""
    text, before, after = data, b"", b""
    if b"\n" in data.strip() and not data.lstrip().startswith((b"[\n", b"{\n")):
        lines = data.split(b"\n")
        place = rng.randrange(len(lines))
        before = b"".join(line + b"\n" for line in lines[:place])
        text, after = lines[place], b"".join(b"\n" + line for line in lines[place + 1 :])
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError):
        return _bytes(data, rng)
    changed = _with_odd_value(tree, rng)
    return before + json.dumps(changed).encode() + after


def _with_odd_value(tree: Any, rng: random.Random) -> Any:
    if not tree or not isinstance(tree, (dict, list)) or rng.random() < 0.1:
        return rng.choice(ODD_VALUES)
    key = rng.choice(list(tree)) if isinstance(tree, dict) else rng.randrange(len(tree))
    kind = rng.random()
    if kind < 0.1:
        del tree[key]
    elif kind < 0.2 and isinstance(tree, dict):
        tree[str(rng.choice(ODD_VALUES))[:100]] = tree.pop(key)
    else:
        tree[key] = _with_odd_value(tree[key], rng)
    return tree


@dataclass
class Inputs:
    """Damaged inputs in a folder, and what came of them."""

    folder: Path
    rng: random.Random
    counts: Counter[str]

    def try_one(self, target: Target) -> None:
        """Damages an example of a target and reads it."""
        box = self.folder / "box/a/b/c"  # three levels for ../../../
        shutil.rmtree(self.folder / "box", ignore_errors=True)
        box.mkdir(parents=True)
        damaged = target.write(box, self.rng, mutate)
        before = self._around()
        memory = _peak()
        problem, said = self._call(target, box)
        self.counts["inputs"] += 1
        if _peak() - memory > 500:
            self._keep(target, box / damaged, "memory", f"{_peak()} MB")
        if self._around() != before:
            problem, said = "outside", f"{self._around() ^ before}\n{said}"
        if (box / CANARY).exists():
            problem = "executed"
        if problem:
            self.counts[problem] += 1
            self._keep(target, box / damaged, problem, said)

    def _around(self) -> set[str]:
        """The files around the folder that a target may write to."""
        box = self.folder / "box"
        found = {str(p.relative_to(box)) for p in box.rglob("*") if "a/b/c" not in str(p)}
        return found | {path.name for path in self.folder.iterdir()} - {"found", "summary.json"}

    def _call(self, target: Target, box: Path) -> tuple[str, str]:
        """Reads with a limit of time; gives the kind of a problem ("" if none), and a traceback."""
        signal.alarm(HANG)
        os.chdir(box)
        try:
            with (
                contextlib.redirect_stdout(io.StringIO()),
                contextlib.redirect_stderr(io.StringIO()) as stderr,
            ):
                target.call(box)
            if "Traceback (most recent" in stderr.getvalue():
                return "tracebacks", stderr.getvalue()
        except (InputError, OSError) as error:
            message = one_line(str(error)) if isinstance(error, OSError) else str(error)
            if "\n" in message or len(message) > LONGEST_MESSAGE:
                return "tracebacks", f"the message is not one line: {message[:LONGEST_MESSAGE]}"
        except Hang:
            return "hangs", traceback.format_exc()
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            return "tracebacks", traceback.format_exc()
        finally:
            signal.alarm(0)
            os.chdir(self.folder)
        return "", ""

    def _keep(self, target: Target, path: Path, problem: str, said: str) -> None:
        """Keeps the input and the traceback, the first three of a kind."""
        place = said.strip().splitlines()[-1][:80] if said else ""
        kind = f"{problem} of {target.name}: {place}"
        self.counts[f"kind {kind}"] += 1
        if self.counts[f"kind {kind}"] > 3:
            return
        print(kind, file=sys.stderr, flush=True)
        number = sum(1 for _ in (self.folder / "found").glob("*.txt"))
        (self.folder / f"found/{number}.txt").write_text(f"{kind}\n{said}", errors="replace")
        if path.is_file():
            shutil.copy(path, self.folder / f"found/{number}-{path.name}")


def _peak() -> int:
    """The largest resident memory of this process so far, in megabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def _ring(number: int, frame: FrameType | None) -> None:
    raise Hang


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--targets", default="", help="names, separated by commas (default: all)")
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    end = time.monotonic() + 60 * args.minutes
    folder = args.output.resolve()
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "found").mkdir(parents=True)
    os.chdir(folder)
    signal.signal(signal.SIGALRM, _ring)
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    inputs = Inputs(folder, random.Random(args.seed), Counter())
    with _examples() as examples:
        targets = make_targets(examples)
        chosen = [t for t in targets if not args.targets or t.name in args.targets.split(",")]
        while time.monotonic() < end or not inputs.counts["inputs"]:
            weights = [target.weight for target in chosen]
            inputs.try_one(inputs.rng.choices(chosen, weights)[0])
    inputs.counts["megabytes"] = _peak()
    counts = {key: count for key, count in inputs.counts.items() if not key.startswith("kind ")}
    (folder / "summary.json").write_text(json.dumps(counts))
    return 0


@contextlib.contextmanager
def _examples() -> Iterator[Path]:
    """A folder for examples, outside that of the inputs."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


if __name__ == "__main__":
    sys.exit(main())
