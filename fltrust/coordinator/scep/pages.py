"""SCEP over HTTP (RFC 8894, 4): GetCACaps and GetCACert by GET, messages by POST.

A message in a GET's query is refused: it would stand in logs, and clients that read GetCACaps use POST.
"""

from __future__ import annotations

from cryptography.hazmat.primitives.serialization import Encoding, pkcs7
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fltrust.coordinator.http_requests import source_of
from fltrust.coordinator.public_modules import PublicContext, PublicModule
from fltrust.coordinator.scep.responder import ScepResponder
from fltrust.errors import InvalidInput
from fltrust.protocols.scep.messages import (
    CERTIFICATES_MEDIA,
    MAX_MESSAGE,
    MESSAGE_MEDIA,
    Recipient,
)
from fltrust.protocols.scep.suites import LEGACY, MODERN

PATH = "/scep"
_UNCACHED = {"cache-control": "no-store"}


def scep_module(recipient: Recipient, *, is_legacy_taken: bool = False) -> PublicModule:
    """The module of the public port, with the key that requests are encrypted to; `is_legacy_taken` lets in
    clients that know DES and SHA-1 alone."""
    capabilities = MODERN.capabilities + (LEGACY.capabilities if is_legacy_taken else ())

    def routes(context: PublicContext) -> list[Route]:
        responder = ScepResponder(
            context.authority, recipient, context.clock, is_legacy_taken=is_legacy_taken
        )

        async def ask(request: Request) -> Response:
            match request.query_params.getlist("operation"):
                case ["GetCACaps"]:
                    return Response(
                        "\n".join(capabilities) + "\n", media_type="text/plain", headers=_UNCACHED
                    )
                case ["GetCACert"]:
                    # In no order: DER sorts a set. The recipient is the one with an RSA key.
                    issuing = context.authority.ca.issuer.certificate
                    found = [recipient.certificate, issuing, *context.authority.bundle().roots]
                    der = pkcs7.serialize_certificates(found, Encoding.DER)
                    return Response(der, media_type=CERTIFICATES_MEDIA, headers=_UNCACHED)
            return Response("expected GetCACaps or GetCACert\n", 400, media_type="text/plain")

        async def send(request: Request) -> Response:
            if request.query_params.getlist("operation") != ["PKIOperation"]:
                return Response("expected PKIOperation\n", 400, media_type="text/plain")
            der = await context.body(request, limit=MAX_MESSAGE)
            source = source_of(request)
            try:
                reply = await context.lane.run(lambda: responder.answer(der, source=source))
            except InvalidInput as error:
                return Response(f"{error.message}\n", 400, media_type="text/plain")
            return Response(reply, media_type=MESSAGE_MEDIA, headers=_UNCACHED)

        return [
            Route(PATH, context.page("scep.ca", ask), methods=["GET"]),
            Route(PATH, context.page("scep.message", send), methods=["POST"]),
        ]

    return routes
