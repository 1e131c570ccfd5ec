"""What a route module of the services port is given, and the one way in that every request takes.

A route module (ACME, EST, REST, the SPIFFE bundle endpoint) is a function ``routes(context) -> list[Route]``;
`fltrust.coordinator.services_port` lists them. Its endpoints are wrapped by `ServicesContext.page`, which
counts, limits and translates errors; who calls is `ServicesContext.identify`'s to say.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from fltrust.clock import Clock
from fltrust.coordinator.authority import Authority
from fltrust.coordinator.gate import Gate
from fltrust.coordinator.http_requests import read_body, source_of
from fltrust.coordinator.http_server import PEER
from fltrust.coordinator.lanes import Lane
from fltrust.coordinator.limits import RateLimiter
from fltrust.coordinator.serving import ServerSettings
from fltrust.coordinator.session import Caller
from fltrust.errors import (
    ApprovalPending,
    Conflict,
    FltrustError,
    InvalidInput,
    LimitExceeded,
    NotFound,
    Oversized,
    PermissionDenied,
    Refused,
    Revoked,
    TokenRefused,
    Unauthenticated,
    Unavailable,
)

_log = logging.getLogger(__name__)

Handler = Callable[[Request], Awaitable[Response]]
Refuser = Callable[[FltrustError], Response]
"""Makes a protocol's own answer of an error. It is never given what is not of our tree: that is masked."""

PROBLEM = "application/problem+json"

_STATUS: tuple[tuple[type[FltrustError], int], ...] = (
    (Oversized, 413),
    (InvalidInput, 400),
    (Unauthenticated, 401),
    (PermissionDenied, 403),
    (Revoked, 403),
    (TokenRefused, 403),
    (Refused, 403),
    (NotFound, 404),
    (Conflict, 409),
    (LimitExceeded, 429),
    (ApprovalPending, 503),
    (Unavailable, 503),
)


@dataclass(slots=True)
class ServicesContext:
    """What route modules share. Blocking work goes through `reads` and `writes`, never on the loop."""

    authority: Authority
    clock: Clock
    reads: Lane
    writes: Lane
    settings: ServerSettings
    gate: Gate
    rates: RateLimiter
    url: str = ""
    """``https://host:port`` as clients reach us, without a slash at the end; set before the first request.
    Never made of what a request says (Host)."""

    def identify(self, request: Request) -> Caller:
        """Name the caller by its client certificate, by the rules of the mTLS port (`Gate`), or raise.

        That it stands well and what it may do is decided by what it calls (`Session`, `Enroller.renew`).
        """
        return self.gate.identify_chain(peer_chain(request))

    async def body(self, request: Request, *, limit: int) -> bytes:
        """The whole body, bounded in bytes and time; more than announced or allowed is refused unread."""
        return await read_body(request, limit=limit, timeout=self.settings.receive_timeout)

    def page(self, name: str, handler: Handler, *, refuse: Refuser | None = None) -> Handler:
        """The one way in: counts as ``services.<name>.<status>``, limits by address, translates errors."""
        counters, refuser = self.authority.counters, refuse or problem

        async def answer(request: Request) -> Response:
            try:
                self.rates.take(source_of(request))
                response = await handler(request)
            except ClientDisconnect:
                raise
            except FltrustError as error:
                response = refuser(error)
            except Exception:  # whatever broke here stays here
                _log.exception("a request to %s failed", name)
                response = refuser(FltrustError("internal error"))
            counters.add(f"services.{name}.{response.status_code}")
            return response

        return answer


RouteModule = Callable[[ServicesContext], list[Route]]


def peer_chain(request: Request) -> tuple[bytes, ...]:
    """The chain that the client showed, leaf first, in DER; empty without one. It proves possession of the
    leaf's key in this connection's handshake, and nothing else."""
    chain: tuple[bytes, ...] = request.scope.get(PEER, ())
    return chain


def status_of(error: FltrustError) -> int:
    """The HTTP status of an error of ours; 500 for what has none."""
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def problem(error: FltrustError) -> Response:
    """Answer with problem details (RFC 9457): our reason as the type, our message, our hint."""
    status = status_of(error)
    details = {
        "type": f"urn:fltrust:error:{error.reason}",
        "title": type(error).__name__,
        "status": status,
        "detail": error.message,
        **({"hint": error.hint} if error.hint else {}),
    }
    headers = {"retry-after": "1"} if status in (429, 503) else {}
    return json_response(details, status=status, kind=PROBLEM, headers=headers)


def json_response(
    value: object,
    *,
    status: int = 200,
    kind: str = "application/json",
    headers: Mapping[str, str] | None = None,
) -> Response:
    """JSON that no cache keeps."""
    data = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    return Response(data, status, media_type=kind, headers={"cache-control": "no-store", **(headers or {})})
