"""REST/JSON: routes made of the table of endpoints.

    /api/v1/openapi.json   for anybody
    /api/v1/…              for holders of a certificate of the trust domain

Every call is decided as over gRPC: by the certificate that the connection showed, the present epoch, and the
method's row in the table of callers (`Session`). A body is taken as ``application/json`` alone, which no web
page of another origin can have a browser send with its certificate unasked.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from fltrust.coordinator.limits import RateLimiter
from fltrust.coordinator.permissions import check_permission
from fltrust.coordinator.rest.acts import Asked
from fltrust.coordinator.rest.forms import MAX_BODY
from fltrust.coordinator.rest.openapi import BASE, document
from fltrust.coordinator.rest.table import ENDPOINTS, Endpoint
from fltrust.coordinator.services import PROBLEM, Handler, ServicesContext, json_response
from fltrust.errors import Malformed, NotFound

_JSON = "application/json"


def routes(context: ServicesContext) -> list[Route]:
    """The routes, and a 404 in our words for the rest of what is under them."""
    by_path: dict[str, dict[str, Endpoint]] = {}
    for endpoint in ENDPOINTS:
        by_path.setdefault(endpoint.path, {})[endpoint.verb] = endpoint
    rates = RateLimiter(rate=context.settings.rate, burst=context.settings.burst, monotonic=time.monotonic)
    found = [
        Route(f"{BASE}/openapi.json", _Any(context.page("rest-openapi", _openapi))),
        *(
            Route(f"{BASE}{path}", _Any(context.page("rest", _Resource(context, verbs, rates).answer)))
            for path, verbs in by_path.items()
        ),
    ]
    return [*found, Route("/api/{rest:path}", _Any(context.page("rest-unknown", _unknown)))]


class _Any:
    """An endpoint for every verb: which are allowed is said in problem details, too."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self._handler(Request(scope, receive))
        await response(scope, receive, send)


class _Resource:
    """One path with its verbs."""

    def __init__(self, context: ServicesContext, verbs: Mapping[str, Endpoint], rates: RateLimiter) -> None:
        self._context = context
        self._verbs = verbs
        self._rates = rates

    async def answer(self, request: Request) -> Response:
        """Decide and act.

        1. The verb is one of the path's.
        2. The caller is known, within its rate, and its role may call the method.
        3. The request is read, within bounds.
        4. The session decides again, and acts.
        """
        # 1.
        endpoint = self._verbs.get("GET" if request.method == "HEAD" else request.method)
        if endpoint is None:
            return _not_allowed(self._verbs)
        # 2.
        context = self._context
        with context.authority.counters.refusals():
            caller = context.identify(request)
            self._rates.take(str(caller.spiffe_id))
            check_permission(caller.spiffe_id, endpoint.method)
            # 3.
            asked = await self._read(request, endpoint)
            if asked is None:
                return _problem(415, f"expected {_JSON}")
        # 4.
        session = context.authority.session(caller)
        lane = context.writes if endpoint.is_write else context.reads
        found = await lane.run(lambda: endpoint.act(session, asked), urgency=endpoint.urgency)
        if isinstance(found, bytes):
            return Response(found, media_type=_JSON, headers={"cache-control": "no-store"})
        return json_response(found, status=endpoint.status)

    async def _read(self, request: Request, endpoint: Endpoint) -> Asked | None:
        query = _query(request, endpoint)
        body = await self._context.body(request, limit=MAX_BODY)
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if (body or endpoint.body is not None) and kind != _JSON:
            return None
        if body and not endpoint.is_write:
            raise Malformed("expected no body")
        return Asked(request.path_params, query, body)


def _query(request: Request, endpoint: Endpoint) -> dict[str, str]:
    known = {one.name for one in endpoint.parameters if not one.is_path}
    items = request.query_params.multi_items()
    query = dict(items)
    if len(query) != len(items) or not set(query) <= known:
        allowed = ", ".join(sorted(known)) or "none"
        raise Malformed(f"expected these query parameters, each once at most: {allowed}")
    return query


async def _openapi(request: Request) -> Response:
    if request.method not in ("GET", "HEAD"):
        return _not_allowed({"GET": None})
    return json_response(document())


async def _unknown(_request: Request) -> Response:
    raise NotFound("there is nothing here", hint=f"what there is: {BASE}/openapi.json")


def _not_allowed(verbs: Mapping[str, object]) -> Response:
    response = _problem(405, f"expected {' or '.join(sorted(verbs))}")
    response.headers["allow"] = ", ".join(sorted(verbs))
    return response


def _problem(status: int, detail: str) -> Response:
    kind = {405: "method-not-allowed", 415: "unsupported-media-type"}[status]
    details = {
        "type": f"urn:fltrust:error:{kind}",
        "title": "InvalidInput",
        "status": status,
        "detail": detail,
    }
    return json_response(details, status=status, kind=PROBLEM)
