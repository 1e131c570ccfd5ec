"""An ACME client that says whatever a test wants it to, and a web server that answers challenges."""

from __future__ import annotations

import base64
import hmac
import json
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from fltrust.enrollment.mackeys import MacCredential

JOSE = "application/jose+json"


def b64(data: bytes | str | dict[str, Any]) -> str:
    if isinstance(data, dict):
        data = json.dumps(data)
    raw = data.encode() if isinstance(data, str) else data
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


@dataclass
class Key:
    """A P-256 account key."""

    private: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )

    @property
    def jwk(self) -> dict[str, str]:
        numbers = self.private.public_key().public_numbers()
        x, y = (b64(part.to_bytes(32, "big")) for part in (numbers.x, numbers.y))
        return {"crv": "P-256", "kty": "EC", "x": x, "y": y}

    @property
    def thumbprint(self) -> str:
        return b64(sha256(json.dumps(self.jwk, sort_keys=True, separators=(",", ":")).encode()).digest())

    def sign(self, data: bytes) -> bytes:
        r, s = decode_dss_signature(self.private.sign(data, ec.ECDSA(SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def jws(key: Key, header: dict[str, Any], payload: object) -> dict[str, str]:
    """Sign `payload` (an object, or "" for POST-as-GET) under `header`."""
    protected = b64(header)
    body = "" if payload == "" else b64(payload if isinstance(payload, dict) else json.dumps(payload))
    signature = key.sign(f"{protected}.{body}".encode())
    return {"protected": protected, "payload": body, "signature": b64(signature)}


def binding(credential: MacCredential, key: Key, url: str, **changes: Any) -> dict[str, str]:
    """An external account binding (RFC 8555, 7.3.4)."""
    header = {"alg": "HS256", "kid": credential.credential_id, "url": url, **changes}
    protected, payload = b64(header), b64(key.jwk)
    mac = hmac.digest(credential.key, f"{protected}.{payload}".encode(), sha256)
    return {"protected": protected, "payload": payload, "signature": b64(mac)}


def csr_for(*names: str, key: ec.EllipticCurvePrivateKey | None = None, **more: Any) -> bytes:
    """A CSR for these DNS names; `common_name` and `others` add what a test wants."""
    private = key or ec.generate_private_key(ec.SECP256R1())
    subject = [x509.NameAttribute(x509.NameOID.COMMON_NAME, name) for name in more.get("common_name", ())]
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(subject))
    alternatives = [*(x509.DNSName(name) for name in names), *more.get("others", ())]
    if alternatives:
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    return builder.sign(private, SHA256()).public_bytes(Encoding.DER)


class AcmeClient:
    """Speaks to one server, with one key. Every header and payload can be replaced."""

    def __init__(self, base: str, context: ssl.SSLContext, key: Key | None = None) -> None:
        self.http = httpx.Client(verify=context, timeout=30)
        self.base = f"{base}/acme"
        self.key = key or Key()
        self.kid: str | None = None

    def close(self) -> None:
        self.http.close()

    def nonce(self) -> str:
        return self.http.head(f"{self.base}/new-nonce").headers["replay-nonce"]

    def post(
        self,
        url: str,
        payload: object,
        *,
        by_key: bool = False,
        key: Key | None = None,
        header: dict[str, Any] | None = None,
        without: tuple[str, ...] = (),
    ) -> httpx.Response:
        """POST a JWS; `url` may be a path. `header` replaces and `without` removes what would be in it."""
        url = url if url.startswith("http") else f"{self.base}/{url}"
        key = key or self.key
        full: dict[str, Any] = {"alg": "ES256", "nonce": self.nonce(), "url": url}
        full |= {"jwk": key.jwk} if by_key else {"kid": self.kid}
        full |= header or {}
        for name in without:
            full.pop(name, None)
        return self.send(url, jws(key, full, payload))

    def send(self, url: str, body: object, kind: str = JOSE) -> httpx.Response:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.http.post(url, content=data, headers={"content-type": kind})

    def register(self, credential: MacCredential, **more: Any) -> httpx.Response:
        url = f"{self.base}/new-account"
        payload = {"externalAccountBinding": binding(credential, self.key, url), **more}
        answer = self.post(url, payload, by_key=True)
        if answer.status_code in (200, 201):
            self.kid = answer.headers["location"]
        return answer

    def order(self, *names: str, **more: Any) -> httpx.Response:
        identifiers = [{"type": "dns", "value": name} for name in names]
        return self.post("new-order", {"identifiers": identifiers, **more})

    def challenge(self, authorization: str, kind: str = "http-01") -> dict[str, str]:
        found = self.post(authorization, "").json()
        return next(one for one in found["challenges"] if one["type"] == kind)

    def prove(self, order: dict[str, Any], web: Web, kind: str = "http-01") -> None:
        """Answer every challenge of an order, and wait until each authorization is decided."""
        for authorization in order["authorizations"]:
            challenge = self.challenge(authorization, kind)
            web.answers[challenge["token"]] = f"{challenge['token']}.{self.key.thumbprint}"
            self.post(challenge["url"], {})
            self.wait(authorization)

    def wait(self, url: str, *, beyond: tuple[str, ...] = ("pending", "processing")) -> dict[str, Any]:
        end = time.monotonic() + 30
        while (found := self.post(url, "").json())["status"] in beyond:
            assert time.monotonic() < end, found
            time.sleep(0.05)
        return found

    def finalize(self, order: dict[str, Any], csr: bytes) -> httpx.Response:
        return self.post(order["finalize"], {"csr": b64(csr)})

    def issue(self, web: Web, *names: str, **more: Any) -> tuple[bytes, dict[str, Any]]:
        """The whole way: PEM chain, and the order."""
        made = self.order(*names, **more)
        assert made.status_code == 201, made.text
        self.prove(made.json(), web)
        done = self.finalize(made.json(), csr_for(*names))
        assert done.status_code == 200, done.text
        order = done.json()
        assert order["status"] == "valid", order
        return self.post(order["certificate"], "").content, {**order, "url": made.headers["location"]}


def kind_of(answer: httpx.Response) -> str:
    """The type of a problem document, cut to its name; a test compares it with what is expected."""
    assert answer.headers["content-type"] == "application/problem+json", (answer.status_code, answer.text)
    return answer.json()["type"].rpartition(":")[2]


@dataclass
class Web:
    """A web server on loopback that answers http-01, or anything that a test puts in `raw`."""

    port: int
    answers: dict[str, str] = field(default_factory=dict)
    raw: tuple[int, dict[str, str], bytes] | None = None
    asked: list[tuple[str, str]] = field(default_factory=list)
    """Host and path of every request."""


@contextmanager
def web_server() -> Iterator[Web]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            web.asked.append((self.headers["Host"], self.path))
            status, headers, body = 200, {}, web.answers.get(self.path.rpartition("/")[2], "").encode()
            if web.raw is not None:
                status, headers, body = web.raw
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    web = Web(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield web
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
