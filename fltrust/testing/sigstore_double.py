"""A Sigstore instance on 127.0.0.1 for tests of keyless signing: certificate authority, Rekor v2, timestamps.

Made of the pieces of `ScratchDesk`, over plain HTTP, in the shapes that stock clients speak:

    GET  /.well-known/openid-configuration
    POST /api/v2/signingCert                 Fulcio: the token's ``sub`` and ``iss`` are believed
    POST /api/v2/log/entries                 Rekor v2: hashedrekord/0.0.2
    POST /api/v1/timestamp                   RFC 3161
"""

from __future__ import annotations

import base64
import json
import threading
import time
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, ClassVar, Self

from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from fltrust import strictjson
from fltrust.artifacts.trustroot import build_trusted_root
from fltrust.clock import SystemClock
from fltrust.errors import Malformed
from fltrust.identity import TrustDomain
from fltrust.keys.verify import is_p256
from fltrust.pki.codesigning import ISSUER_OID, ISSUER_V2_OID, SigningDraft
from fltrust.pki.profiles import key_usage
from fltrust.pki.sct import issuer_key_hash, sct_extension, sign_sct
from fltrust.strictbase64 import to_base64
from fltrust.testing.desk import ScratchDesk
from fltrust.tlog.checkpoint import sign_checkpoint
from fltrust.tlog.merkle import Prover
from fltrust.tlog.note import NoteKey

_MAX_REQUEST = 2**20
_KIND = {"kind": "hashedrekord", "version": "0.0.2"}


class SigstoreDouble:
    """Serves until the block ends. `client_config` is what clients are configured with."""

    def __init__(self) -> None:
        self.desk = ScratchDesk(domain=TrustDomain("sigstore.example"), clock=SystemClock())
        double = self

        class Handler(_Handler):
            instance = double

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def trusted_root(self) -> bytes:
        return build_trusted_root(self.desk.trusted_root)

    @property
    def client_config(self) -> bytes:
        """A ClientTrustConfig (JSON): where the services are, and what to trust."""

        def service(path: str = "", version: int = 1) -> list[dict[str, object]]:
            window = {"start": "2020-01-01T00:00:00Z"}
            return [
                {
                    "url": self.url + path,
                    "majorApiVersion": version,
                    "validFor": window,
                    "operator": "sigstore.example",
                }
            ]

        return json.dumps(
            {
                "mediaType": "application/vnd.dev.sigstore.clienttrustconfig.v0.1+json",
                "trustedRoot": json.loads(self.trusted_root),
                "signingConfig": {
                    "mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json",
                    "caUrls": service(),
                    "oidcUrls": service(),
                    "rekorTlogUrls": service(version=2),
                    "tsaUrls": service("/api/v1/timestamp"),
                    "rekorTlogConfig": {"selector": "ANY"},
                    "tsaConfig": {"selector": "ANY"},
                },
            }
        ).encode()

    def token(self, subject: str, *, lifetime: timedelta = timedelta(minutes=10)) -> str:
        """An OIDC token of this instance's issuer. Its signature is none: nobody here checks it."""
        now = int(time.time())
        parts: list[dict[str, object]] = [
            {"alg": "RS256", "typ": "JWT"},
            {
                "iss": self.url,
                "sub": subject,
                "aud": "sigstore",
                "iat": now,
                "exp": now + int(lifetime.total_seconds()),
            },
        ]
        return ".".join([*(_base64url(json.dumps(part).encode()) for part in parts), _base64url(b"unsigned")])

    # What the services do.

    def certify(self, csr_pem: bytes, token: str) -> list[str]:
        claims = json.loads(_unbase64url(token.split(".")[1]))
        key = x509.load_pem_x509_csr(csr_pem).public_key()
        desk, now = self.desk, datetime.now(UTC)
        if not is_p256(key):
            raise Malformed("expected a P-256 key to certify, got another kind")
        draft = SigningDraft.of(desk.caller, key, now=now)
        subject, issuer = claims["sub"], claims["iss"]
        name = x509.RFC822Name(subject) if "@" in subject else x509.UniformResourceIdentifier(subject)
        builder = (
            desk.issuer.begin(draft, desk.issuer.draw_serial())
            .subject_name(x509.Name([]))
            .add_extension(key_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False)
            .add_extension(x509.SubjectAlternativeName([name]), critical=True)
            .add_extension(x509.UnrecognizedExtension(ISSUER_OID, issuer.encode()), critical=False)
            .add_extension(x509.UnrecognizedExtension(ISSUER_V2_OID, asn1.encode_der(issuer)), critical=False)
        )
        tbs = desk.issuer.sign(builder).tbs_certificate_bytes
        sct = sign_sct(desk.notary.ct, key_hash=issuer_key_hash(desk.issuer.certificate), tbs=tbs, at=now)
        leaf = desk.issuer.sign(builder.add_extension(sct_extension([sct]), critical=False))
        chain = (leaf, desk.issuer.certificate, desk.roots.roots[0])
        return [certificate.public_bytes(Encoding.PEM).decode() for certificate in chain]

    def log(self, request: dict[str, Any]) -> dict[str, object]:
        asked = request["hashedRekordRequestV002"]
        body = strictjson.encode(
            {
                "apiVersion": "0.0.2",
                "kind": "hashedrekord",
                "spec": {
                    "hashedRekordV002": {
                        "data": {"algorithm": "SHA2_256", "digest": asked["digest"]},
                        "signature": asked["signature"],
                    }
                },
            }
        )
        desk = self.desk
        with self._lock:
            index = desk.tree.append(body)
            prover = Prover(desk.tree, index + 1)
            checkpoint = sign_checkpoint(prover.head, NoteKey(desk.notary.log_name, desk.notary.note))
            return {
                "logIndex": str(index),
                "logId": {"keyId": to_base64(desk.log_id)},
                "kindVersion": _KIND,
                "integratedTime": "0",
                "canonicalizedBody": to_base64(body),
                "inclusionProof": {
                    "logIndex": str(index),
                    "treeSize": str(index + 1),
                    "rootHash": to_base64(prover.head.root),
                    "hashes": [to_base64(item) for item in prover.inclusion(index)],
                    "checkpoint": {"envelope": checkpoint.decode()},
                },
            }


class _Handler(BaseHTTPRequestHandler):
    instance: ClassVar[SigstoreDouble]

    def do_GET(self) -> None:
        url = self.instance.url
        if self.path != "/.well-known/openid-configuration":
            self._answer(404, b"")
            return
        known = {"issuer": url, "authorization_endpoint": f"{url}/auth", "token_endpoint": f"{url}/token"}
        self._answer(200, json.dumps(known).encode())

    def do_POST(self) -> None:
        data = self.rfile.read(min(int(self.headers["Content-Length"]), _MAX_REQUEST))
        if self.path == "/api/v2/signingCert":
            csr = base64.b64decode(json.loads(data)["certificateSigningRequest"])
            token = self.headers["Authorization"].removeprefix("Bearer ")
            chain = self.instance.certify(csr, token)
            self._answer(
                200,
                json.dumps({"signedCertificateEmbeddedSct": {"chain": {"certificates": chain}}}).encode(),
            )
        elif self.path == "/api/v2/log/entries":
            self._answer(201, json.dumps(self.instance.log(json.loads(data))).encode())
        elif self.path == "/api/v1/timestamp":
            answer = self.instance.desk.notary.timestamps.answer(data)
            self._answer(201, answer, kind="application/timestamp-reply")
        else:
            self._answer(404, b"")

    def _answer(self, status: int, body: bytes, *, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
        del format, args


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _unbase64url(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
