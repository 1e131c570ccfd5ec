"""JSON Web Tokens of identity providers: compact JWS (RFC 7515) under keys of a JWK set (RFC 7517).

Asymmetric signatures of an allow-list alone, whatever a token's header asks for: ``none`` and MACs do not
exist here. Sizes are bounded before anything is parsed, and claims are read after the signature verified.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from fltrust.errors import Malformed, Oversized, SignatureInvalid
from fltrust.strictbase64 import from_base64url
from fltrust.strictjson import decode_any

MAX_TOKEN = 16 * 1024
MAX_JWKS = 256 * 1024
MAX_KEYS = 64
_MAX_KID = 256
_MIN_RSA, _MAX_RSA = 2048, 8192
_SEGMENT = re.compile(r"[A-Za-z0-9_-]+\Z")


class JwsAlgorithm(StrEnum):
    """What a rule may allow. Each is tied to one kind of key."""

    RS256 = "RS256"
    PS256 = "PS256"
    ES256 = "ES256"
    EDDSA = "EdDSA"


@dataclass(frozen=True, slots=True)
class SignedToken:
    """A token taken apart; nothing of it is proven."""

    algorithm: JwsAlgorithm
    kid: str | None
    signing_input: bytes
    signature: bytes
    payload: bytes


@dataclass(frozen=True, slots=True)
class IssuerKey:
    """One signing key of an issuer's set."""

    kid: str | None
    algorithms: frozenset[JwsAlgorithm]
    key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey


def read_token(text: str) -> SignedToken:
    """Take a compact JWS apart.

    1. At most `MAX_TOKEN` characters, else `Oversized`; three base64url segments without padding.
    2. The header is one JSON object; ``alg`` is one of `JwsAlgorithm`; ``crit`` and ``b64`` are not there;
       ``typ``, where it stands, says JWT.

    No message quotes what came, since it may be good for something. Raises `Malformed`.
    """
    # 1.
    if len(text) > MAX_TOKEN:
        raise Oversized(f"expected a token of at most {MAX_TOKEN} characters, got {len(text)}")
    parts = text.split(".")
    if len(parts) != 3 or not all(_SEGMENT.match(part) for part in parts):
        raise Malformed("expected a signed JWT in its compact form, got something else")
    header = _object(from_base64url(parts[0], "a token's header"), "a token's header", limit=4096)
    # 2.
    algorithm = header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in set(JwsAlgorithm):
        raise Malformed(f"expected a token signed by one of {', '.join(JwsAlgorithm)}, got another algorithm")
    if "crit" in header or "b64" in header:
        raise Malformed("expected a token without critical extensions, got one with some")
    if str(header.get("typ", "JWT")).lower() not in ("jwt", "at+jwt"):
        raise Malformed("expected a token of type JWT, got another type")
    kid = header.get("kid")
    if kid is not None and (not isinstance(kid, str) or len(kid) > _MAX_KID):
        raise Malformed(f"expected a key id of at most {_MAX_KID} characters in the token's header")
    return SignedToken(
        JwsAlgorithm(algorithm),
        kid,
        f"{parts[0]}.{parts[1]}".encode(),
        from_base64url(parts[2], "a token's signature"),
        from_base64url(parts[1], "a token's claims"),
    )


def verify_token(token: SignedToken, key: IssuerKey) -> Mapping[str, object]:
    """Return the claims of a token that `key` signed; `SignatureInvalid` otherwise.

    The token's algorithm is one that the key is for.
    """
    if token.algorithm not in key.algorithms:
        raise SignatureInvalid("expected a token signed as its issuer's key says, got another algorithm")
    try:
        _verify(token, key.key)
    except (InvalidSignature, ValueError):
        raise SignatureInvalid("expected a token signed by its issuer's key, it is not") from None
    return _object(token.payload, "a token's claims", limit=MAX_TOKEN)


def read_jwks(data: bytes) -> tuple[IssuerKey, ...]:
    """Read the signing keys of a JWK set, of at most `MAX_JWKS` bytes and `MAX_KEYS` keys.

    Keys for other uses, of other kinds or outside of the bounds (RSA of 2048 to 8192 bits, P-256, Ed25519)
    are passed over, as RFC 7517, section 5, says; a set without any left raises `Malformed`. So does a key
    id that stands twice: which one is meant?
    """
    found = _object(data, "a JWK set", limit=MAX_JWKS).get("keys")
    if not isinstance(found, list) or len(found) > MAX_KEYS:
        raise Malformed(f"expected a JWK set of at most {MAX_KEYS} keys")
    keys = [key for entry in found if isinstance(entry, dict) and (key := _key(entry)) is not None]
    named = [key.kid for key in keys if key.kid is not None]
    if not keys or len(set(named)) != len(named):
        raise Malformed("expected a JWK set with signing keys, each under an id of its own")
    return tuple(keys)


def key_for(token: SignedToken, keys: Sequence[IssuerKey]) -> IssuerKey | None:
    """The key that a token names; without a name, the only one there is for its algorithm."""
    if token.kid is not None:
        return next((key for key in keys if key.kid == token.kid), None)
    fitting = [key for key in keys if token.algorithm in key.algorithms]
    return fitting[0] if len(fitting) == 1 else None


def _object(data: bytes, what: str, *, limit: int) -> dict[str, object]:
    value = decode_any(data, limit=limit, what=what, values=4096)
    if not isinstance(value, dict):
        raise Malformed(f"expected {what} as a JSON object")
    return value


def _verify(
    token: SignedToken, key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey
) -> None:
    if isinstance(key, ed25519.Ed25519PublicKey):
        key.verify(token.signature, token.signing_input)
    elif isinstance(key, ec.EllipticCurvePublicKey):
        if len(token.signature) != 64:  # RFC 7518, 3.4: R and S, 32 octets each
            raise InvalidSignature
        r, s = (int.from_bytes(half, "big") for half in (token.signature[:32], token.signature[32:]))
        key.verify(encode_dss_signature(r, s), token.signing_input, ec.ECDSA(SHA256()))
    elif token.algorithm is JwsAlgorithm.PS256:
        pss = padding.PSS(mgf=padding.MGF1(SHA256()), salt_length=SHA256().digest_size)
        key.verify(token.signature, token.signing_input, pss, SHA256())
    else:
        key.verify(token.signature, token.signing_input, padding.PKCS1v15(), SHA256())


def _key(entry: Mapping[str, object]) -> IssuerKey | None:
    kid, use, algorithm = entry.get("kid"), entry.get("use", "sig"), entry.get("alg")
    if use != "sig" or (kid is not None and (not isinstance(kid, str) or len(kid) > _MAX_KID)):
        return None
    try:
        key, allowed = _material(entry)
    except (Malformed, ValueError, UnsupportedAlgorithm):
        return None
    if algorithm is not None:
        allowed = allowed & {stated for stated in JwsAlgorithm if stated == algorithm}
    return IssuerKey(kid, allowed, key) if allowed else None


def _material(
    entry: Mapping[str, object],
) -> tuple[rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey, frozenset[JwsAlgorithm]]:
    match entry.get("kty"), entry.get("crv"):
        case "RSA", _:
            n, e = _integer(entry, "n", limit=_MAX_RSA // 8), _integer(entry, "e", limit=8)
            if not _MIN_RSA <= n.bit_length() <= _MAX_RSA or e != 65537:
                raise Malformed("expected an RSA key of 2048 to 8192 bits with e of 65537")
            return rsa.RSAPublicNumbers(e, n).public_key(), frozenset(
                {JwsAlgorithm.RS256, JwsAlgorithm.PS256}
            )
        case "EC", "P-256":
            x, y = _integer(entry, "x", limit=32), _integer(entry, "y", limit=32)
            curve = ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1())
            return curve.public_key(), frozenset({JwsAlgorithm.ES256})
        case "OKP", "Ed25519":
            raw = from_base64url(str(entry.get("x")), "'x' of a key")
            return ed25519.Ed25519PublicKey.from_public_bytes(raw), frozenset({JwsAlgorithm.EDDSA})
    raise Malformed("expected a key of a kind that is known here")


def _integer(entry: Mapping[str, object], name: str, *, limit: int) -> int:
    text = entry.get(name)
    if not isinstance(text, str) or not 0 < len(text) <= 2 * limit:
        raise Malformed(f"expected {name!r} in a key")
    data = from_base64url(text, f"{name!r} of a key")
    if len(data) > limit + 1:
        raise Malformed(f"expected {name!r} of at most {limit} octets in a key")
    return int.from_bytes(data, "big")
