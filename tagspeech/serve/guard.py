"""What every request passes first: host, origin and size are checked, headers are added."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from fastapi.responses import JSONResponse

from tagspeech.serve.jobs import RefusedError

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

LOOPBACK = ("127.0.0.1", "localhost", "::1")
FORM = 100_000  # bytes of a form beside the recording
DRAINED = 50_000_000  # bytes of a refused upload that are still read, so that its client reads why
HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",  # addresses of jobs are secrets
    "x-frame-options": "DENY",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


def refusal(status: int, message: str, retry_after: int | None = None) -> JSONResponse:
    """An error as OpenAI's API words it, for all clients."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    error = {"message": message, "type": kind, "param": None, "code": None}
    headers = {} if retry_after is None else {"retry-after": str(retry_after)}
    return JSONResponse({"error": error}, status, headers)


class Guard:
    """Refuses requests before their body is read, and counts the bytes of the body.

    A web page of somebody else must not use a server on loopback: neither by a request of its own
    (its origin is another one) nor by a name that leads here (the host is another one).

    Args:
        app: What answers the others.
        hosts: Names by which the server may be called; empty: any.
        max_upload: Largest recording in MB.
    """

    def __init__(self, app: Any, hosts: tuple[str, ...], max_upload: float) -> None:
        self.app, self.hosts, self.max_upload = app, hosts, max_upload
        self.largest = round(max_upload * 1e6) + FORM

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        body = _Body(receive, self.largest, self.max_upload)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                known = {name for name, _ in message["headers"]}
                added = [(k.encode(), v.encode()) for k, v in HEADERS.items()]
                message["headers"] = [
                    *message["headers"],
                    *((name, value) for name, value in added if name not in known),
                ]
            await send(message)

        try:
            self._check(scope)
        except RefusedError as error:
            await body.drain()
            answer = refusal(error.status, str(error))
            await answer(scope, receive, send_with_headers)
            return
        await self.app({**scope, "body": body}, body.receive, send_with_headers)

    def _check(self, scope: Scope) -> None:
        headers = {key.decode("latin-1"): text.decode("latin-1") for key, text in scope["headers"]}
        host = headers.get("host", "")
        if self.hosts and _part(f"//{host}", "hostname") not in self.hosts:
            raise RefusedError(403, f"host {host[:80]!r}: must be one of {', '.join(self.hosts)}")
        origin = headers.get("origin")
        if origin is not None and _part(origin, "netloc") != host:
            raise RefusedError(403, f"origin {origin[:80]!r}: pages of other servers are refused")
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > self.largest:
            raise RefusedError(413, _too_large(self.max_upload))


def _part(address: str, name: str) -> str | None:
    """A part of an address; None if it is none."""
    try:
        part: str | None = getattr(urlsplit(address), name)
    except ValueError:
        return None
    return part


def _too_large(max_upload: float) -> str:
    return f"the recording is too large: must be at most {max_upload:g} MB"


class _Body:
    """The body of a request; one that grows too large is refused."""

    def __init__(self, receive: Receive, largest: int, max_upload: float) -> None:
        self.source, self.largest, self.max_upload = receive, largest, max_upload
        self.size = 0
        self.has_more = True

    async def receive(self) -> Message:
        """The next part, as ASGI gives it. Raises `RefusedError` beyond the largest size."""
        message = await self._next()
        if self.size > self.largest:
            raise RefusedError(413, _too_large(self.max_upload))
        return message

    async def drain(self) -> None:
        """Reads on for a while: a connection that is closed earlier loses the answer."""
        end = self.size + DRAINED
        while self.has_more and self.size < end:
            await self._next()

    async def _next(self) -> Message:
        message = await self.source()
        if message["type"] == "http.request":
            self.size += len(message.get("body", b""))
            self.has_more = message.get("more_body", False)
        else:
            self.has_more = False
        return message
