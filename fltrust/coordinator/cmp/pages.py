"""CMP over HTTP (RFC 9811): POST of one message, answered with one."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fltrust.coordinator.cmp.responder import CmpResponder
from fltrust.coordinator.http_requests import source_of
from fltrust.coordinator.public_modules import PublicContext
from fltrust.protocols.cmp.messages import CONTENT_TYPE, MAX_MESSAGE

PATH = "/.well-known/cmp"


def cmp_routes(context: PublicContext) -> list[Route]:
    """The module of the public port."""
    responder = CmpResponder(context.authority, context.clock)

    async def answer(request: Request) -> Response:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != CONTENT_TYPE:
            return Response(f"expected {CONTENT_TYPE}\n", 415, media_type="text/plain")
        der = await context.body(request, limit=MAX_MESSAGE)
        source = source_of(request)
        reply = await context.lane.run(lambda: responder.answer(der, source=source))
        return Response(reply, media_type=CONTENT_TYPE, headers={"cache-control": "no-store"})

    return [Route(PATH, context.page("cmp", answer), methods=["POST"])]
