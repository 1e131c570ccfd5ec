"""Sigstore's trusted root (``trusted_root.json``): the CAs, logs and timestamp authorities to verify with.

    {"mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
     "certificateAuthorities": [{"subject": …, "uri": …, "certChain": {"certificates": [{"rawBytes": DER}]},
                                 "validFor": {"start": …, "end": …}}],
     "ctlogs": [{"baseUrl": …, "hashAlgorithm": "SHA2_256", "logId": {"keyId": …},
                 "publicKey": {"rawBytes": SPKI, "keyDetails": …, "validFor": …}}],
     "tlogs": [the same], "timestampAuthorities": [as certificateAuthorities, the authority's own first]}

Old and new stand side by side, each with the window in which it is trusted, so that a rotation overlaps.

A log whose checkpoints are signed notes (Rekor v2, and ours) has as its id the whole SHA-256 of
``<name> LF 0x01 <key>`` of which a note's signature line shows four bytes (C2SP signed-note): clients look
for these four in the id. A Rekor v1 log, and a certificate log, is named by the SHA-256 of its key.
The name of the signer of a checkpoint must occur in `base_url`.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
)
from cryptography.x509.oid import NameOID

from fltrust import strictjson
from fltrust.errors import Malformed, Oversized
from fltrust.keys.verify import PublicKey, is_public_key
from fltrust.pki.leaf import PARSE_ERRORS
from fltrust.pki.types import TrustedChain
from fltrust.strictbase64 import to_base64

MEDIA_TYPE: Final = "application/vnd.dev.sigstore.trustedroot+json;version=0.1"
MEDIA_TYPES: Final = frozenset({MEDIA_TYPE, "application/vnd.dev.sigstore.trustedroot.v0.2+json"})
MAX_TRUSTED_ROOT: Final = 4 * 2**20
_MAX_ENTRIES = 256
_MAX_CHAIN = 8
_MAX_TEXT = 2048
_MAX_DER = 16 * 1024
_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
_T = TypeVar("_T")

_RSA_WORDS = frozenset(
    {
        "PKCS1_RSA_PKCS1V5",
        "PKIX_RSA_PKCS1V5",
        "PKIX_RSA_PKCS1V15_2048_SHA256",
        "PKIX_RSA_PKCS1V15_3072_SHA256",
        "PKIX_RSA_PKCS1V15_4096_SHA256",
    }
)
_CURVES: Mapping[str, type[ec.EllipticCurve]] = {
    "PKIX_ECDSA_P256_SHA_256": ec.SECP256R1,
    "PKIX_ECDSA_P384_SHA_384": ec.SECP384R1,
    "PKIX_ECDSA_P521_SHA_512": ec.SECP521R1,
}


@dataclass(frozen=True, slots=True)
class TransparencyLog:
    """A log that is trusted from `start` to `end`: of certificates, or of signatures."""

    base_url: str
    public_key: PublicKey
    log_id: bytes
    start: datetime
    end: datetime | None = None
    checkpoint_key_id: bytes | None = None
    """Where checkpoints name the key otherwise than `log_id` does."""

    def covers(self, at: datetime) -> bool:
        return self.start <= at and (self.end is None or at <= self.end)

    @property
    def note_key_id(self) -> bytes:
        """Four bytes: what a signature line of a checkpoint names this key by."""
        return (self.checkpoint_key_id or self.log_id)[:4]


@dataclass(frozen=True, slots=True)
class TrustedRoot:
    """Everything that a verifier of Sigstore bundles trusts."""

    certificate_authorities: tuple[TrustedChain, ...]
    ct_logs: tuple[TransparencyLog, ...]
    tlogs: tuple[TransparencyLog, ...]
    timestamp_authorities: tuple[TrustedChain, ...]


def parse_trusted_root(data: bytes) -> TrustedRoot:
    """Read a trusted root of version 0.1 or 0.2.

    Strict where it counts: `Oversized` above 4 MiB or 256 entries of a kind, `Malformed` for a key that
    stands twice, another version, a certificate, key or time that cannot be read. As protobuf's JSON is,
    it is tolerant of fields that are not known, of absent and null ones, and of either base64 alphabet.
    A log whose key or hash is of a kind not known here is left out: what it signed is then not trusted.
    """
    return trusted_root_from(strictjson.decode_any(data, limit=MAX_TRUSTED_ROOT, what="a trusted root"))


def trusted_root_from(value: object) -> TrustedRoot:
    """As `parse_trusted_root`, from JSON that was read before (of a trust file)."""
    root = _object(value, "a trusted root")
    media_type = root.get("mediaType")
    if not isinstance(media_type, str) or media_type not in MEDIA_TYPES:
        raise Malformed(f"expected a trusted root of type {MEDIA_TYPE!r}, got {str(media_type)[:80]!r}")
    found = TrustedRoot(
        certificate_authorities=_each(root, "certificateAuthorities", _read_chain),
        ct_logs=_known(_each(root, "ctlogs", _read_log)),
        tlogs=_known(_each(root, "tlogs", _read_log)),
        timestamp_authorities=_each(root, "timestampAuthorities", _read_chain),
    )
    if not found.certificate_authorities:
        raise Malformed("expected at least one certificate authority in a trusted root, found none")
    return found


def build_trusted_root(root: TrustedRoot) -> bytes:
    """Write a trusted root of version 0.1, in one byte form (`fltrust.strictjson`).

    What `parse_trusted_root` reads, and sigstore-python, sigstore-js and sigstore-go. The first of `tlogs`
    names the log that sigstore-python would ask.
    """
    return strictjson.encode(
        {
            "mediaType": MEDIA_TYPE,
            "certificateAuthorities": [_write_chain(ca) for ca in root.certificate_authorities],
            "ctlogs": [_write_log(log) for log in root.ct_logs],
            "tlogs": [_write_log(log) for log in root.tlogs],
            "timestampAuthorities": [_write_chain(tsa) for tsa in root.timestamp_authorities],
        }
    )


def _read_chain(entry: dict[str, object]) -> TrustedChain:
    chain = _object(entry.get("certChain"), "a certificate chain")
    certificates = _each(chain, "certificates", _read_certificate, limit=_MAX_CHAIN)
    if not certificates:
        raise Malformed("expected certificates in a chain of a trusted root, found none")
    start, end = _window(entry.get("validFor"))
    return TrustedChain(certificates, start, end)


def _read_certificate(entry: dict[str, object]) -> x509.Certificate:
    try:
        certificate = x509.load_der_x509_certificate(_bytes(entry, "rawBytes", limit=_MAX_DER))
        _ = certificate.extensions, certificate.public_key()  # read once here, so that none fails later
    except PARSE_ERRORS as error:
        raise Malformed(
            f"expected a certificate in DER, found {type(error).__name__} on reading it"
        ) from None
    return certificate


def _read_log(entry: dict[str, object]) -> TransparencyLog | None:
    key = _object(entry.get("publicKey"), "a log's public key")
    public_key = _public_key(_text(key, "keyDetails"), _bytes(key, "rawBytes", limit=_MAX_DER))
    if public_key is None or _text(entry, "hashAlgorithm") != "SHA2_256":
        return None
    start, end = _window(key.get("validFor"))
    return TransparencyLog(
        base_url=_text(entry, "baseUrl"),
        public_key=public_key,
        log_id=_log_id(entry.get("logId")),
        start=start,
        end=end,
        checkpoint_key_id=_log_id(entry["checkpointKeyId"]) if entry.get("checkpointKeyId") else None,
    )


def _public_key(details: str, der: bytes) -> PublicKey | None:
    """The key, if its kind is known here and it is what `details` say."""
    try:
        key = load_der_public_key(der)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        if details in _RSA_WORDS or details in _CURVES or details == "PKIX_ED25519":
            raise Malformed(f"expected a public key {details} in DER, found something else") from None
        return None
    is_stated = (
        (isinstance(key, ec.EllipticCurvePublicKey) and type(key.curve) is _CURVES.get(details))
        or (isinstance(key, rsa.RSAPublicKey) and details in _RSA_WORDS)
        or (isinstance(key, ed25519.Ed25519PublicKey) and details == "PKIX_ED25519")
    )
    return key if is_stated and is_public_key(key) else None


def _log_id(value: object) -> bytes:
    found = _bytes(_object(value, "a log id"), "keyId", limit=64)
    if len(found) < 4:
        raise Malformed(f"expected a log id of at least 4 bytes, got {len(found)}")
    return found


def _window(value: object) -> tuple[datetime, datetime | None]:
    if value is None:
        return _BEGINNING, None
    window = _object(value, "a validity")
    start, end = window.get("start"), window.get("end")
    return _BEGINNING if start is None else _time(start), None if end is None else _time(end)


def _time(value: object) -> datetime:
    if not isinstance(value, str) or len(value) > 40:
        raise Malformed("expected a time in RFC 3339, got something else")
    try:
        found = datetime.fromisoformat(value)
        if found.tzinfo is None:
            raise ValueError
        return found.astimezone(UTC)
    except (ValueError, OverflowError):
        raise Malformed(f"expected a time in RFC 3339 with its zone, got {value!r}") from None


def _each(
    parent: dict[str, object],
    name: str,
    read: Callable[[dict[str, object]], _T],
    *,
    limit: int = _MAX_ENTRIES,
) -> tuple[_T, ...]:
    items = parent.get(name)
    if items is None:
        return ()
    if not isinstance(items, list):
        raise Malformed(f"expected a list as {name!r}, got {type(items).__name__}")
    if len(items) > limit:
        raise Oversized(f"expected at most {limit} in {name!r}, got {len(items)}")
    return tuple(read(_object(item, name)) for item in items)


def _known(logs: Iterable[TransparencyLog | None]) -> tuple[TransparencyLog, ...]:
    return tuple(log for log in logs if log is not None)


def _object(value: object, what: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise Malformed(f"expected {what} as an object, got {type(value).__name__}")
    return value


def _text(parent: dict[str, object], name: str) -> str:
    value = parent.get(name, "")
    if not isinstance(value, str) or len(value) > _MAX_TEXT or not value.isascii():
        raise Malformed(f"expected {name!r} as ASCII text of at most {_MAX_TEXT} characters")
    return value


def _bytes(parent: dict[str, object], name: str, *, limit: int) -> bytes:
    text = parent.get(name)
    if not isinstance(text, str):
        raise Malformed(f"expected {name!r} in base64, got {type(text).__name__}")
    if len(text) > limit * 4 // 3 + 4:
        raise Oversized(f"expected {name!r} of at most {limit} bytes, got more")
    plain = text.translate({ord("-"): "+", ord("_"): "/"}).rstrip("=")
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise Malformed(f"expected {name!r} in base64, got something else") from None


def _write_chain(chain: TrustedChain) -> dict[str, object]:
    subject = chain.anchor.subject
    return {
        "subject": {
            "organization": _name(subject, NameOID.ORGANIZATION_NAME),
            "commonName": _name(subject, NameOID.COMMON_NAME),
        },
        "uri": "",
        "certChain": {
            "certificates": [
                {"rawBytes": to_base64(c.public_bytes(Encoding.DER))} for c in chain.certificates
            ]
        },
        "validFor": _write_window(chain.start, chain.end),
    }


def _write_log(log: TransparencyLog) -> dict[str, object]:
    spki = log.public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    written: dict[str, object] = {
        "baseUrl": log.base_url,
        "hashAlgorithm": "SHA2_256",
        "publicKey": {
            "rawBytes": to_base64(spki),
            "keyDetails": _details(log.public_key),
            "validFor": _write_window(log.start, log.end),
        },
        "logId": {"keyId": to_base64(log.log_id)},
    }
    if log.checkpoint_key_id is not None:
        written["checkpointKeyId"] = {"keyId": to_base64(log.checkpoint_key_id)}
    return written


def _details(key: PublicKey) -> str:
    if isinstance(key, ed25519.Ed25519PublicKey):
        return "PKIX_ED25519"
    if isinstance(key, rsa.RSAPublicKey):
        return f"PKIX_RSA_PKCS1V15_{key.key_size}_SHA256"
    return next(details for details, curve in _CURVES.items() if isinstance(key.curve, curve))


def _write_window(start: datetime, end: datetime | None) -> dict[str, object]:
    window: dict[str, object] = {"start": _rfc3339(start)}
    if end is not None:
        window["end"] = _rfc3339(end)
    return window


def _rfc3339(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="auto").replace("+00:00", "Z")


def _name(name: x509.Name, oid: x509.ObjectIdentifier) -> str:
    return next((str(a.value) for a in name.get_attributes_for_oid(oid)), "")
