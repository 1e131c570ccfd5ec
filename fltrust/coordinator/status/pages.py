"""CRLs, OCSP and CA certificates over plain HTTP.

    GET  /crl/<key id>.crl          a CA's complete CRL, in DER; <key id>-delta.crl is its delta
    GET  /crl.pem                   every complete CRL, in PEM
    GET  /ca/<key id>.cer           a CA's own certificate, in DER (RFC 5280, 4.2.2.1)
    POST /ocsp, GET /ocsp/<base64>  OCSP (RFC 6960, appendix A)

What others may keep says until when (RFC 5019, 6): a short while, since the next revocation may be near.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime
from hashlib import sha256
from typing import Final
from urllib.parse import unquote

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fltrust.coordinator.http_requests import BodyReader
from fltrust.coordinator.lanes import Lane
from fltrust.coordinator.status.crls import PublishedCrl
from fltrust.coordinator.status.office import StatusOffice
from fltrust.errors import Malformed, NotFound
from fltrust.identity import CaKeyId
from fltrust.pki.ocsp import MAX_REQUEST, OcspFailure, failure
from fltrust.pki.pointers import CRLS_PATH, OCSP_PATH
from fltrust.strictbase64 import from_base64

FRESH_FOR: Final = 60
"""Seconds that anybody between us and a relying party may answer from what it keeps."""

_CRL, _PEM, _CERTIFICATE = "application/pkix-crl", "application/x-pem-file", "application/pkix-cert"
_QUESTION, _ANSWER = "application/ocsp-request", "application/ocsp-response"
_FILE = re.compile(r"([0-9a-f]{40})(-delta)?\.crl\Z")
_CER = re.compile(r"([0-9a-f]{40})\.cer\Z")

Handler = Callable[[Request], Awaitable[Response]]
Wrap = Callable[[str, Handler], Handler]


class StatusPages:
    """What is answered. Blocking work is done on `lane`; `body` reads a request's body, bounded."""

    def __init__(
        self, office: StatusOffice, lane: Lane, *, body: BodyReader, now: Callable[[], datetime]
    ) -> None:
        self._office = office
        self._lane = lane
        self._body = body
        self._now = now

    def routes(self, page: Wrap) -> list[Route]:
        """The routes; `page` counts, limits and translates."""
        return [
            Route(CRLS_PATH, page("crls", self._all)),
            Route("/crl/{name}", page("crl", self._crl)),
            Route("/ca/{name}", page("ca", self._certificate)),
            Route(OCSP_PATH, page("ocsp", self._post), methods=["POST"]),
            Route(f"{OCSP_PATH}/", page("ocsp", self._post), methods=["POST"]),
            Route(OCSP_PATH + "/{request:path}", page("ocsp", self._get), methods=["GET"]),
        ]

    async def _crl(self, request: Request) -> Response:
        match = _FILE.match(request.path_params["name"])
        if match is None:
            raise NotFound("no CRL of this name")
        issuer, is_delta = CaKeyId(match[1]), match[2] is not None
        find = self._office.delta_crl if is_delta else self._office.complete_crl
        crl = await self._lane.run(lambda: find(issuer))
        return self._list(request, crl)

    async def _all(self, _request: Request) -> Response:
        data = await self._lane.run(self._office.all_crls)
        return Response(data, media_type=_PEM, headers={"cache-control": f"public, max-age={FRESH_FOR}"})

    async def _certificate(self, request: Request) -> Response:
        match = _CER.match(request.path_params["name"])
        if match is None:
            raise NotFound("no certificate of this name")
        issuer = CaKeyId(match[1])
        data = await self._lane.run(lambda: self._office.certificate(issuer))
        return Response(data, media_type=_CERTIFICATE, headers={"cache-control": "public, max-age=3600"})

    async def _post(self, request: Request) -> Response:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != _QUESTION:
            return Response(status_code=415, headers={"cache-control": "no-store"})
        question = await self._body(request, limit=MAX_REQUEST)
        answer = await self._lane.run(lambda: self._office.answer(question))
        return self._said(answer.der, {"cache-control": "no-store"})

    async def _get(self, request: Request) -> Response:
        # From the raw path: a server that decodes "%2F" and "%2B" before us must not change the request.
        raw = request.scope.get("raw_path") or request.scope["path"].encode()
        text = unquote(raw.decode("ascii", "replace")).partition(f"{OCSP_PATH}/")[2]
        try:
            question = from_base64(text, "an OCSP request")
        except Malformed:
            return self._said(failure(OcspFailure.MALFORMED_REQUEST), {"cache-control": "no-store"})
        answer = await self._lane.run(lambda: self._office.answer(question))
        if answer.this_update is None or answer.next_update is None:
            return self._said(answer.der, {"cache-control": "no-store"})
        headers = self._kept(answer.der, answer.this_update, answer.next_update)
        return self._unless_known(request, headers) or self._said(answer.der, headers)

    def _list(self, request: Request, crl: PublishedCrl) -> Response:
        headers = self._kept(crl.der, crl.this_update, crl.next_update)
        return self._unless_known(request, headers) or Response(crl.der, media_type=_CRL, headers=headers)

    def _said(self, der: bytes, headers: dict[str, str]) -> Response:
        return Response(der, media_type=_ANSWER, headers=headers)

    def _kept(self, data: bytes, this_update: datetime, next_update: datetime) -> dict[str, str]:
        left = int((next_update - self._now()).total_seconds())
        return {
            "cache-control": f"public, no-transform, must-revalidate, max-age={max(0, min(FRESH_FOR, left))}",
            "etag": f'"{sha256(data).hexdigest()[:32]}"',
            "last-modified": _http_date(this_update),
            "expires": _http_date(next_update),
        }

    def _unless_known(self, request: Request, headers: dict[str, str]) -> Response | None:
        """*304 Not Modified* for whoever has it (RFC 9110, 13.2.2); None for everybody else."""
        tags = request.headers.get("if-none-match")
        if tags is not None:
            known = {tag.strip().removeprefix("W/") for tag in tags.split(",")}
            return Response(status_code=304, headers=headers) if headers["etag"] in known else None
        since = _read_date(request.headers.get("if-modified-since"))
        if since is not None and since >= parsedate_to_datetime(headers["last-modified"]):
            return Response(status_code=304, headers=headers)
        return None


def _http_date(at: datetime) -> str:
    return format_datetime(at.astimezone(UTC), usegmt=True)


def _read_date(text: str | None) -> datetime | None:
    try:
        found = None if text is None else parsedate_to_datetime(text[:64])
    except ValueError:
        return None
    return None if found is None or found.tzinfo is None else found
