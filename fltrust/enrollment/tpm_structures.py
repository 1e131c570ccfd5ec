"""A TPM's own structures, on the verifier's side: read by the TSS's library, believed only as far as checked.

The one module of this room that needs the extra ``tpm``; it needs no TPM.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from tpm2_pytss import (
    TPM2_ALG,
    TPM2_ST,
    TPM2B_PUBLIC,
    TPMA_OBJECT,
    TPMS_ATTEST,
    TPMT_SIGNATURE,
    TSS2_Exception,
)
from tpm2_pytss.utils import NoSuchIndex, create_ek_template
from tpm2_pytss.utils import make_credential as encrypt_credential

from fltrust.errors import EvidenceRefused, FltrustError, SignatureInvalid
from fltrust.keys.tpm_shapes import ecdsa_signature, public_key_of
from fltrust.keys.verify import verify_signature

_GENERATED = 0xFF544347
"""TPM_GENERATED_VALUE: what only a TPM puts before what it states, and no restricted key signs otherwise."""


@dataclass(frozen=True, slots=True)
class AttestationKey:
    """A restricted signing key; `name` is the TPM's digest of its public area."""

    public_key: ec.EllipticCurvePublicKey
    name: bytes


def read_attestation_key(data: bytes) -> AttestationKey:
    """Read a TPM2B_PUBLIC; refused (``tpm-attestation-key``) unless it is a restricted P-256 signing key."""
    public = _unmarshalled(TPM2B_PUBLIC, data, "tpm-attestation-key")
    attributes = int(public.publicArea.objectAttributes)
    wanted = int(TPMA_OBJECT.RESTRICTED | TPMA_OBJECT.SIGN_ENCRYPT)
    try:
        key = public_key_of(public)
    except FltrustError as error:
        raise EvidenceRefused(error.message, reason="tpm-attestation-key") from None
    if attributes & wanted != wanted or attributes & int(TPMA_OBJECT.DECRYPT):
        raise EvidenceRefused(
            "expected a restricted attestation key: another would sign a statement that no TPM made",
            reason="tpm-attestation-key",
        )
    return AttestationKey(key, _name_of(public, "tpm-attestation-key"))


def make_credential(
    endorsement: rsa.RSAPublicKey | ec.EllipticCurvePublicKey, secret: bytes, name: bytes
) -> tuple[bytes, bytes]:
    """Encrypt `secret` to the TPM that has the endorsement key and, loaded, the key of this name.

    Gives a TPM2B_ID_OBJECT and a TPM2B_ENCRYPTED_SECRET. The endorsement key is the certificate's: what the
    site says of it plays no part.
    """
    kind = "EK-RSA2048" if isinstance(endorsement, rsa.RSAPublicKey) else "EK-ECC256"
    _, template = create_ek_template(kind, _no_index)
    area = template.publicArea
    numbers = endorsement.public_numbers()
    if isinstance(numbers, rsa.RSAPublicNumbers):
        area.unique.rsa.buffer = numbers.n.to_bytes(256, "big")
    else:
        area.unique.ecc.x.buffer = numbers.x.to_bytes(32, "big")
        area.unique.ecc.y.buffer = numbers.y.to_bytes(32, "big")
    blob, encrypted = encrypt_credential(template, secret, name)
    return bytes(blob.marshal()), bytes(encrypted.marshal())


def verify_certify(
    *, attestation: bytes, signature: bytes, by: AttestationKey, certified_key: bytes, qualifying: bytes
) -> ec.EllipticCurvePublicKey:
    """Verify a TPM's statement about one of its keys and return that key; else ``tpm-attestation``.

    1. It is signed by the attestation key, before anything in it is read.
    2. A TPM made it, it is of kind "certify", and carries `qualifying`.
    3. It names the key that is shown, which cannot leave its TPM and may sign.
    """
    # 1.
    try:
        signed = ecdsa_signature(_unmarshalled(TPMT_SIGNATURE, signature, "tpm-attestation"))
        verify_signature(by.public_key, signed, attestation)
    except SignatureInvalid:
        raise _refused("expected a statement signed by the attestation key, it is not") from None
    # 2.
    stated = _unmarshalled(TPMS_ATTEST, attestation, "tpm-attestation")
    if int(stated.magic) != _GENERATED or stated.type != TPM2_ST.ATTEST_CERTIFY:
        raise _refused("expected a TPM's statement about a key, got another")
    if not hmac.compare_digest(bytes(stated.extraData), qualifying):
        raise _refused("expected a statement about this request, it is about another")
    # 3.
    public = _unmarshalled(TPM2B_PUBLIC, certified_key, "tpm-attestation")
    if public.publicArea.nameAlg != TPM2_ALG.SHA256 or not hmac.compare_digest(
        bytes(stated.attested.certify.name), _name_of(public, "tpm-attestation")
    ):
        raise _refused("expected a statement about the key that is shown, it is about another")
    try:
        return public_key_of(public)
    except FltrustError as error:
        raise _refused(error.message) from None


def _unmarshalled(kind: Any, data: bytes, reason: str) -> Any:
    try:
        value, used = kind.unmarshal(data)
    except (TSS2_Exception, ValueError, TypeError, OverflowError):
        used, value = -1, None
    if value is None or used != len(data) or bytes(value.marshal()) != data:
        raise EvidenceRefused(f"expected a {kind.__name__} and nothing after it, got another", reason=reason)
    return value


def _name_of(public: Any, reason: str) -> bytes:
    """The TPM's digest of a public area."""
    try:
        return bytes(public.get_name())
    except (ValueError, TypeError, TSS2_Exception):
        raise EvidenceRefused(
            "expected a TPM's key with a name by SHA-256, got another", reason=reason
        ) from None


def _no_index(index: object) -> bytes:
    raise NoSuchIndex(index)


def _refused(message: str) -> EvidenceRefused:
    return EvidenceRefused(message, reason="tpm-attestation")
