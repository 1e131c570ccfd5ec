"""EST on the services port (RFC 7030), for devices: ``/.well-known/est/…``.

    GET  cacerts           the roots and the CA that issues
    GET  csrattrs          what a request must be like
    POST simpleenroll      with a join token as the password of HTTP Basic, or with a certificate of ours
    POST simplereenroll    with a certificate of ours: the next one of the same identity
    POST serverkeygen, fullcmc    refused: keys are made where they stay; no other CMC than the simple one

Names come from the record. A request may leave them out; on re-enrollment one that names somebody else than
the certificate does is refused (4.2.2). What waits for operators is answered 202 with Retry-After: the client
sends the same request again.
"""

from __future__ import annotations

import base64
import binascii
from typing import NoReturn

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fltrust.coordinator.http_requests import source_of
from fltrust.coordinator.services import ServicesContext, peer_chain, status_of
from fltrust.enrollment.token import PREFIX, SECRET_BYTES, decode_token
from fltrust.enrollment.types import (
    EnrollmentProtocol,
    EnrollRequest,
    Issued,
    JoinTokenEvidence,
    Pending,
)
from fltrust.errors import FltrustError, LimitExceeded, Malformed, Unauthenticated, Unavailable
from fltrust.pki.leaf import PARSE_ERRORS
from fltrust.protocols.est.messages import (
    ATTRIBUTES_TYPE,
    CERTS_TYPE,
    MAX_BODY,
    REQUEST_TYPE,
    certs_only,
    csr_attributes,
    read_request,
)
from fltrust.strictbase64 import from_base64url

ROOT = "/.well-known/est"
_REALM = 'Basic realm="fltrust", charset="UTF-8"'
_MAX_AUTHORIZATION = 8 * 1024
_BASE64 = {"content-transfer-encoding": "base64", "cache-control": "no-store"}


def routes(context: ServicesContext) -> list[Route]:
    """EST's operations. The route module of the services port."""
    est = _Est(context)

    def page(name: str, method: str) -> Route:
        handler = context.page(f"est.{name}", getattr(est, name), refuse=refusal)
        return Route(f"{ROOT}/{name}", handler, methods=[method])

    return [
        page("cacerts", "GET"),
        page("csrattrs", "GET"),
        page("simpleenroll", "POST"),
        page("simplereenroll", "POST"),
        page("serverkeygen", "POST"),
        page("fullcmc", "POST"),
    ]


def refusal(error: FltrustError) -> Response:
    """Say why in words (4.2.3: the body is for humans)."""
    status = status_of(error)
    headers = {"cache-control": "no-store"}
    if isinstance(error, _NotOffered):
        status = 501
    elif isinstance(error, _WrongType):
        status = 415
    elif status == 401:
        headers["www-authenticate"] = _REALM
    elif isinstance(error, LimitExceeded | Unavailable):
        headers["retry-after"] = "5"
    words = f"{error.message}\n" + (f"{error.hint}\n" if error.hint else "")
    return Response(words, status, media_type="text/plain; charset=utf-8", headers=headers)


class _NotOffered(FltrustError):
    pass


class _WrongType(FltrustError):
    pass


class _Est:
    """One method an operation."""

    def __init__(self, context: ServicesContext) -> None:
        self._context = context

    async def cacerts(self, _request: Request) -> Response:
        now = self._context.authority.ca.now
        found = [*now.bundle.roots, now.issuer.certificate]
        body = certs_only([certificate.public_bytes(Encoding.DER) for certificate in found])
        return Response(body, media_type=CERTS_TYPE, headers={**_BASE64, "cache-control": "no-cache"})

    async def csrattrs(self, _request: Request) -> Response:
        headers = {**_BASE64, "cache-control": "no-cache"}
        return Response(csr_attributes(), media_type=ATTRIBUTES_TYPE, headers=headers)

    async def simpleenroll(self, request: Request) -> Response:
        """Enroll by a join token; where none is shown, by a certificate of ours, as `simplereenroll`."""
        secret = read_password(request.headers.get("authorization"))
        if secret is None:
            if not peer_chain(request):
                raise Unauthenticated(
                    "expected a join token as the password of HTTP Basic, or a certificate; got neither"
                )
            return await self.simplereenroll(request)
        csr_der = await self._csr(request)
        asked = EnrollRequest(
            JoinTokenEvidence(secret), csr_der, protocol=EnrollmentProtocol.EST, source=source_of(request)
        )
        authority = self._context.authority
        return answer(await self._context.writes.run(lambda: authority.submit(asked)))

    async def simplereenroll(self, request: Request) -> Response:
        """Certify the caller's next key. The certificate of the connection says for whom, nothing else."""
        caller = self._context.identify(request)
        csr_der = await self._csr(request)
        check_same_names(csr_der, caller.certificate.leaf)
        session = self._context.authority.session(caller)
        return answer(await self._context.writes.run(lambda: session.renew(csr_der)))

    async def serverkeygen(self, _request: Request) -> NoReturn:
        raise _NotOffered(
            "keys are not made here: a private key stays where it is used",
            hint="make a key and ask with simpleenroll",
        )

    async def fullcmc(self, _request: Request) -> NoReturn:
        raise _NotOffered("Full CMC is not offered", hint="use simpleenroll and simplereenroll")

    async def _csr(self, request: Request) -> bytes:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != REQUEST_TYPE:
            raise _WrongType(f"expected a body of type {REQUEST_TYPE}")
        return read_request(await self._context.body(request, limit=MAX_BODY))


def answer(outcome: Issued | Pending) -> Response:
    """200 with the certificate, or 202: ask again, with the same request."""
    if isinstance(outcome, Pending):
        seconds = max(1, round(outcome.retry_after.total_seconds()))
        headers = {"retry-after": str(seconds), "cache-control": "no-store"}
        return Response(b"waits for operators\n", 202, media_type="text/plain", headers=headers)
    # The leaf alone (4.2.3: "the certificate"); what it leads through is in cacerts.
    return Response(certs_only(outcome.chain_der[:1]), media_type=CERTS_TYPE, headers=_BASE64)


def read_password(header: str | None) -> bytes | None:
    """The secret of the join token in HTTP Basic (RFC 7617); None where there is no such header.

    The password is the whole token, or its secret in base64url; the user name is for the client's own use and
    not looked at. `Unauthenticated` for anything else. No message quotes it.
    """
    if header is None:
        return None
    scheme, _, credentials = header.partition(" ")
    if scheme.lower() != "basic" or len(credentials) > _MAX_AUTHORIZATION:
        raise _not_basic()
    try:
        _, colon, password = base64.b64decode(credentials.strip(), validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        raise _not_basic() from None
    return read_secret(password) if colon else _refuse_basic()


def read_secret(password: str) -> bytes:
    """A join token's secret, given whole or as its secret in base64url; `Unauthenticated` otherwise."""
    try:
        if password.startswith(PREFIX):
            return decode_token(password).secret
        secret = from_base64url(password, "the secret")
    except Malformed:
        raise _not_basic() from None
    return secret if len(secret) == SECRET_BYTES else _refuse_basic()


def check_same_names(csr_der: bytes, leaf: x509.Certificate) -> None:
    """Raise `Malformed` where a request names somebody else than the certificate that it renews (4.2.2).

    Left out, names are the certificate's: those of the next one come from the record in any case. The
    request's signature is not checked here.
    """
    try:
        request = x509.load_der_x509_csr(csr_der)
        subject, names = request.subject, _alternative_names(request)
        expected = _alternative_names(leaf)
    except PARSE_ERRORS:
        raise Malformed("expected a certificate request in DER (PKCS#10)") from None
    if subject not in (x509.Name([]), leaf.subject) or names not in (None, expected):
        raise Malformed(
            "expected a request in the names of the certificate that it renews, got one in others",
            hint="leave subject and alternative names out: they come from the enrollment record",
        )


def _alternative_names(
    of: x509.CertificateSigningRequest | x509.Certificate,
) -> list[x509.GeneralName] | None:
    try:
        return list(of.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return None


def _refuse_basic() -> NoReturn:
    raise _not_basic()


def _not_basic() -> Unauthenticated:
    return Unauthenticated(
        "expected a join token as the password of HTTP Basic, got something else",
        hint="curl -u device:TOKEN, with what 'fltrust token create' printed",
    )
