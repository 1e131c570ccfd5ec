"""An OpenBao or Vault PKI mount as the CA that issues: four calls of its HTTP API.

    GET  /v1/<mount>/ca_chain                       which CA it is
    POST /v1/<mount>/sign/<prefix>-<role>           names and end from us, everything else from the role
    POST /v1/<mount>/revoke

One connection is kept, under a lock; each call ends within `TIMEOUT`. No redirect is followed, no answer
above `MAX_ANSWER` is read, and nothing of one but its certificates is believed.
"""

from __future__ import annotations

import http.client
import json
import ssl
import threading
from datetime import timedelta
from typing import Any, Final
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from fltrust.coordinator.upstream_settings import UpstreamSettings
from fltrust.enrollment.private import read_passphrase
from fltrust.errors import FltrustError, Malformed, Unavailable
from fltrust.identity import Serial
from fltrust.pki.bundle import certificates_from_pem
from fltrust.pki.profiles import LEAF_PROFILES
from fltrust.pki.upstream import SigningOrder

TIMEOUT: Final = timedelta(seconds=5)
MAX_ANSWER: Final = 256 * 1024
_MAX_CHAIN: Final = 8


class VaultMount:
    """An `UpstreamMount` over HTTP; safe to call from many threads."""

    def __init__(self, settings: UpstreamSettings) -> None:
        self._settings = settings
        where = urlsplit(settings.url)
        self._host, self._port = where.hostname or "", where.port
        self._tls = None
        if where.scheme == "https":
            self._tls = ssl.create_default_context(cafile=settings.ca_file)
            self._tls.minimum_version = ssl.TLSVersion.TLSv1_2
        self._lock = threading.Lock()
        self._connection: http.client.HTTPConnection | None = None

    def authority(self) -> tuple[x509.Certificate, ...]:
        answer = self._call("GET", "ca_chain", None)
        return self._certificates(answer)

    def sign(self, order: SigningOrder) -> x509.Certificate:
        request = x509.load_der_x509_csr(order.csr_der).public_bytes(Encoding.PEM).decode("ascii")
        role = f"{self._settings.role_prefix}-{order.spiffe_id.role}"
        own = (order.spiffe_id.dns_name,) if _serves(order) else ()
        answer = self._call(
            "POST",
            f"sign/{role}",
            {
                "csr": request,
                "uri_sans": str(order.spiffe_id),
                "alt_names": ",".join((*own, *order.dns_names)),
                "exclude_cn_from_sans": True,
                "not_after": f"{order.not_after:%Y-%m-%dT%H:%M:%SZ}",
                "format": "pem",
            },
        )
        certificate = _field(answer, "certificate")
        return self._certificates(certificate.encode())[0]

    def revoke(self, serial: Serial) -> None:
        # Its serials are octets without a leading zero.
        octets = int(serial).to_bytes((int(serial).bit_length() + 7) // 8, "big").hex(":")
        self._call("POST", "revoke", {"serial_number": octets})

    def close(self) -> None:
        with self._lock:
            self._drop()

    def _certificates(self, pem: bytes) -> tuple[x509.Certificate, ...]:
        try:
            found = certificates_from_pem(pem, limit=_MAX_CHAIN)
        except FltrustError as error:
            raise self._strange(error.message) from None
        if not found:
            raise self._strange("expected certificates, found none")
        return found

    def _call(self, method: str, path: str, body: dict[str, object] | None) -> bytes:
        try:
            token = read_passphrase(self._settings.token_file).decode("ascii")
        except UnicodeDecodeError:
            raise Malformed(f"expected a token in {self._settings.token_file}") from None
        headers = {"X-Vault-Token": token, "X-Vault-Request": "true", "Content-Type": "application/json"}
        if self._settings.namespace is not None:
            headers["X-Vault-Namespace"] = self._settings.namespace
        data = None if body is None else json.dumps(body).encode()
        target = f"/v1/{self._settings.mount}/{path}"
        with self._lock:
            fresh = self._connection is None
            try:
                status, answer = self._exchange(method, target, data, headers)
            except (http.client.HTTPException, OSError) as error:
                self._drop()
                if fresh or isinstance(error, TimeoutError):
                    raise self._away(error) from None
                try:  # the connection that was kept may have been closed meanwhile
                    status, answer = self._exchange(method, target, data, headers)
                except (http.client.HTTPException, OSError) as again:
                    self._drop()
                    raise self._away(again) from None
        if status not in (200, 204):
            raise Unavailable(
                f"expected the upstream CA at {self._settings.url} to answer {method} {path}, it refused "
                f"with {status}: {_errors(answer)}",
                reason="upstream-refused",
                hint="has the mount that role, and does the token's policy allow it?",
            )
        return answer

    def _exchange(
        self, method: str, target: str, data: bytes | None, headers: dict[str, str]
    ) -> tuple[int, bytes]:
        if self._connection is None:
            timeout = TIMEOUT.total_seconds()
            if self._tls is None:
                self._connection = http.client.HTTPConnection(self._host, self._port, timeout=timeout)
            else:
                self._connection = http.client.HTTPSConnection(
                    self._host, self._port, timeout=timeout, context=self._tls
                )
        self._connection.request(method, target, body=data, headers=headers)
        response = self._connection.getresponse()
        answer = response.read(MAX_ANSWER + 1)
        if len(answer) > MAX_ANSWER:
            raise http.client.HTTPException("answer too long")
        return response.status, answer

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _away(self, error: Exception) -> Unavailable:
        return Unavailable(
            f"expected the upstream CA at {self._settings.url} to answer, it did not: {type(error).__name__}",
            reason="upstream-unavailable",
            hint="nobody can enroll or renew until it is back",
        )

    def _strange(self, why: str) -> Unavailable:
        return Unavailable(
            f"expected certificates from the upstream CA at {self._settings.url}: {why}",
            reason="upstream-unavailable",
        )


def _serves(order: SigningOrder) -> bool:

    return LEAF_PROFILES[order.spiffe_id.role].has_dns_name


def _field(answer: bytes, name: str) -> str:
    try:
        found: Any = json.loads(answer)["data"][name]
    except (ValueError, RecursionError, KeyError, TypeError):
        found = None
    if not isinstance(found, str):
        raise Unavailable(f"expected {name!r} in the upstream CA's answer", reason="upstream-unavailable")
    return found


def _errors(answer: bytes) -> str:
    try:
        found = json.loads(answer)["errors"]
        text = "; ".join(item for item in found if isinstance(item, str))
    except (ValueError, RecursionError, KeyError, TypeError):
        return "it did not say why"
    return "".join(letter if letter.isprintable() else " " for letter in text)[:200] or "it did not say why"
