"""Why a stage failed, in one line, whatever surrounds the reason in its log."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BAR = "\rsemantic:  42%|####2     | 5/12 [00:01<00:02,  3.42 batches/s, loss=3.1, waiting=4%]"
NEW_BAR = "\rembed train:   0%|          | 0/40 [00:00<?, ? groups/s]"
LONG_BAR = "\rsemantic:  99%|#####| 9999/10000 [1:02:03<00:01,  3.42 batches/s]"
COUNTER = "\rreading: 12it [00:01,  9.80it/s]"
REASON = "tagspeech train: exp/best.pt: cannot be written: No space left on device"
TRACEBACK = """\
Traceback (most recent call last):
  File "loop.py", line 3, in fit
    save(path)
"""


def reason(root: Path, log: Path, code: int = 1, start: int = 0) -> str:
    mark = [sys.executable, "-I", "-S", str(root / "local/mark.py")]
    command = [*mark, "reason", str(log), "--code", str(code), "--start", str(start)]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert said.count("\n") == 1
    return said.removesuffix("\n")


@pytest.mark.parametrize(
    ("log", "words"),
    [
        (f"{REASON}\n", REASON),
        (f"{BAR}{REASON}\n", REASON),  # a bar ends without a newline
        (f"{BAR}\n{REASON}\n{BAR}\n", REASON),  # tqdm draws again when it is closed
        (f"{BAR}{REASON}\n{BAR}{LONG_BAR}\n\n", REASON),
        (f"{BAR}\r\n{REASON}\r\n{NEW_BAR}", REASON),
        (f"{COUNTER}{REASON}\n{COUNTER}\n", REASON),
        # What Python and its libraries say as they end is not the reason.
        (f"{REASON}\nresource_tracker: There appear to be 1 leaked objects\n", REASON),
        (
            f"{BAR}{TRACEBACK}OSError: [Errno 28] No space left on device\n{BAR}\n",
            "OSError: [Errno 28] No space left on device",
        ),
        (f"{TRACEBACK}torch.OutOfMemoryError: no\n{BAR}", "torch.OutOfMemoryError: no"),
        (f"{TRACEBACK}KeyboardInterrupt\n", "KeyboardInterrupt"),
        ("ValueError: of before\ntar: corpus.tgz: is damaged\n", "tar: corpus.tgz: is damaged"),
        ("data.sh: error: no such corpus\ncleaning up\n", "data.sh: error: no such corpus"),
        (f"tagspeech.cli: begins\n{BAR}it failed\n", "it failed"),
        (f"tagspeech groups: {'x' * 1000}\n", f"tagspeech groups: {'x' * 382}"),
        # Of several processes another one says it.
        (
            f"{BAR}process 1: it is full\ntagspeech train: one failed, see above\n",
            "process 1: it is full",
        ),
        ("tagspeech train: one failed, see above\n", "tagspeech train: one failed, see above"),
        (f"wörter \N{BULLET}\n{BAR}", "wörter \N{BULLET}"),
        (f"{NEW_BAR}{BAR}\n", "it gave no reason"),
        ("", "it gave no reason"),
        ("half a lin", "its log is cut off (is the disk full?)"),
        (f"{BAR}half a lin", "its log is cut off (is the disk full?)"),
    ],
)
def test_reason_is_found(root: Path, tmp_path: Path, log: str, words: str) -> None:
    path = tmp_path / "stage.log"
    path.write_bytes(log.encode())
    assert reason(root, path) == words


def test_earlier_attempts_do_not_count(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "stage.log"
    path.write_text(f"{REASON}\n2026-01-01 10:00:00\ntagspeech train: a command\n")
    assert reason(root, path, start=path.stat().st_size) == "it gave no reason"
    with path.open("a") as file:
        file.write(f"another\n{BAR}\n")
    assert reason(root, path, start=path.stat().st_size - len(f"another\n{BAR}\n")) == "another"


def test_killed_command_says_so(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "stage.log"
    path.write_text(BAR)
    assert reason(root, path, code=137) == "it was killed by SIGKILL (out of memory?)"
    assert reason(root, path, code=139) == "it was killed by SIGSEGV"
    path.write_text(f"{REASON}\n{BAR}")
    assert reason(root, path, code=143) == f"it was killed by SIGTERM; it said last: {REASON}"


def test_missing_log_says_so(root: Path, tmp_path: Path) -> None:
    gone = tmp_path / "log/stage.log"
    assert reason(root, gone) == "its log is gone: was the folder removed meanwhile?"


def test_log_of_bytes_that_are_no_text(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "stage.log"
    path.write_bytes(b"\xff\xfe\x00 it failed\n" + BAR.encode())
    assert reason(root, path).endswith("it failed")


def test_long_log_is_read_from_its_end(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "stage.log"
    path.write_text(f"{REASON}\n" + BAR * 200_000)
    assert reason(root, path) == REASON
