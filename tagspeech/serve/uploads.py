"""From the form of a request to a job in the queue."""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.concurrency import run_in_threadpool

from tagspeech.errors import InputError
from tagspeech.serve.jobs import Job, RefusedError, Wish, safe_name
from tagspeech.serve.store import JobStore
from tagspeech.serve.worker import Worker, store_audio

FIELDS = 40  # of a form
BLOCK = 1 << 20  # bytes copied at a time


@dataclass
class Form:
    """The fields of a form beside the recording, by name; a name may occur several times."""

    values: dict[str, list[str]] = field(default_factory=dict)

    def take(self, name: str) -> str | None:
        """The value of a field that occurs once; None: absent or empty."""
        values = self.values.pop(name, [])
        if len(values) > 1:
            raise RefusedError(400, f"{name}: is given {len(values)} times")
        return values[0] if values and values[0] else None

    def wish(self) -> Wish:
        """What the form asks for beside the transcript."""
        speakers, number = self.take("speakers"), self.take("num_speakers")
        if number is not None and not (number.isdecimal() and number.isascii()):
            raise RefusedError(400, f"num_speakers: must be a number, got {number[:40]!r}")
        return Wish(speakers, None if number is None else int(number[:9]))


@asynccontextmanager
async def received(request: Request, store: JobStore) -> AsyncIterator[tuple[Any, Form]]:
    """The recording and the fields of a form, while there is a place for it in the queue.

    Raises:
        RefusedError: The queue is full, or the form has no recording, or it has several.
    """
    with store.slot():
        if "multipart/form-data" not in request.headers.get("content-type", ""):
            raise RefusedError(415, "the request must be multipart/form-data with a field file")
        async with request.form(max_files=1, max_fields=FIELDS) as content:
            form, upload = Form(), None
            for name, value in content.multi_items():
                if isinstance(value, str):
                    form.values.setdefault(name.removesuffix("[]"), []).append(value)
                elif name != "file":
                    raise RefusedError(400, f"{name[:40]}: the recording must be in the field file")
                else:
                    upload = value
            if upload is None:
                raise RefusedError(400, "file: is missing; it must be a recording with a file name")
            yield upload, form


async def accept(upload: Any, wish: Wish, store: JobStore, worker: Worker, *, is_kept: bool) -> Job:
    """Puts a recording into the queue, once it is on disk and known to be audio.

    Raises:
        RefusedError: It is too long, or the disk is full.
        InputError: It is not audio, or a wish is out of range.
    """
    options = worker.options_of(wish)
    job_id = secrets.token_hex(16)
    name = safe_name(upload.filename or "")
    job = Job(
        *(job_id, store.next_number(), store.folder / job_id, name, "", 0.0, wish, is_kept),
        accepted=time.time(),
    )

    def fill(folder: Path) -> None:
        with open(folder / "audio", "wb") as file:
            shutil.copyfileobj(upload.file, file, BLOCK)
        job.audio, job.seconds = store_audio(folder / "audio", name, options.channel)
        longest = store.bounds.max_hours
        if job.seconds > 3600 * longest:
            hours = job.seconds / 3600
            raise RefusedError(413, f"{name}: lasts {hours:.1f} hours; must be at most {longest:g}")

    try:
        await run_in_threadpool(store.accept, job, fill)
    except RefusedError:
        raise
    except InputError as error:
        if isinstance(error.__cause__, OSError):
            reason = error.__cause__.strerror
            raise RefusedError(507, f"{name}: cannot be stored: {reason}") from error
        raise
    store.add(job)
    worker.wake.set()
    return job
