"""Fetches a foreign domain's bundle: authenticated by its profile, bounded, never set back."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from fltrust.enrollment.foreign import BundleProfile, ForeignDomain
from fltrust.errors import CertificateRefused, FltrustError, Malformed, Oversized, Refusal, Unavailable
from fltrust.keys.tls import presented_chain
from fltrust.pki.bundle import MAX_BUNDLE, bundle_to_pem
from fltrust.pki.jwks import PublishedBundle, bundle_from_jwks
from fltrust.pki.leaf import PARSE_ERRORS
from fltrust.pki.verify import MAX_CERTIFICATE, MAX_CHAIN, verify_path

CONNECT_TIMEOUT = 5.0
TOTAL_TIMEOUT = 10.0
"""Seconds: to connect, and for everything."""


def fetch_bundle(
    record: ForeignDomain,
    *,
    at: datetime,
    web_roots: Path | None = None,
    monotonic: Callable[[], float] = time.monotonic,
) -> PublishedBundle:
    """Fetch the bundle that `record` says where to find; one that is held already comes back as it is.

    1. HTTPS with TLS 1.3, to the URL's host and port. Redirections are not followed, proxies not used.
    2. With ``https_spiffe``: the endpoint shows a certificate for a TLS server that leads to the roots which
       are held of that domain now, with exactly one URI, and that is the endpoint's SPIFFE ID.
       With ``https_web``: one of the Web PKI for the host, or under `web_roots` where they are given.
    3. The answer is 200 and at most 256 KiB, within `TOTAL_TIMEOUT`.
    4. It is a bundle with a sequence (`bundle_from_jwks`), not older than the one that is held, and of the
       same sequence the same one (`ForeignDomain.with_bundle`).

    `Unavailable` where it cannot be reached; else what is wrong with what came.
    """
    deadline = monotonic() + TOTAL_TIMEOUT
    parts = urlsplit(record.endpoint_url)
    host, port = parts.hostname or "", parts.port or 443
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    is_web = record.profile is BundleProfile.HTTPS_WEB
    context = _web_context(web_roots) if is_web else _spiffe_context(record)
    try:
        with (
            socket.create_connection((host, port), timeout=CONNECT_TIMEOUT) as plain,
            _cut_after(plain, TOTAL_TIMEOUT),
            context.wrap_socket(plain, server_hostname=host) as connection,
        ):
            if not is_web:
                check_endpoint(presented_chain(connection), record, at=at)  # 2
            data = _get(connection, parts.netloc, target, deadline=deadline, monotonic=monotonic)  # 3
    except FltrustError:
        raise
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise Unavailable(
            f"could not fetch the bundle of {record.domain} from {record.endpoint_url}: "
            f"{type(error).__name__}: {str(error)[:200]}",
            reason="bundle-unavailable",
        ) from None
    published = bundle_from_jwks(data, domain=record.domain)  # 4
    record.with_bundle(published.bundle)
    return published


def check_endpoint(chain: tuple[bytes, ...], record: ForeignDomain, *, at: datetime) -> None:
    """Return only if a chain (DER, leaf first) is that of the bundle endpoint of `record`: step 2 of
    `fetch_bundle`. Whatever implementation issued it: of its names the URI alone is looked at."""
    if not 1 <= len(chain) <= MAX_CHAIN or any(len(der) > MAX_CERTIFICATE for der in chain):
        raise Oversized(f"expected 1 to {MAX_CHAIN} certificates of the bundle endpoint of {record.domain}")
    try:
        certificates = [x509.load_der_x509_certificate(der) for der in chain]
        extensions = certificates[0].extensions
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
        usages = set(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    except (x509.ExtensionNotFound, *PARSE_ERRORS):
        raise CertificateRefused(
            f"expected an X.509-SVID of the bundle endpoint of {record.domain}, got another certificate"
        ) from None
    verify_path(certificates, roots=record.bundle.roots, at=at)
    if uris != [record.endpoint_spiffe_id] or ExtendedKeyUsageOID.SERVER_AUTH not in usages:
        raise CertificateRefused(
            f"expected {record.endpoint_spiffe_id} at {record.endpoint_url}, got {str(uris[:1])[:200]}",
            reason=Refusal.UNKNOWN_IDENTITY,
        )


@contextmanager
def _cut_after(connection: socket.socket, seconds: float) -> Iterator[None]:
    """End the connection after `seconds`, whatever is being read: a byte now and then is no answer."""

    def cut() -> None:
        with suppress(OSError):
            socket.socket.shutdown(twin, socket.SHUT_RDWR)

    twin = connection.dup()  # `wrap_socket` takes the other one over
    timer = threading.Timer(seconds, cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        twin.close()


def _get(
    connection: ssl.SSLSocket,
    host: str,
    target: str,
    *,
    deadline: float,
    monotonic: Callable[[], float],
) -> bytes:
    connection.settimeout(CONNECT_TIMEOUT)
    connection.sendall(
        f"GET {target} HTTP/1.1\r\nHost: {host}\r\nAccept: application/json\r\n"
        "Connection: close\r\n\r\n".encode()
    )
    response = http.client.HTTPResponse(connection, method="GET")
    response.begin()
    if response.status != 200:
        raise Unavailable(
            f"expected 200 of a bundle endpoint, got {response.status}", reason="bundle-unavailable"
        )
    data = bytearray()
    while part := response.read1(16 * 1024):
        data += part
        if len(data) > MAX_BUNDLE:
            raise Oversized(f"expected a bundle of at most {MAX_BUNDLE} bytes, got more")
        if monotonic() > deadline:
            raise Unavailable(f"expected the bundle within {TOTAL_TIMEOUT:g} s", reason="bundle-unavailable")
    announced = response.getheader("content-length")
    if announced is not None and announced != str(len(data)):
        raise Malformed("expected a whole bundle, the answer was cut")
    return bytes(data)


def _spiffe_context(record: ForeignDomain) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # the name that counts is the SPIFFE ID: `check_endpoint`
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=bundle_to_pem(record.bundle).decode("ascii"))
    return context


def _web_context(roots: Path | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=None if roots is None else str(roots))
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context
