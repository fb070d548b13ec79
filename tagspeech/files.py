"""Atomic writes, text decoding, checksums, and journals that survive a kill."""

from __future__ import annotations

import codecs
import gzip
import hashlib
import json
import os
import re
import shutil
import socket
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tagspeech.errors import InputError

# Partial results are named `.NAME.partial-PROCESS-MACHINE`, if need be with an extension behind.
_PARTIAL = re.compile(r"\..+?\.partial-(\d+)(?:-([0-9a-f]{8})(?:\.[\w.]+)?)?", re.DOTALL)
_MACHINE = f"{zlib.crc32(socket.gethostname().encode()):08x}"
_ABANDONED = 86400  # seconds without a change after which other machines' results are abandoned
_cleaned: set[Path] = set()  # folders that this process has cleaned


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path that is renamed to `path` if the block succeeds, removed otherwise.

    The block creates a file or a folder there; an existing folder at `path` is replaced. Partial
    results of killed processes in the same folder are removed first.

    Raises:
        InputError: `path` cannot be written or the disk is full.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.partial-{os.getpid()}-{_MACHINE}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path.parent)
        _remove(temporary)
        yield temporary
        if temporary.is_dir() and path.is_dir():
            shutil.rmtree(path)
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        _remove(temporary)


def _remove_abandoned(folder: Path) -> None:
    """Removes the partial results of killed processes from `folder`, once per process.

    Results of this machine are abandoned if their process has ended; results of other machines
    that share the folder if they have not changed for a day.
    """
    folder = folder.absolute()
    if folder in _cleaned:
        return
    _cleaned.add(folder)
    for path in folder.iterdir():
        if match := _PARTIAL.fullmatch(path.name):
            # Another process may remove the file at the same time, or another user may own it.
            with suppress(OSError):
                if match[2] in (None, _MACHINE):
                    abandoned = not _is_alive(int(match[1]))
                else:
                    abandoned = time.time() - path.lstat().st_mtime > _ABANDONED
                if abandoned:
                    _remove(path)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # the process of another user
        return True
    return True


def _remove(path: Path) -> None:
    """Removes a file or folder if it exists."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def check_id(name: str, where: str, longest: int = 180) -> None:
    """Raises `InputError` if `name`, read at `where`, cannot be part of a file name.

    Files are named after recordings and utterance groups, so an id such as `../x` would write
    outside the folder. A name may have 255 bytes; `longest` leaves room for times and extensions.
    """
    if name in ("", ".", "..") or not name.isprintable() or "/" in name:
        raise InputError(
            f"{where}: recording id {name[:80]!r} must be usable as a file name: not empty, "
            "without / and control characters; rename the recording"
        )
    if len(name.encode()) > longest:
        raise InputError(
            f"{where}: recording id {name[:80]!r}... must have at most {longest} bytes; rename the "
            "recording"
        )


def write_text(path: str | Path, text: str) -> None:
    """Writes `text` atomically as UTF-8, newlines unchanged."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(text.encode())


def write_json(path: str | Path, value: Any) -> None:
    """Writes `value` atomically as indented JSON."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


_MARKS = (  # byte order marks; UTF-32 first, since its mark begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
LEAST_ASCII = 0.2  # text without a mark is UTF-16 if at least this share of it is ASCII


def read_text(path: str | Path) -> str:
    """The text of `path` without a byte order mark and with "\\n" line ends.

    The file may be UTF-8, or UTF-16 or UTF-32 as written by Praat and Windows, with any line ends.

    Raises:
        InputError: The file is missing or in another encoding; the message guesses which.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), None)
    encoding = encoding or _utf16_without_mark(data) or "utf-8"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: {_undecodable(data, encoding, error.start)}") from error
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


def read_terms(text: str) -> tuple[str, ...]:
    """The terms of a file, one a line, or those in `text` itself, between commas.

    Blank lines are left out, and so are repetitions.

    Raises:
        InputError: `text` looks like the name of a file that cannot be read, or has no term.
    """
    # A long list is no name of a file, for which Path.is_file raises.
    is_file = os.path.isfile(text) or "/" in text or text.endswith(".txt")
    parts = read_text(text).split("\n") if is_file else text.split(",")
    terms = dict.fromkeys(" ".join(part.split()) for part in parts)
    if not any(terms):
        raise InputError(f"{text or 'the list of terms'}: has no term; write one a line")
    return tuple(term for term in terms if term)


def _utf16_without_mark(data: bytes) -> str | None:
    """Detects UTF-16 without a mark, in which each ASCII character has a zero byte."""
    shares = {}
    for encoding in ("utf-16-le", "utf-16-be") if b"\0" in data else ():
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" not in text:
            shares[encoding] = sum(map(str.isascii, text)) / len(text)
    likely = max(shares, key=shares.__getitem__, default=None)
    return likely if likely and shares[likely] >= LEAST_ASCII else None


def _undecodable(data: bytes, encoding: str, place: int) -> str:
    """Describes the encoding error of `data` at byte `place`."""
    if encoding != "utf-8":
        return f"byte {place + 1} is not {encoding.upper()}, as its mark says; save it as UTF-8"
    if b"\0" in data:
        return "is not text"
    # Latin-1 letters are single bytes among ASCII; Chinese encodings use pairs of bytes.
    paired = all(len(run) % 2 == 0 for run in re.findall(rb"[\x80-\xff]+", data))
    likely = "GB18030 or another Chinese encoding" if paired else "Latin-1 (ISO-8859-1)"
    code = "GB18030" if paired else "ISO-8859-1"
    line = len((data[:place] + b"?").splitlines())
    return (
        f"byte 0x{data[place]:02x} in line {line} is not UTF-8 text; the file may be "
        f"{likely}: save it as UTF-8, for example with `iconv -f {code} -t UTF-8`"
    )


def parse_json(text: str, where: str) -> Any:
    """The JSON value in `text`. Raises `InputError`, which begins with `where`, if it is none."""
    try:
        return json.loads(text)
    # ValueError: also integers of thousands of digits
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: is not JSON: {error}") from error


def read_json(path: str | Path) -> Any:
    """The JSON value in `path`. Raises `InputError` if the file is missing or is not JSON."""
    return parse_json(read_text(path), str(path))


def read_journal(path: str | Path) -> list[dict[str, Any]]:
    """The rows of a journal (one JSON object per line); [] if it does not exist.

    A last line without a newline was cut off by a kill and is ignored, so its work is redone.

    Raises:
        InputError: Another line is not a JSON object.
    """
    if not Path(path).exists():
        return []
    rows = []
    for number, line in enumerate(read_text(path).split("\n")[:-1], 1):
        row = parse_json(line, f"{path}, line {number}")
        if not isinstance(row, dict):
            raise InputError(f"{path}, line {number}: must be a JSON object; delete the file")
        rows.append(row)
    return rows


@contextmanager
def journal(path: str | Path) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Yields a function that appends a row to the journal at `path` and flushes it.

    A last line that was cut off by a kill is removed first.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = path.read_bytes() if path.exists() else b""
    with open(path, "ab") as file:
        file.truncate(whole.rfind(b"\n") + 1)

        def add(row: dict[str, Any]) -> None:
            try:
                file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
                file.flush()
            except OSError as error:
                raise InputError(f"{path}: cannot be written: {error.strerror}") from error

        yield add


CHECKSUMS = "SHA256SUMS"  # in the format of `sha256sum`


def write_checksums(folder: str | Path) -> None:
    """Writes the SHA-256 of each weight and JSON file under `folder` to `folder/SHA256SUMS`."""
    folder = Path(folder)
    files = sorted(p for p in folder.rglob("*") if p.suffix in (".safetensors", ".json"))
    lines = [f"{sha256_of(path)}  {path.relative_to(folder).as_posix()}\n" for path in files]
    write_text(folder / CHECKSUMS, "".join(lines))


def verify_checksums(folder: str | Path) -> None:
    """Raises `InputError` for the first file that is missing or differs from `SHA256SUMS`."""
    folder = Path(folder)
    for line in read_text(folder / CHECKSUMS).splitlines():
        expected, _, name = line.partition("  ")
        path = folder / name
        if not path.is_file():
            raise InputError(f"{path}: is missing; {CHECKSUMS} beside it lists it")
        if sha256_of(path) != expected:
            raise InputError(f"{path}: its SHA-256 is not the one in {CHECKSUMS}; get it again")


def sha256_inside(path: Path) -> str:
    """SHA-256 of a file; of what is inside for .gz, whose header has a time."""
    digest = hashlib.sha256()
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def sha256_of(path: Path) -> str:
    """SHA-256 of a file of any size, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
