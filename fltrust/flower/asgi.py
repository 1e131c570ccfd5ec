"""ASGI in small: a request read whole within bounds, an app called, its answer held in the hand."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

from fltrust.errors import Oversized, Unavailable

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Header = tuple[bytes, bytes]


class ClientGone(Exception):
    """The caller hung up; nobody is there to answer."""


@dataclass(frozen=True, slots=True)
class Response:
    """A whole answer, not yet sent."""

    status: int
    headers: tuple[Header, ...]
    body: bytes

    async def send_to(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status, "headers": list(self.headers)})
        await send({"type": "http.response.body", "body": self.body})


def json_response(status: int, payload: dict[str, str]) -> Response:
    """Make an answer in JSON, the form of Flower's own errors."""
    body = json.dumps(payload).encode()
    headers = (
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    )
    return Response(status, headers, body)


def header_values(scope: Scope, name: bytes) -> list[bytes]:
    """Every value of the header `name` (lower case), in order."""
    return [value for key, value in scope["headers"] if key == name]


async def read_body(scope: Scope, receive: Receive, *, limit: int, idle: float, total: float) -> bytes:
    """Read a request's body of at most `limit` bytes.

    Refuses with `Oversized` as soon as more is announced or sent, with `Unavailable` when nothing comes
    for `idle` seconds or the whole takes longer than `total`; raises `ClientGone` when the caller hangs up.
    """
    announced = header_values(scope, b"content-length")
    if any(not value.isdigit() or int(value) > limit for value in announced):
        raise Oversized(f"expected a body of at most {limit} bytes for {scope['path']}, more is announced")
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(total):
            while True:
                async with asyncio.timeout(idle):
                    message = await receive()
                if message["type"] != "http.request":
                    raise ClientGone
                part: bytes = message.get("body", b"")
                size += len(part)
                if size > limit:
                    raise Oversized(f"expected a body of at most {limit} bytes for {scope['path']}, got more")
                if part:
                    parts.append(part)
                if not message.get("more_body", False):
                    return parts[0] if len(parts) == 1 else b"".join(parts)
    except TimeoutError:
        raise Unavailable(f"expected the body for {scope['path']} within {total:.0f} s, it stalls") from None


async def wait_gone(receive: Receive) -> None:
    """Return when the caller hangs up. Only after the body was read."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def call(app: App, scope: Scope, body: bytes) -> Response:
    """Call `app` with a body that was read before, and hold its whole answer.

    The scope is copied: middleware inside may write on it without disturbing a second call.
    """
    status = 500
    headers: tuple[Header, ...] = ()
    parts: list[bytes] = []
    given = False
    never = asyncio.Event()

    async def receive() -> Message:
        nonlocal given
        if given:
            await never.wait()  # the app may watch for a hang-up; this call has none
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        nonlocal status, headers
        if message["type"] == "http.response.start":
            status = message["status"]
            headers = tuple((bytes(name), bytes(value)) for name, value in message.get("headers", ()))
        elif message["type"] == "http.response.body":
            parts.append(message.get("body", b""))

    inner = dict(scope)
    inner["state"] = dict(scope.get("state", {}))
    await app(inner, receive, send)
    return Response(status, headers, parts[0] if len(parts) == 1 else b"".join(parts))
