"""A trust bundle as SPIFFE publishes it: a JWK Set with a sequence and a refresh hint.

SPIFFE Trust Domain and Bundle, section 4. Only X.509 authorities are read and written; keys for JWT-SVIDs are
passed over, as the specification asks, since nothing here verifies JWTs.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from fltrust.errors import Malformed, Oversized
from fltrust.identity import TrustDomain
from fltrust.pki.bundle import MAX_BUNDLE, MAX_ROOTS, bundle_to_jwks, make_bundle
from fltrust.pki.leaf import PARSE_ERRORS
from fltrust.pki.types import TrustBundle
from fltrust.strictjson import decode_any

MEDIA_TYPE = "application/json"
X509_USE = "x509-svid"
MIN_REFRESH: Final = timedelta(seconds=10)
MAX_REFRESH: Final = timedelta(hours=24)
DEFAULT_REFRESH: Final = timedelta(minutes=5)
_MAX_KEYS = 64
_CURVES = {"P-256": 32, "P-384": 48, "P-521": 66}


@dataclass(frozen=True, slots=True)
class PublishedBundle:
    """A bundle and when to ask for it again: what was hinted, within `MIN_REFRESH` and `MAX_REFRESH`."""

    bundle: TrustBundle
    refresh: timedelta


def publish(bundle: TrustBundle, *, refresh: timedelta) -> bytes:
    """Write a bundle as an endpoint serves it."""
    document = json.loads(bundle_to_jwks(bundle))
    document["spiffe_refresh_hint"] = int(refresh.total_seconds())
    return json.dumps(document, sort_keys=True).encode()


def bundle_from_jwks(data: bytes, *, domain: TrustDomain) -> PublishedBundle:
    """Read the bundle of `domain`, which is not in the document: the caller knows whom it asked.

    1. At most 256 KiB of JSON that can be read in one way only, with at most 64 keys.
    2. A sequence is demanded: without one nobody can tell an old bundle from a new one.
    3. Keys of a use that is not ``x509-svid`` are passed over. Each other one has exactly one certificate in
       ``x5c``, of a CA, whose key is the one that the JWK states; 1 to 16 of them, no two the same.

    `Oversized` or `Malformed` for anything else.
    """
    # 1.
    document = decode_any(data, limit=MAX_BUNDLE, what="a SPIFFE bundle", values=4096)
    if not isinstance(document, dict):
        raise Malformed("expected a SPIFFE bundle as a JSON object, got something else")
    keys = document.get("keys")
    if not isinstance(keys, list) or not all(isinstance(key, dict) for key in keys):
        raise Malformed("expected 'keys' as a list of objects in a SPIFFE bundle")
    if len(keys) > _MAX_KEYS:
        raise Oversized(f"expected at most {_MAX_KEYS} keys in a SPIFFE bundle, got {len(keys)}")
    # 2.
    sequence = document.get("spiffe_sequence")
    if type(sequence) is not int or not 0 <= sequence < 2**63:
        raise Malformed(
            f"expected 'spiffe_sequence' in the bundle of {domain}, got {str(sequence)[:40]!r}",
            hint="ask that domain to publish a sequence, so that an old bundle can be told from a new one",
        )
    # 3.
    roots = [_root(key) for key in keys if key.get("use") == X509_USE]
    if not 1 <= len(roots) <= MAX_ROOTS:
        raise Malformed(f"expected 1 to {MAX_ROOTS} X.509 authorities of {domain}, got {len(roots)}")
    return PublishedBundle(
        make_bundle(domain, roots, sequence=sequence), _refresh(document.get("spiffe_refresh_hint"))
    )


def _root(key: dict[str, object]) -> x509.Certificate:
    chain = key.get("x5c")
    if not isinstance(chain, list) or len(chain) != 1 or not isinstance(chain[0], str):
        raise Malformed("expected exactly one certificate in 'x5c' of an X.509 authority")
    try:
        certificate = x509.load_der_x509_certificate(base64.b64decode(chain[0], validate=True))
        public = certificate.public_key()
    except (binascii.Error, *PARSE_ERRORS):
        raise Malformed("expected a certificate in DER and base64 in 'x5c', got something else") from None
    numbers: dict[str, int]
    if isinstance(public, ec.EllipticCurvePublicKey):
        point, kind = public.public_numbers(), "EC"
        numbers = {"x": point.x, "y": point.y}
        size = _CURVES.get(str(key.get("crv")), 0)
        if size != (public.key_size + 7) // 8:
            raise Malformed("expected the curve of the certificate's key in a JWK, got another")
    elif isinstance(public, rsa.RSAPublicKey):
        modulus, kind = public.public_numbers(), "RSA"
        numbers = {"n": modulus.n, "e": modulus.e}
    else:
        raise Malformed("expected an authority with a key of EC or RSA, got another kind")
    if key.get("kty") != kind or any(_number(key.get(name)) != value for name, value in numbers.items()):
        raise Malformed("expected the certificate's own key in its JWK, got another key")
    return certificate


def _number(text: object) -> int:
    if not isinstance(text, str) or len(text) > 2048:
        raise Malformed("expected numbers of a JWK in base64url, got something else")
    try:
        return int.from_bytes(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True))
    except (binascii.Error, ValueError):
        raise Malformed("expected numbers of a JWK in base64url, got something else") from None


def _refresh(hint: object) -> timedelta:
    """What is hinted, within our bounds: nobody makes us ask all the time, or for ever not."""
    if type(hint) is not int or hint <= 0:
        return DEFAULT_REFRESH
    return max(MIN_REFRESH, min(timedelta(seconds=min(hint, 10**7)), MAX_REFRESH))
