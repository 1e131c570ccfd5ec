"""Validation of challenges: one bounded connection to the name that is to be proved.

http-01 (RFC 8555, 8.3): one GET over plain HTTP to the one port. No redirect is followed, at most
`MAX_ANSWER` bytes are read, and nothing of them is told to anybody: an answer is right, or it is not.
tls-alpn-01 (RFC 8737): one handshake with the protocol ``acme-tls/1``; its certificate alone is looked at.
"""

from __future__ import annotations

import asyncio
import hmac
import ssl
from hashlib import sha256
from typing import Final

import h11
from cryptography import x509

from fltrust.coordinator.acme.targets import Resolver, permitted_addresses
from fltrust.coordinator.acme_settings import AcmeSettings
from fltrust.pki.leaf import PARSE_ERRORS
from fltrust.protocols.acme.problems import AcmeProblem, ProblemType
from fltrust.protocols.acme.state import ChallengeKind

TIMEOUT = 10.0
"""Seconds for a validation, from the name's resolution to the last byte."""
TRIES = 3
PAUSE = 1.0
"""A connection that fails is tried again after so many seconds: servers are slow to start."""
MAX_ANSWER = 4 * 1024
"""Bytes of a body."""
MAX_HEAD = 8 * 1024
_ALPN = "acme-tls/1"
_ACME_IDENTIFIER: Final = x509.ObjectIdentifier("1.3.6.1.5.5.7.1.31")


def key_authorization(token: str, thumbprint: str) -> str:
    """What proves that whoever controls the name also holds the account's key (RFC 8555, 8.1)."""
    return f"{token}.{thumbprint}"


class Validator:
    """Validates challenges; belongs to one event loop."""

    def __init__(self, settings: AcmeSettings, resolver: Resolver | None = None) -> None:
        self._settings = settings
        self._resolver = resolver or Resolver()

    async def validate(self, kind: ChallengeKind, name: str, *, token: str, thumbprint: str) -> None:
        """Return only if the challenge is answered at `name`; `AcmeProblem` otherwise, which says why."""
        expected = key_authorization(token, thumbprint)
        is_http = kind is ChallengeKind.HTTP_01
        port = self._settings.http_port if is_http else self._settings.tls_port
        for left in reversed(range(TRIES)):
            try:
                async with asyncio.timeout(TIMEOUT):
                    address = await self._address(name)
                    if is_http:
                        await _http_01(address, port, name=name, token=token, expected=expected)
                    else:
                        await _tls_alpn_01(address, port, name=name, expected=expected)
                    return
            except TimeoutError:
                problem = AcmeProblem(ProblemType.CONNECTION, f"{name}:{port} did not answer in time")
            except OSError:
                problem = AcmeProblem(ProblemType.CONNECTION, f"could not connect to {name}:{port}")
            if not left:
                raise problem
            await asyncio.sleep(PAUSE)

    async def _address(self, name: str) -> str:
        return str((await permitted_addresses(name, self._resolver, self._settings.networks))[0])


async def _http_01(address: str, port: int, *, name: str, token: str, expected: str) -> None:
    reader, writer = await asyncio.open_connection(address, port, limit=MAX_HEAD)
    try:
        host = name if port == 80 else f"{name}:{port}"
        connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)
        request = h11.Request(
            method="GET",
            target=f"/.well-known/acme-challenge/{token}",
            headers=[("Host", host), ("User-Agent", "fltrust-acme"), ("Connection", "close")],
        )
        writer.write(connection.send(request) + connection.send(h11.EndOfMessage()))
        await writer.drain()
        answer = await _answer(reader, connection, name)
    finally:
        writer.close()
    if not hmac.compare_digest(answer.rstrip(b" \t\r\n"), expected.encode("ascii")):
        raise AcmeProblem(
            ProblemType.INCORRECT_RESPONSE, f"expected the key authorization at {name}, got something else"
        )


async def _answer(reader: asyncio.StreamReader, connection: h11.Connection, name: str) -> bytes:
    body = bytearray()
    try:
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(await reader.read(MAX_HEAD))
            elif isinstance(event, h11.Response):
                if event.status_code != 200:  # a redirect among them
                    raise AcmeProblem(
                        ProblemType.INCORRECT_RESPONSE,
                        f"expected 200 from {name}, got {event.status_code}; redirects are not followed",
                    )
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > MAX_ANSWER:
                    raise _no_http(name)
            elif not isinstance(event, h11.InformationalResponse):
                return bytes(body)
    except h11.RemoteProtocolError:
        raise _no_http(name) from None


def _no_http(name: str) -> AcmeProblem:
    return AcmeProblem(
        ProblemType.INCORRECT_RESPONSE, f"expected a short HTTP answer from {name}, got another"
    )


async def _tls_alpn_01(address: str, port: int, *, name: str, expected: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # the certificate is the answer, and is judged below
    context.set_alpn_protocols([_ALPN])
    try:
        _, writer = await asyncio.open_connection(address, port, ssl=context, server_hostname=name)
    except ssl.SSLError:
        raise AcmeProblem(ProblemType.TLS, f"{name} does not speak TLS with {_ALPN}") from None
    try:
        secured: ssl.SSLObject = writer.get_extra_info("ssl_object")
        protocol, shown = secured.selected_alpn_protocol(), secured.getpeercert(binary_form=True)
    finally:
        writer.close()
    if protocol != _ALPN or shown is None or not _is_answer(shown, name=name, expected=expected):
        raise AcmeProblem(
            ProblemType.INCORRECT_RESPONSE,
            f"expected a certificate of {name} with the key authorization's digest over {_ALPN}, got another",
        )


def _is_answer(certificate_der: bytes, *, name: str, expected: str) -> bool:
    """Whether it names exactly `name` and has the digest in a critical extension (RFC 8737, 3)."""
    wanted = b"\x04\x20" + sha256(expected.encode("ascii")).digest()
    try:
        certificate = x509.load_der_x509_certificate(certificate_der)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        found = certificate.extensions.get_extension_for_oid(_ACME_IDENTIFIER)
    except (*PARSE_ERRORS, x509.ExtensionNotFound):
        return False
    value = found.value
    return (
        list(names) == [x509.DNSName(name)]
        and found.critical
        and isinstance(value, x509.UnrecognizedExtension)
        and hmac.compare_digest(value.value, wanted)
    )
