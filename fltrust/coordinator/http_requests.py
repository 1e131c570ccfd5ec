"""What both HTTP ports do with every request: harden its answer, name its source, bound its body."""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fltrust.coordinator.limits import host_key
from fltrust.errors import LimitExceeded, Oversized

_SAFE = (
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
)
HTTPS_ONLY: Final = (b"strict-transport-security", b"max-age=31536000")
_LENGTH_DIGITS = 11


class BodyReader(Protocol):
    async def __call__(self, request: Request, *, limit: int) -> bytes:
        """The whole body, bounded in bytes and time."""
        ...


async def read_body(request: Request, *, limit: int, timeout: float) -> bytes:
    """The whole body of at most `limit` bytes within `timeout` seconds: `Oversized`, `LimitExceeded`.

    More than allowed is refused unread where it is announced.
    """
    announced = request.headers.get("content-length", "0")
    is_number = announced.isascii() and announced.isdigit() and len(announced) <= _LENGTH_DIGITS
    if not is_number or int(announced) > limit:
        raise Oversized(f"expected a body of at most {limit} bytes, more is announced")
    parts = bytearray()
    try:
        async with asyncio.timeout(timeout):
            async for part in request.stream():
                parts += part
                if len(parts) > limit:
                    raise Oversized(f"expected a body of at most {limit} bytes, got more")
    except TimeoutError:
        raise LimitExceeded("expected the whole request sooner", reason="slow-caller") from None
    return bytes(parts)


def source_of(request: Request) -> str:
    """Name the source of a request for rate limits."""
    return host_key("" if request.client is None else request.client.host)


class Hardened:
    """Puts the same headers on every answer, also on those that no page of ours makes.

    A request with two lengths is the last of its connection (RFC 9112, 6.1): a proxy in front may have read
    the other one, and take for the next request what to us is this one's end.
    """

    def __init__(self, app: ASGIApp, *, also: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        self._app = app
        self._headers = (*_SAFE, *also)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and _has_two_lengths(scope):
            await send({"type": "http.response.start", "status": 400, "headers": [(b"connection", b"close")]})
            await send({"type": "http.response.body"})
            return

        async def hardened(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *self._headers]}
            await send(message)

        await self._app(scope, receive, hardened)


def _has_two_lengths(scope: Scope) -> bool:
    names = {name for name, _ in scope["headers"]}
    return {b"content-length", b"transfer-encoding"} <= names
