"""The queue on disk: a folder for each recording that was accepted.

    FOLDER/lock                     one server at a time
    FOLDER/jobs/ID/audio.wav        the recording; the extension is that of its format
    FOLDER/jobs/ID/job.json         what was asked for
    FOLDER/jobs/ID/journal-*.jsonl  windows that are done, for a killed server
    FOLDER/jobs/ID/result.seglst.json, page.html
    FOLDER/jobs/ID/end.json         how the job ended; written once, after everything else

A job without `end.json` is queued, whatever happened to the server. The folder of a job appears
under its name only when it is complete.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tagspeech.files import atomic_path, write_json
from tagspeech.serve.jobs import Job, RefusedError

log = logging.getLogger(__name__)

DAY = 86400.0  # seconds


@dataclass(frozen=True)
class Bounds:
    """How much a server accepts.

    Attributes:
        max_upload: Largest recording in MB (10^6 bytes).
        max_hours: Longest recording.
        max_waiting: Largest number of jobs that have not ended, uploads included.
        keep_days: Days after which a job that has ended is deleted.
    """

    max_upload: float = 1000.0
    max_hours: float = 12.0
    max_waiting: int = 100
    keep_days: float = 7.0


class JobStore:
    """The jobs of a server. All methods but `accept` belong to the thread of the event loop.

    Args:
        folder: Where they are stored; the caller holds its lock.
        bounds: How much is accepted.
    """

    def __init__(self, folder: Path, bounds: Bounds) -> None:
        self.folder, self.bounds = folder / "jobs", bounds
        self.jobs: dict[str, Job] = {}
        self.waiting: deque[Job] = deque()
        self.running: Job | None = None
        self._uploads = 0  # that are being received
        self._last = 0
        self.folder.mkdir(parents=True, exist_ok=True)
        self._recover()

    def _recover(self) -> None:
        """Takes up what an earlier server left: ends stay, everything else is queued again."""
        for path in sorted(self.folder.iterdir()):
            if path.name.startswith("."):
                continue  # an upload that was cut off; `atomic_path` removes it
            if not (path / "job.json").exists():  # its deletion was cut off
                shutil.rmtree(path)
                continue
            job = Job.load(path)
            self._last = max(self._last, job.number)
            if job.is_kept:
                self.jobs[job.id] = job
            else:
                log.warning("job %s: its client is gone with the last server; deleted", job.id[:8])
                job.delete()
        queued = [job for job in self.jobs.values() if job.ended is None]
        self.waiting.extend(sorted(queued, key=lambda job: job.number))
        if queued:
            log.warning("%s: %d jobs of an earlier server resume", self.folder, len(queued))
        self.sweep()

    def get(self, job_id: str) -> Job:
        """The job with an id. Raises `RefusedError` if there is none."""
        if job_id not in self.jobs:
            raise RefusedError(404, "no such job: it was deleted, or the address is wrong")
        return self.jobs[job_id]

    def place(self, job: Job) -> int:
        """The number of jobs before this one; 0 if it is running or has ended."""
        if job not in self.waiting:
            return 0
        return self.waiting.index(job) + (self.running is not None)

    @property
    def unfinished(self) -> int:
        """The number of jobs that have not ended."""
        return len(self.waiting) + (self.running is not None)

    @contextmanager
    def slot(self) -> Iterator[None]:
        """A place in the queue during an upload. Raises `RefusedError` if there is none."""
        unfinished = self._uploads + self.unfinished
        if unfinished >= self.bounds.max_waiting:
            raise RefusedError(
                429, f"the queue is full: {unfinished} recordings are waiting; try again later", 5
            )
        self._uploads += 1
        try:
            yield
        finally:
            self._uploads -= 1

    def next_number(self) -> int:
        """The number of a new job."""
        self._last += 1
        return self._last

    def accept(self, job: Job, fill: Callable[[Path], None]) -> None:
        """Stores a job, in any thread: `fill` makes its files in the folder that it is given."""
        with atomic_path(job.folder) as temporary:
            temporary.mkdir()
            fill(temporary)
            job.save(temporary)

    def add(self, job: Job) -> None:
        """Puts an accepted job at the end of the queue."""
        self.jobs[job.id] = job
        self.waiting.append(job)
        self.sweep()

    def start_next(self) -> Job | None:
        """Takes the first job off the queue; None if there is none."""
        if not self.waiting:
            return None
        self.running = self.waiting.popleft()
        self.running.is_running = True
        return self.running

    def end(self, job: Job, error: str | None) -> None:
        """Notes how the running job ended; only here, and once for each job.

        Raises:
            InputError: The disk is full; the job is still the running one.
        """
        assert job is self.running
        assert job.ended is None
        ended = time.time()
        if not job.is_cancelled:
            write_json(job.folder / "end.json", {"ended": ended, "error": error})
        self.running, job.is_running = None, False
        if job.is_cancelled:
            job.delete()
            return
        job.ended, job.error, job.done = ended, error, job.seconds
        if job.is_kept:
            job.heard = []
        for path in job.folder.glob("journal-*.jsonl"):
            path.unlink()

    def discard(self, job: Job) -> None:
        """Deletes a job; one that is running as soon as its window is done."""
        job.is_cancelled = True
        self.jobs.pop(job.id, None)
        if job is self.running:
            job.unlist()
            return
        if job in self.waiting:
            self.waiting.remove(job)
        job.delete()

    def sweep(self) -> None:
        """Deletes jobs that ended long ago."""
        oldest = time.time() - DAY * self.bounds.keep_days
        for job in [job for job in self.jobs.values() if job.ended and job.ended < oldest]:
            log.warning("job %s: ended %g days ago; deleted", job.id[:8], self.bounds.keep_days)
            self.discard(job)


def view(job: Job, store: JobStore) -> dict[str, Any]:
    """What a client may know of a job."""
    return {
        "id": job.id,
        "name": job.name,
        "state": job.state,
        "seconds": round(job.seconds, 3),
        "done": round(min(job.done, job.seconds), 3),
        "before": store.place(job),
        "accepted": job.accepted,
        "ended": job.ended,
        "error": job.error,
        "last": job.heard[-1].words if job.heard else None,
    }
