"""A job: a recording that was accepted, and its files."""

from __future__ import annotations

import re
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tagspeech.errors import InputError
from tagspeech.files import read_json, write_json
from tagspeech.segments import Segment, composed

LONGEST_NAME = 120  # bytes of the name of a session; file names of downloads are made from it


class RefusedError(InputError):
    """A request that is refused.

    Attributes:
        status: The HTTP status.
        retry_after: Seconds after which it may be repeated; None: it would be refused again.
    """

    def __init__(self, status: int, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after


@dataclass(frozen=True)
class Wish:
    """What a client asks for beside a recording; None: as the server does it."""

    speakers: str | None = None
    num_speakers: int | None = None


@dataclass
class Job:
    """A recording that was accepted.

    Attributes:
        id: Unguessable; who knows it may read and delete the job.
        number: Jobs are transcribed in this order.
        folder: Where its files are.
        name: The name of the recording, for people.
        audio: The name of the audio file in `folder`.
        seconds: Its duration.
        wish: What the client asks for.
        is_kept: The job stays until it is deleted; otherwise it belongs to a request that is open.
        accepted: When it was accepted, in seconds since 1970.
        ended: The same of its end; None: it has not ended.
        error: Why it failed; None: it did not.
        is_running: It is being transcribed.
        is_cancelled: The client has cancelled it.
        done: Seconds of it that are transcribed.
        heard: The segments so far, with the names that speakers have while it is transcribed.
    """

    id: str
    number: int
    folder: Path
    name: str
    audio: str
    seconds: float
    wish: Wish = field(default_factory=Wish)
    is_kept: bool = True
    accepted: float = 0.0
    ended: float | None = None
    error: str | None = None
    is_running: bool = False
    is_cancelled: bool = False
    done: float = 0.0
    heard: list[Segment] = field(default_factory=list)

    @property
    def state(self) -> str:
        """queued, running, done or failed."""
        if self.ended is not None:
            return "failed" if self.error is not None else "done"
        return "running" if self.is_running else "queued"

    @property
    def session(self) -> str:
        """The session of its segments: the name without its extension."""
        return Path(self.name).stem

    @property
    def result(self) -> Path:
        """The file of its segments."""
        return self.folder / "result.seglst.json"

    @property
    def page(self) -> Path:
        """The file of its page."""
        return self.folder / "page.html"

    def save(self, folder: Path) -> None:
        """Writes what was asked for to `folder/job.json`."""
        names = ("id", "number", "name", "audio", "seconds", "is_kept", "accepted")
        row = {name: getattr(self, name) for name in names}
        write_json(folder / "job.json", {**row, "wish": asdict(self.wish)})

    def unlist(self) -> None:
        """Removes the file without which a folder is no job and is deleted by the next server."""
        (self.folder / "job.json").unlink(missing_ok=True)

    def delete(self) -> None:
        """Removes the files of the job."""
        self.unlist()
        shutil.rmtree(self.folder, ignore_errors=True)

    @classmethod
    def load(cls, folder: Path) -> Job:
        """The job of a folder. Raises `InputError` if its files are damaged."""
        row = read_json(folder / "job.json")
        end = read_json(folder / "end.json") if (folder / "end.json").exists() else {}
        try:
            wish = Wish(**row.pop("wish"))
            job = cls(folder=folder, wish=wish, **row)
            job.ended, job.error = end.get("ended"), end.get("error")
        except (TypeError, AttributeError, KeyError) as error:
            raise InputError(f"{folder}: is no job of this version; move it away") from error
        return job


def safe_name(name: str) -> str:
    """What a client calls a recording, made usable as a file name: without folders and controls."""
    last = re.split(r"[/\\]", composed(name.encode(errors="replace").decode()))[-1]
    printable = "".join(char if char.isprintable() else "_" for char in last)
    short = printable.encode()[:LONGEST_NAME].decode(errors="ignore")
    return short.strip(" .") or "recording"
