"""The application: the page, and an API for it (`docs/serve.md` lists the addresses)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from importlib.resources import files
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse
from starlette.exceptions import HTTPException

from tagspeech import formats
from tagspeech.errors import InputError
from tagspeech.formats import OUTPUTS
from tagspeech.serve.guard import Guard, refusal
from tagspeech.serve.jobs import Job, RefusedError
from tagspeech.serve.store import JobStore, view
from tagspeech.serve.transcriptions import add_transcriptions
from tagspeech.serve.uploads import accept, received
from tagspeech.serve.worker import CONTAINERS, Worker

log = logging.getLogger(__name__)

TYPES = {"wav": "audio/wav", "flac": "audio/flac", "ogg": "audio/ogg", "mp3": "audio/mpeg"}
TYPES |= {"aiff": "audio/aiff", "au": "audio/basic"}
FOREIGN = "application/octet-stream"


def make_app(name: str, store: JobStore, worker: Worker, hosts: tuple[str, ...]) -> Any:
    """The application of a server, as ASGI.

    Args:
        name: Of the model, for people.
        store: The jobs.
        worker: Transcribes them.
        hosts: Names by which the server may be called; empty: any.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        task = asyncio.create_task(worker.run())
        yield
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    _add_errors(app)
    _add_page(app, name, store)
    _add_jobs(app, store, worker)
    _add_results(app, store)
    add_transcriptions(app, name, store, worker)
    return Guard(app, hosts, store.bounds.max_upload)


def _add_errors(app: FastAPI) -> None:
    """Every error is one line of JSON."""

    @app.exception_handler(InputError)
    async def refused(request: Request, error: InputError) -> Response:
        await request.scope["body"].drain()
        if isinstance(error, RefusedError):
            return refusal(error.status, str(error), error.retry_after)
        return refusal(400, str(error))

    @app.exception_handler(HTTPException)
    async def wrong_request(request: Request, error: HTTPException) -> Response:
        await request.scope["body"].drain()
        return refusal(error.status_code, f"{request.method} {request.url.path}: {error.detail}")

    @app.exception_handler(OSError)
    async def machine(request: Request, error: OSError) -> Response:
        log.error("%s", error)
        return refusal(507, f"the server cannot store this: {error.strerror}")


def _add_page(app: FastAPI, name: str, store: JobStore) -> None:
    page = files("tagspeech.serve").joinpath("page.html").read_text(encoding="utf-8")

    @app.get("/")
    async def index() -> Response:
        return HTMLResponse(page)

    @app.get("/health")
    async def health() -> Response:
        return JSONResponse({"status": "ok", "unfinished": store.unfinished})

    @app.get("/about")
    async def about() -> Response:
        bounds = {name: getattr(store.bounds, name) for name in ("max_upload", "keep_days")}
        extensions = sorted({*CONTAINERS.values(), "aif", "opus", "oga"})
        return JSONResponse(
            {"model": name, **bounds, "formats": [*OUTPUTS], "extensions": extensions}
        )


def _add_jobs(app: FastAPI, store: JobStore, worker: Worker) -> None:
    @app.post("/jobs")
    async def create(request: Request) -> Response:
        async with received(request, store) as (upload, form):
            wish = form.wish()
            if form.values:
                known = "file, speakers, num_speakers"
                raise RefusedError(400, f"{next(iter(form.values))[:40]}: must be one of {known}")
            job = await accept(upload, wish, store, worker, is_kept=True)
        return JSONResponse(view(job, store), 202)

    @app.get("/jobs/{job_id}")
    async def look(job_id: str) -> Response:
        return JSONResponse(view(store.get(job_id), store))

    @app.delete("/jobs/{job_id}")
    async def delete(job_id: str) -> Response:
        store.discard(store.get(job_id))
        return Response(status_code=204)


def _add_results(app: FastAPI, store: JobStore) -> None:
    def finished(job_id: str) -> Job:
        job = store.get(job_id)
        if job.state != "done":
            raise RefusedError(409, f"{job.name}: is {job.state}; its results are not there")
        return job

    @app.get("/jobs/{job_id}/page.html")
    async def page(job_id: str) -> Response:
        return FileResponse(finished(job_id).page, media_type="text/html; charset=utf-8")

    @app.get("/jobs/{job_id}/files/{form}")
    async def transcript(job_id: str, form: str) -> Response:
        job = finished(job_id)
        if form not in OUTPUTS:
            raise RefusedError(404, f"format: must be one of {', '.join(OUTPUTS)}")
        return await run_in_threadpool(_transcript, job, form)

    @app.get("/jobs/{job_id}/{audio}")
    async def audio(job_id: str, audio: str) -> Response:
        job = store.get(job_id)
        if audio != job.audio:
            raise RefusedError(404, f"no such file; the recording is {job.audio}")
        kind = TYPES.get(audio.rpartition(".")[2], FOREIGN)
        return FileResponse(job.folder / job.audio, media_type=kind)


def _transcript(job: Job, form: str) -> Response:
    """The transcript of a job as a download."""
    text = formats.render(formats.read(job.result, "seglst"), form, readable=True)
    response = Response(text, media_type=FOREIGN)
    name = f"{job.session}.{OUTPUTS[form]}"
    disposition = f"attachment; filename*=UTF-8''{quote(name, safe='')}"
    response.headers["content-disposition"] = disposition
    return response
