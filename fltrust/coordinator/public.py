"""The public HTTP: the log, the trust file and the timestamp authority, for whoever asks.

    GET  /checkpoint, /tile/…      the log (C2SP tlog-tiles): monitors and mirrors read these and no more
    GET  /log/vkey                 the key that its checkpoints are signed with
    GET  /trust.json               the trust file; /trusted_root.json is Sigstore's, /roots.pem the roots'
    GET  /crl/…, /crl.pem, /ca/…   CRLs and CA certificates; /ocsp answers for single certificates
                                   (`fltrust.coordinator.status.pages`)
    POST /tsa                      RFC 3161: application/timestamp-query → application/timestamp-reply
    GET  /healthz
    CMP and SCEP, where they are switched on (`fltrust.coordinator.protocol_settings`)

Plain HTTP: everything that is served is signed, or is public. Nothing here reads a file by a caller's
name, changes anything but the log's own status entries, or tells who is enrolled.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from fltrust.clock import Clock
from fltrust.coordinator.authority import Authority
from fltrust.coordinator.http_requests import Hardened, read_body, source_of
from fltrust.coordinator.lanes import Lane
from fltrust.coordinator.limits import RateLimiter
from fltrust.coordinator.public_modules import PublicContext, PublicModule
from fltrust.coordinator.publishing import Publisher
from fltrust.coordinator.status.pages import StatusPages
from fltrust.errors import (
    FltrustError,
    InvalidInput,
    LimitExceeded,
    NotFound,
    Oversized,
    Unavailable,
)
from fltrust.pki.bundle import bundle_to_pem
from fltrust.pki.timestamping import MAX_REQUEST

_log = logging.getLogger(__name__)

_FOREVER = "public, max-age=31536000, immutable"
_SHORT = "public, max-age=5"
_TEXT = "text/plain; charset=utf-8"
_QUERY, _REPLY = "application/timestamp-query", "application/timestamp-reply"
Handler = Callable[[Request], Awaitable[Response]]


class PublicPages:
    """What is answered. Blocking work is done on `lane`; every address keeps to its rate."""

    def __init__(
        self,
        authority: Authority,
        publisher: Publisher,
        lane: Lane,
        *,
        rates: RateLimiter,
        stamps: RateLimiter,
        receive_timeout: float,
        clock: Clock,
        modules: Sequence[PublicModule] = (),
    ) -> None:
        self._authority = authority
        self._clock = clock
        self._modules = modules
        self._publisher = publisher
        self._lane = lane
        self._rates = rates
        self._stamps = stamps
        self._receive_timeout = receive_timeout
        self._status = StatusPages(authority.status, lane, body=self._body, now=authority.now)

    def app(self) -> ASGIApp:
        """The whole of it as an ASGI app."""
        routes = [
            Route("/checkpoint", self._page("checkpoint", self._checkpoint)),
            Route("/tile/{path:path}", self._page("tile", self._tile)),
            Route("/log/vkey", self._page("vkey", self._vkey)),
            Route("/trust.json", self._page("trust", self._trust)),
            Route("/trusted_root.json", self._page("trusted-root", self._trusted_root)),
            Route("/roots.pem", self._page("roots", self._roots)),
            *self._status.routes(self._page),
            Route("/healthz", self._page("healthz", self._healthz)),
            Route("/tsa", self._page("tsa", self._stamp), methods=["POST"]),
            *(route for module in self._modules for route in module(self._context())),
        ]
        app = Starlette(routes=routes)
        app.router.redirect_slashes = False
        return Hardened(app)

    def _context(self) -> PublicContext:
        return PublicContext(self._authority, self._clock, self._lane, self._page, self._body)

    def _page(self, name: str, handler: Handler) -> Handler:
        """Count, limit and translate: the one way in."""
        counters = self._authority.counters

        async def answer(request: Request) -> Response:
            try:
                self._rates.take(source_of(request))
                response = await handler(request)
            except ClientDisconnect:
                raise
            except Exception as error:
                response = _refusal(error)
            counters.add(f"http.{name}.{response.status_code}")
            return response

        return answer

    async def _checkpoint(self, _request: Request) -> Response:
        note = await self._lane.run(self._publisher.checkpoint)
        return _response(note, _TEXT, cache=_SHORT)

    async def _tile(self, request: Request) -> Response:
        path = f"tile/{request.path_params['path']}"
        data = await self._lane.run(lambda: self._publisher.tile(path))
        # What stands at a path never changes: a partial tile is named with its width.
        return _response(data, "application/octet-stream", cache=_FOREVER)

    async def _vkey(self, _request: Request) -> Response:
        return _response(f"{self._publisher.vkey}\n".encode(), _TEXT, cache=_SHORT)

    async def _trust(self, _request: Request) -> Response:
        data = await self._lane.run(self._authority.desks.trust.trust_file)
        return _response(data, "application/json", cache="no-cache")

    async def _trusted_root(self, _request: Request) -> Response:
        data = await self._lane.run(self._authority.desks.trust.trusted_root)
        return _response(data, "application/json", cache="no-cache")

    async def _roots(self, _request: Request) -> Response:
        pem = bundle_to_pem(self._authority.bundle())
        return _response(pem, "application/x-pem-file", cache="no-cache")

    async def _healthz(self, _request: Request) -> Response:
        return _response(b"ok\n", _TEXT, cache="no-store")

    async def _stamp(self, request: Request) -> Response:
        self._stamps.take(source_of(request))
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != _QUERY:
            return _words(415, f"expected {_QUERY}")
        query = await self._body(request, limit=MAX_REQUEST)
        reply = await self._lane.run(lambda: self._authority.notary.timestamps.answer(query))
        return _response(reply, _REPLY, cache="no-store")

    async def _body(self, request: Request, *, limit: int) -> bytes:
        return await read_body(request, limit=limit, timeout=self._receive_timeout)


def _response(data: bytes, kind: str, *, cache: str) -> Response:
    return Response(data, media_type=kind, headers={"cache-control": cache})


def _words(status: int, words: str) -> Response:
    return Response(f"{words}\n".encode(), status, media_type=_TEXT, headers={"cache-control": "no-store"})


def _refusal(error: Exception) -> Response:
    """The answer to what was refused. A caller is told what it did; what broke here stays here."""
    if isinstance(error, Oversized):
        return _words(413, error.message)
    if isinstance(error, NotFound | InvalidInput):
        return _words(404, "not found")
    if isinstance(error, LimitExceeded):
        response = _words(429, "too many requests")
        response.headers["retry-after"] = "1"
        return response
    if isinstance(error, Unavailable):
        return _words(503, "try again later")
    _log.error("a public request failed", exc_info=not isinstance(error, FltrustError))
    return _words(500, "internal error")
