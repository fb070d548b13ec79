#!/usr/bin/env python3
"""Marks of finished stages: what a stage read, how it was asked, what it made, how long it took.

A stage has one of two files in the folder of marks. `NN-name.begun` says what it started from; when
it ends well, this becomes `NN-name.done`. A stage is done if and only if its `.done` exists, its
inputs have the same content, its options are the same and its outputs exist. A `.begun` that fits
belongs to a stage that was stopped: its work goes on; anything else begins anew, with the work of
before moved aside to `FOLDER.old`. It is removed once the stage has ended well, unless there was no
mark: what no stage made is not ours to remove.

Standard library only, and started with `python3 -I -S`: a run that has nothing to do takes no time.
"""

from __future__ import annotations

import argparse
import fcntl
import gzip
import hashlib
import io
import itertools
import json
import os
import re
import shutil
import signal
import sys
import time
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# A progress bar of tqdm, and what precedes it on its line; it may be cut off.
_BAR = re.compile(r".*\[(?:\d+:)?\d\d:\d\d(?:<|, )[^\]]*(?:\]|$)")
# How our programs say why they fail: `tagspeech VERB: `, `NAME.sh: error: `, `process N: `.
_REASON = re.compile(r"(tagspeech [a-z-]+|[\w.-]+: error|process \d+): ")
# Such a line that only points to another one.
_NO_REASON = ("see above", "ChildFailedError:")
_LONGEST_REASON = 400  # characters


class MarkError(Exception):
    """The message is one line for the user."""


def fingerprint(path: Path) -> str:
    """SHA-256 of a file; of what is inside for .gz, whose header holds a time; of all in a folder.

    Raises `MarkError` where the file cannot be read.
    """
    digest = hashlib.sha256()
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            if file.is_file():
                digest.update(f"{file.relative_to(path).as_posix()} {fingerprint(file)}\n".encode())
        return digest.hexdigest()
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    except (OSError, EOFError, zlib.error) as error:
        raise MarkError(f"{path}: cannot be read: {error}") from error
    return digest.hexdigest()


def configuration_of(name: str, stages: str) -> dict[str, Any]:
    """What a stage depends on of the configuration: dotted key, value.

    name    NN-title
    stages  what `tagspeech config --stages` prints

    Raises `MarkError` for a stage that is not in it.
    """
    of_stages: dict[str, dict[str, Any]] = json.loads(stages)
    number = str(int(name[:2]))
    if number not in of_stages:
        raise MarkError(f"tagspeech/dependencies.py does not say what stage {number} depends on")
    return of_stages[number]


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str | None:
    """What makes a mark stale, in words; None where it still holds."""
    if old.get("options") != new["options"]:
        return "its options changed"
    for what, field in (("configuration", "config"), ("input", "inputs")):
        before, after = old.get(field, {}), new[field]
        for key in sorted({*before, *after}):
            if (key in before, before.get(key)) != (key in after, after.get(key)):
                return f"{what} {key} changed"
    return None


def read_mark(path: Path) -> dict[str, Any] | None:
    """A mark, or None where there is none or where it is no JSON object."""
    try:
        mark = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return mark if isinstance(mark, dict) else None


def write_mark(path: Path, mark: Mapping[str, Any]) -> None:
    """Writes a mark in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_text(json.dumps(mark, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def move_aside(folder: str) -> str:
    """Renames `folder` to the first free of `folder.old`, `folder.old2`, ... and gives the name."""
    names = (f"{folder}.old{number}" for number in itertools.count(2))
    free = next(n for n in itertools.chain([f"{folder}.old"], names) if not os.path.exists(n))
    os.rename(folder, free)
    return free


def check(args: argparse.Namespace) -> None:
    """Prints `done`, `continue` or `begin: REASON`; in the last two cases the stage has begun."""
    done_path = args.marks / f"{args.name}.done"
    begun_path = args.marks / f"{args.name}.begun"
    new: dict[str, Any] = {
        "options": args.options,
        "config": configuration_of(args.name, args.config),
        "inputs": {path: fingerprint(Path(path)) for path in args.inputs},
        "outputs": args.outputs,
    }
    done, begun = read_mark(done_path), read_mark(begun_path)
    new["aside"] = begun.get("aside", []) if begun else []
    if begun is not None and difference(begun, new) is None:
        answer = "continue"
        if args.dry_run:
            return print(answer)
    else:
        missing = [path for path in args.outputs if not Path(path).exists()]
        if done is None:
            reason = "what it read or how it was asked changed" if begun else "not done yet"
        elif stale := difference(done, new):
            reason = stale
        elif missing:
            reason = f"{missing[0]} is missing"
        elif args.again:
            reason = "asked for"
        else:
            print("done")
            return
        answer = f"begin: {reason}"
        if args.dry_run:
            return print(answer)
        begun_path.unlink(missing_ok=True)  # a kill from here on must not look like a stop in work
        done_path.unlink(missing_ok=True)
        aside = [move_aside(folder) for folder in args.work if os.path.exists(folder)]
        if done or begun:
            new["aside"] += aside
    write_mark(begun_path, {**new, "begun": time.time()})
    print(answer)


def finish(args: argparse.Namespace) -> None:
    """Turns `.begun` into `.done`. Raises `MarkError` where an output was not made."""
    begun_path = args.marks / f"{args.name}.begun"
    mark = read_mark(begun_path)
    if mark is None:
        raise MarkError(f"{begun_path}: is missing: was the folder removed meanwhile?")
    for path in mark["outputs"]:
        if not Path(path).exists():
            raise MarkError(f"its command ended well, yet did not make {path}")
    aside = mark.pop("aside")
    now = time.time()
    mark["seconds"] = round(now - mark.pop("begun"), 1)
    mark["finished"] = time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(now))
    write_mark(args.marks / f"{args.name}.done", mark)
    begun_path.unlink()
    for folder in aside:
        shutil.rmtree(folder, ignore_errors=True)


def seconds(args: argparse.Namespace) -> None:
    """Prints `{"0": 12.3, ...}`: the seconds of every finished stage (of its last start)."""
    paths = [path for folder in args.marks for path in sorted(folder.glob("*.done"))]
    marks = {path: read_mark(path) for path in paths}
    print(json.dumps({str(int(p.name[:2])): mark["seconds"] for p, mark in marks.items() if mark}))


def reason(args: argparse.Namespace) -> None:
    """Prints why a command failed, in one line: what its log says behind byte --start."""
    killed = ""
    if args.code > 128 and args.code - 128 in signal.valid_signals():
        killed = f"it was killed by {signal.Signals(args.code - 128).name}"
        killed += " (out of memory?)" if args.code - 128 == signal.SIGKILL else ""
    try:
        stated, last = read_reason(args.log, args.start)
    except FileNotFoundError:
        print(
            "; ".join(filter(None, [killed, "its log is gone: was the folder removed meanwhile?"]))
        )
        return
    if killed:
        print(killed + (f"; it said last: {stated}" if stated else ""))
    elif not stated and not last.endswith("\n"):
        print("its log is cut off (is the disk full?)" if last else "it gave no reason")
    else:
        print(stated or last.strip() or "it gave no reason")


def read_reason(log: Path, start: int) -> tuple[str, str]:
    """The line of a log that states a failure ("" if there is none), and the last line.

    Progress bars, which are redrawn after the failure, are left out. A failure is stated by a line
    of our programs (`_REASON`) or by the end of a traceback; what follows that is not the reason.
    """
    stated = last = ""
    in_traceback = False
    with log.open("rb") as file:
        file.seek(start)
        # Universal newlines: a carriage return, which starts a redrawn bar, ends a line too.
        for raw in io.TextIOWrapper(file, encoding="utf-8", errors="replace"):
            line = _BAR.sub("", raw)
            if not line.strip():
                continue
            last = line
            text = line.strip()[:_LONGEST_REASON]
            ends_traceback = in_traceback and not line.startswith(" ")
            in_traceback = text.startswith("Traceback (") or (in_traceback and not ends_traceback)
            if (ends_traceback or _REASON.match(text)) and not (
                stated and text.endswith(_NO_REASON)
            ):
                stated = text
    return stated, last


def lock(args: argparse.Namespace) -> None:
    """Locks an open descriptor of the calling shell, which keeps the lock; exit code 1: taken."""
    deadline = time.monotonic() + args.wait
    while True:
        try:
            return fcntl.flock(args.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                sys.exit(1)
            time.sleep(0.05)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="local/mark.py", description=__doc__.split("\n")[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in (check, finish):
        sub = verbs.add_parser(verb.__name__, help=verb.__doc__)
        sub.set_defaults(function=verb)
        sub.add_argument("--marks", type=Path, required=True, help="folder of the marks")
        sub.add_argument("--name", required=True, help="NN-name")
        if verb is check:
            sub.add_argument("--again", action="store_true", help="begin even if done")
            sub.add_argument("--dry-run", action="store_true", help="answer only; nothing begins")
            sub.add_argument("--config", required=True, help="of `tagspeech config --stages`")
            sub.add_argument("--options", default="", help="other options that matter")
            sub.add_argument("--inputs", nargs="*", default=[])
            sub.add_argument("--outputs", nargs="*", default=[])
            sub.add_argument("--work", nargs="*", default=[], help="folders with partial results")
    sub = verbs.add_parser("seconds", help=seconds.__doc__)
    sub.set_defaults(function=seconds)
    sub.add_argument("marks", type=Path, nargs="+")
    sub = verbs.add_parser("reason", help=reason.__doc__)
    sub.set_defaults(function=reason)
    sub.add_argument("log", type=Path)
    sub.add_argument("--start", type=int, default=0, help="where the log of this attempt begins")
    sub.add_argument("--code", type=int, default=1, help="exit code of the command")
    sub = verbs.add_parser("lock", help=lock.__doc__)
    sub.set_defaults(function=lock)
    sub.add_argument("descriptor", type=int)
    sub.add_argument("--wait", type=float, default=0.0, help="seconds")
    return parser.parse_args()


def main() -> None:
    """One line on stderr and exit code 1 for what goes wrong."""
    args = parse()
    try:
        args.function(args)
    except (MarkError, OSError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
