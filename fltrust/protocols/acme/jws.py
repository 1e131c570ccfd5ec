"""Signed requests: JSON Web Signatures as ACME uses them (RFC 8555, section 6.2), read in one way only.

The flattened JSON form with exactly three members, a protected header with exactly the parameters that ACME
names, one signature. Libraries for JWS read more than that, compact forms, detached payloads and critical
extensions among it; here what is not ACME's is refused before a key is looked up.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from hashlib import sha256

from fltrust.errors import Malformed
from fltrust.protocols.acme.jwk import ALGORITHMS, AccountKey, read_jwk
from fltrust.protocols.acme.problems import AcmeProblem, ProblemType, malformed, unauthorized
from fltrust.strictbase64 import from_base64url
from fltrust.strictjson import Fields, decode_any

MAX_BODY = 64 * 1024
"""Bytes of a signed request."""
MAX_VALUES = 2_000
"""JSON values in it."""
MAX_URL = 1024
CONTENT_TYPE = "application/jose+json"


@dataclass(frozen=True, slots=True)
class SignedRequest:
    """A request that was read and not verified yet: exactly one of `key` and `kid` is set."""

    algorithm: str
    url: str
    nonce: str | None
    key: AccountKey | None
    kid: str | None
    payload: bytes
    signing_input: bytes
    signature: bytes


def read_jws(body: bytes, *, limit: int = MAX_BODY, has_nonce: bool = True) -> SignedRequest:
    """Read a signed request. Verifies nothing.

    `Oversized` past `limit` bytes, before anything is parsed; `AcmeProblem`, ``malformed`` or
    ``badSignatureAlgorithm``, else:

    1. The body is one JSON object of ``protected``, ``payload`` and ``signature``, each base64url.
    2. The header has ``alg`` and ``url``, exactly one of ``jwk`` and ``kid``, ``nonce`` if and only if it
       must have one, and nothing else.
    3. ``alg`` is one of ours: neither ``none`` nor a MAC is.
    """
    return _read(decode_any(body, limit=limit, what="a signed request", values=MAX_VALUES), has_nonce)


def read_inner(value: object, *, has_nonce: bool = False) -> SignedRequest:
    """As `read_jws`, of a JWS that is the payload, or in the payload, of another."""
    return _read(value, has_nonce)


def _read(value: object, has_nonce: bool) -> SignedRequest:
    # 1.
    protected, payload, signature = _members(value)
    # 2.
    header = _header(protected)
    algorithm, url = header.text("alg", limit=16), header.text("url", limit=MAX_URL)
    nonce = header.text("nonce", limit=256) if has_nonce else None
    jwk, kid = header.take("jwk"), header.take("kid")
    if (jwk is None) == (kid is None):
        raise malformed("expected exactly one of 'jwk' and 'kid' in the protected header")
    if kid is not None and not (isinstance(kid, str) and 0 < len(kid) <= MAX_URL):
        raise malformed("expected 'kid' as text")
    header.done()
    # 3.
    if algorithm not in ALGORITHMS:
        raise _bad_algorithm(f"expected one of {', '.join(ALGORITHMS)}, got {algorithm!r}")
    return SignedRequest(
        algorithm=algorithm,
        url=url,
        nonce=nonce,
        key=None if jwk is None else read_jwk(jwk),
        kid=kid if isinstance(kid, str) else None,
        payload=from_base64url(payload, "the payload"),
        signing_input=f"{protected}.{payload}".encode("ascii"),
        signature=from_base64url(signature, "the signature"),
    )


def check_signature(request: SignedRequest, key: AccountKey) -> None:
    """Return only if the holder of `key` signed the request, with that key's own algorithm.

    A header that names another algorithm than the key's is refused (``badSignatureAlgorithm``), whatever the
    signature; a signature that does not verify is ``malformed``, as others answer.
    """
    if request.algorithm != key.algorithm:
        raise _bad_algorithm(f"expected {key.algorithm}, the algorithm of the key, got {request.algorithm}")
    if not key.verify(request.signature, request.signing_input):
        raise malformed("expected a signature by the key that the request names, it is not")


@dataclass(frozen=True, slots=True)
class Binding:
    """An external account binding that was read and not verified yet."""

    kid: str
    url: str
    payload: bytes
    signing_input: bytes
    mac: bytes


def read_binding(value: object) -> Binding:
    """Read an external account binding (RFC 8555, section 7.3.4): HS256, a kid, the url, no nonce."""
    protected, payload, signature = _members(value)
    header = _header(protected)
    algorithm = header.text("alg", limit=16)
    kid, url = header.text("kid", limit=64), header.text("url", limit=MAX_URL)
    header.done()
    if algorithm != "HS256":
        raise AcmeProblem(
            ProblemType.BAD_SIGNATURE_ALGORITHM, f"expected HS256 in the account binding, got {algorithm!r}"
        )
    return Binding(
        kid,
        url,
        from_base64url(payload, "the payload of the account binding"),
        f"{protected}.{payload}".encode("ascii"),
        from_base64url(signature, "the signature of the account binding"),
    )


def check_binding(binding: Binding, *, mac_key: bytes, account: AccountKey, url: str) -> None:
    """Return only if the holder of `mac_key` bound exactly this account key, for exactly this url.

    ``unauthorized`` for another MAC or url, ``malformed`` for another key in it.
    """
    if not hmac.compare_digest(hmac.digest(mac_key, binding.signing_input, sha256), binding.mac):
        raise unauthorized("expected an account binding made with the credential's key")
    if binding.url != url:
        raise unauthorized("expected an account binding for this url")
    bound = read_jwk(decode_any(binding.payload, limit=MAX_BODY, what="the bound key", values=32))
    if not hmac.compare_digest(bound.canonical, account.canonical):
        raise malformed("expected the account's own key in the account binding")


def _members(value: object) -> tuple[str, str, str]:
    fields = Fields(value, "a signed request")
    found = tuple(fields.text(name, limit=MAX_BODY) for name in ("protected", "payload", "signature"))
    fields.done()  # an unprotected header, or several signatures
    if not all(text.isascii() for text in found):
        raise Malformed("expected base64url in a signed request")
    return found[0], found[1], found[2]


def _header(protected: str) -> Fields:
    data = from_base64url(protected, "the protected header")
    return Fields(decode_any(data, limit=8 * 1024, what="the protected header", values=64), "the header")


def _bad_algorithm(message: str) -> AcmeProblem:
    return AcmeProblem(ProblemType.BAD_SIGNATURE_ALGORITHM, message, more={"algorithms": list(ALGORITHMS)})
