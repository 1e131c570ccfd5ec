"""Trust anchors replaced by a message that the old anchors sign: nobody has to be told by another way.

The statement (`AnchorUpdate`) is canonical JSON of the type ``urn:fltrust:trust-anchors:v1``: the whole new
set, its sequence, and the digest of the set that it replaces, so that updates form one chain. It travels in a
DSSE envelope with several signatures, of a payload type of its own.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar, Final, Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from fltrust import strictjson
from fltrust.clock import to_rfc3339
from fltrust.errors import (
    CertificateRefused,
    Conflict,
    Malformed,
    QuorumNotMet,
    Refusal,
    SignatureInvalid,
    StatementRefused,
)
from fltrust.identity import Digest, KeyId, TrustDomain
from fltrust.keys.openssh import spki_der
from fltrust.keys.signer import Signer
from fltrust.keys.verify import is_p256, verify_signature
from fltrust.pki.bundle import MAX_ROOTS, make_bundle
from fltrust.pki.issuing import domain_of_ca
from fltrust.pki.leaf import PARSE_ERRORS
from fltrust.pki.types import TrustBundle
from fltrust.pki.verify import MAX_CERTIFICATE
from fltrust.strictbase64 import from_base64, to_base64
from fltrust.updates.dsse import pae

PAYLOAD_TYPE: Final = "application/vnd.fltrust.trust-anchors+json"
MAX_UPDATE: Final = 512 * 1024
"""Bytes of a signed update."""
MAX_UPDATES: Final = 256
"""Updates applied in one go."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnchorUpdate:
    """The new anchors of a trust domain, and which set they replace."""

    TYPE: ClassVar[str] = "urn:fltrust:trust-anchors:v1"
    bundle: TrustBundle
    previous: Digest
    """`anchors_digest` of the set that it replaces."""
    issued_at: datetime

    def to_payload(self) -> bytes:
        return strictjson.encode(
            {
                "type": self.TYPE,
                "trustDomain": str(self.bundle.domain),
                "sequence": str(self.bundle.sequence),
                "previous": str(self.previous),
                "issuedAt": to_rfc3339(self.issued_at),
                "roots": [to_base64(root.public_bytes(Encoding.DER)) for root in self.bundle.roots],
            }
        )

    @classmethod
    def from_payload(cls, data: bytes) -> Self:
        """Read what `to_payload` writes, and nothing else: `Oversized`, else `Malformed`."""
        what = "an update of trust anchors"
        fields = strictjson.Fields(strictjson.decode(data, limit=MAX_UPDATE, what=what), what)
        if fields.text("type", limit=64) != cls.TYPE:
            raise StatementRefused(
                f"expected an update of the type {cls.TYPE}, got another", reason=Refusal.UNKNOWN_TYPE
            )
        domain, previous = fields.domain("trustDomain"), fields.digest("previous")
        sequence, issued_at = fields.decimal("sequence", bits=63), fields.time("issuedAt")
        texts = fields.texts("roots", limit=MAX_ROOTS, each=2 * MAX_CERTIFICATE)
        fields.done()
        roots = [_root(from_base64(text, "a root")) for text in texts]
        return cls(
            bundle=make_bundle(domain, roots, sequence=sequence), previous=previous, issued_at=issued_at
        )


def anchors_digest(bundle: TrustBundle) -> Digest:
    """What an update names the set by that it replaces: domain, sequence, and the roots in their order."""
    return Digest.sha256_of(
        strictjson.encode(
            {
                "trustDomain": str(bundle.domain),
                "sequence": str(bundle.sequence),
                "roots": [str(Digest.sha256_of(root.public_bytes(Encoding.DER))) for root in bundle.roots],
            }
        )
    )


def sign_update(update: AnchorUpdate, *, signers: Sequence[Signer]) -> bytes:
    """Sign an update with keys of old anchors, and of every new one; `apply_update` says what is enough."""
    payload = update.to_payload()
    signed = pae(PAYLOAD_TYPE, payload)
    return _envelope(payload, {signer.key_id: signer.sign(signed) for signer in signers})


def read_update(signed: bytes) -> AnchorUpdate:
    """What a signed update says, to be shown to whoever is asked to sign it. Nothing of it is verified."""
    return AnchorUpdate.from_payload(_read_envelope(signed)[0])


def add_signature(signed: bytes, *, signer: Signer) -> bytes:
    """Give the same update with one more signature: keys of anchors need not be in one place."""
    payload, signatures = _read_envelope(signed)
    if signer.key_id in signatures:
        raise Conflict("expected a key that has not signed this update yet, got one that has")
    return _envelope(payload, {**signatures, signer.key_id: signer.sign(pae(PAYLOAD_TYPE, payload))})


def apply_update(
    bundle: TrustBundle, signed: bytes, *, at: datetime, needed: int | None = None
) -> TrustBundle:
    """Return the anchors that a signed update puts in the place of `bundle`'s, or raise.

    1. It is no larger than `MAX_UPDATE`, and an envelope of our payload type with signatures of different
       keys.
    2. Of the old anchors that are valid at `at`, `needed` signed it (more than half of all old ones, unless
       told otherwise), else `QuorumNotMet`. A signature by a key that is neither old nor new, or that does
       not hold, refuses all of it: `SignatureInvalid`.
    3. Only now is the statement read. It is of the same trust domain and names exactly this set as the one
       that it replaces, and the next sequence, else `Conflict`; it was not issued after `at`.
    4. Every new anchor is a P-256 root of the domain that signed itself, and its key signed the update, too;
       one at least is valid at `at`.
    """
    # 1.
    payload, signatures = _read_envelope(signed)
    # 2.
    old = _keys(bundle.roots)
    data = pae(PAYLOAD_TYPE, payload)
    good = set()
    for key_id, signature in signatures.items():
        if key_id in old:
            verify_signature(old[key_id][0], signature, data)
            good.add(key_id)
    fresh = {key_id for key_id in good if any(_is_valid(root, at) for root in old[key_id][1])}
    wanted = len(old) // 2 + 1 if needed is None else needed
    if wanted < 1 or len(fresh) < wanted:
        raise QuorumNotMet(
            f"expected {max(wanted, 1)} of the {len(old)} trust anchors of {bundle.domain} to sign their "
            f"update, {len(fresh)} did",
            hint="gather more signatures, or start anew with a join token",
        )
    # 3.
    update = AnchorUpdate.from_payload(payload)
    if update.bundle.domain != bundle.domain:
        raise Conflict(f"expected an update of {bundle.domain}, got one of {update.bundle.domain}")
    if update.bundle.sequence != bundle.sequence + 1 or not hmac.compare_digest(
        update.previous.value, anchors_digest(bundle).value
    ):
        raise Conflict(
            f"expected the update of exactly the anchors {bundle.sequence} of {bundle.domain}, got one that "
            f"makes {update.bundle.sequence}",
            reason="anchor-sequence",
            hint="updates are applied in order, each once",
        )
    if update.issued_at > at:
        raise StatementRefused(
            f"expected an update issued by {to_rfc3339(at)}, got one of {to_rfc3339(update.issued_at)}",
            reason=Refusal.EXPIRED,
        )
    # 4.
    new = _keys(update.bundle.roots)
    for key_id, signature in signatures.items():
        if key_id not in old and key_id not in new:
            raise SignatureInvalid(
                "expected signatures of old and new trust anchors alone, got another key's"
            )
        if key_id in new:
            verify_signature(new[key_id][0], signature, data)
    for root in update.bundle.roots:
        _check_root(root, bundle.domain)
    if missing := set(new) - set(signatures) - set(old):
        raise QuorumNotMet(
            f"expected every new trust anchor to sign the update that brings it in, {len(missing)} did not"
        )
    if not any(_is_valid(root, at) for root in update.bundle.roots):
        raise CertificateRefused(
            f"expected an update with a trust anchor of {bundle.domain} that is valid, got none",
            reason=Refusal.CERTIFICATE_EXPIRED,
        )
    return update.bundle


def apply_updates(
    bundle: TrustBundle, updates: Sequence[bytes], *, at: datetime, needed: int | None = None
) -> TrustBundle:
    """Apply every update that follows `bundle`, in order; those that it has already are passed over.

    Raises as `apply_update` on the first that does not hold; nothing of what follows it counts.
    """
    if len(updates) > MAX_UPDATES:
        raise Malformed(f"expected at most {MAX_UPDATES} updates of trust anchors, got {len(updates)}")
    for signed in updates:
        if _sequence_of(signed) > bundle.sequence:
            bundle = apply_update(bundle, signed, at=at, needed=needed)
    return bundle


def _read_envelope(signed: bytes) -> tuple[bytes, dict[KeyId, bytes]]:
    what = "a signed update of trust anchors"
    fields = strictjson.Fields(strictjson.decode(signed, limit=MAX_UPDATE, what=what), what)
    if fields.text("payloadType", limit=128) != PAYLOAD_TYPE:
        raise StatementRefused(
            f"expected an envelope of {PAYLOAD_TYPE!r}, got another", reason=Refusal.UNKNOWN_TYPE
        )
    payload = from_base64(fields.text("payload", limit=MAX_UPDATE), "the payload")
    signatures: dict[KeyId, bytes] = {}
    for entry in fields.objects("signatures", limit=2 * MAX_ROOTS):
        key_id = entry.key_id("keyid")
        if key_id in signatures:
            raise Malformed("expected one signature of each key, got two")
        signatures[key_id] = from_base64(entry.text("sig", limit=128), "a signature")
        entry.done()
    fields.done()
    return payload, signatures


def _sequence_of(signed: bytes) -> int:
    """Which set an update claims to make: only for passing over what is older; nothing is verified."""
    what = "an update of trust anchors"
    payload, _ = _read_envelope(signed)
    return strictjson.Fields(strictjson.decode(payload, limit=MAX_UPDATE, what=what), what).decimal(
        "sequence", bits=63
    )


def _envelope(payload: bytes, signatures: Mapping[KeyId, bytes]) -> bytes:
    return strictjson.encode(
        {
            "payload": to_base64(payload),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"keyid": str(key), "sig": to_base64(sig)} for key, sig in signatures.items()],
        }
    )


def _keys(
    roots: Sequence[x509.Certificate],
) -> dict[KeyId, tuple[ec.EllipticCurvePublicKey, list[x509.Certificate]]]:
    """The keys of anchors, with their certificates: one key counts once, however many it has."""
    found: dict[KeyId, tuple[ec.EllipticCurvePublicKey, list[x509.Certificate]]] = {}
    for root in roots:
        key = root.public_key()
        if is_p256(key):
            found.setdefault(KeyId.of_spki(spki_der(key)), (key, []))[1].append(root)
    return found


def _check_root(root: x509.Certificate, domain: TrustDomain) -> None:
    try:
        root.verify_directly_issued_by(root)
        is_ours = is_p256(root.public_key()) and domain_of_ca(root) == domain
    except (InvalidSignature, *PARSE_ERRORS):
        is_ours = False
    if not is_ours:
        raise CertificateRefused(
            f"expected P-256 roots of {domain} that signed themselves, got another",
            reason=Refusal.CERTIFICATE_PROFILE,
        )


def _is_valid(root: x509.Certificate, at: datetime) -> bool:
    return root.not_valid_before_utc <= at <= root.not_valid_after_utc


def _root(der: bytes) -> x509.Certificate:
    if len(der) > MAX_CERTIFICATE:
        raise Malformed(f"expected a root of at most {MAX_CERTIFICATE} bytes, got {len(der)}")
    try:
        return x509.load_der_x509_certificate(der)
    except PARSE_ERRORS:
        raise Malformed("expected a root in DER, got something else") from None
