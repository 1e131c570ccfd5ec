"""What a TPM's structures say, read strictly: public areas, signatures, and the template of our keys."""

from __future__ import annotations

from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from tpm2_pytss import (
    TPM2_ALG,
    TPM2_ECC,
    TPM2B_PUBLIC,
    TPMA_OBJECT,
    TPMT_SIG_SCHEME,
    TPMU_ASYM_SCHEME,
    TPMU_SIG_SCHEME,
)
from tpm2_pytss.types import (
    TPMS_ECC_PARMS,
    TPMS_SCHEME_HASH,
    TPMT_ECC_SCHEME,
    TPMT_KDF_SCHEME,
    TPMT_PUBLIC,
    TPMT_SYM_DEF_OBJECT,
    TPMU_PUBLIC_PARMS,
)

from fltrust.errors import Malformed, Refused

_NEVER_LEAVES = TPMA_OBJECT.FIXEDTPM | TPMA_OBJECT.FIXEDPARENT | TPMA_OBJECT.SENSITIVEDATAORIGIN
_SIGNING_KEY = TPMA_OBJECT.USERWITHAUTH | TPMA_OBJECT.SIGN_ENCRYPT | _NEVER_LEAVES


def signing_template() -> Any:
    """What our keys are: P-256, ECDSA with SHA-256, unable to leave the TPM."""
    return TPMT_PUBLIC(
        type=TPM2_ALG.ECC,
        nameAlg=TPM2_ALG.SHA256,
        objectAttributes=_SIGNING_KEY,
        authPolicy=b"",
        parameters=TPMU_PUBLIC_PARMS(
            eccDetail=TPMS_ECC_PARMS(
                symmetric=TPMT_SYM_DEF_OBJECT(algorithm=TPM2_ALG.NULL),
                scheme=TPMT_ECC_SCHEME(
                    scheme=TPM2_ALG.ECDSA,
                    details=TPMU_ASYM_SCHEME(ecdsa=TPMS_SCHEME_HASH(hashAlg=TPM2_ALG.SHA256)),
                ),
                curveID=TPM2_ECC.NIST_P256,
                kdf=TPMT_KDF_SCHEME(scheme=TPM2_ALG.NULL),
            )
        ),
    )


def public_key_of(public: Any) -> ec.EllipticCurvePublicKey:
    """The P-256 key of a TPM2B_PUBLIC, if it signs and cannot leave its TPM."""
    area = public.publicArea if isinstance(public, TPM2B_PUBLIC) else public
    if area.type != TPM2_ALG.ECC or area.parameters.eccDetail.curveID != TPM2_ECC.NIST_P256:
        raise Malformed("expected a P-256 key of a TPM, got another kind")
    attributes = int(area.objectAttributes)
    if attributes & int(_NEVER_LEAVES) != int(_NEVER_LEAVES):
        raise Refused("expected a key that cannot leave its TPM, got one that can", reason="key-extractable")
    if not attributes & int(TPMA_OBJECT.SIGN_ENCRYPT):
        raise Malformed("expected a TPM's key that may sign, got another")
    try:
        key = load_pem_public_key(area.to_pem())
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise Malformed("expected a P-256 key of a TPM, got another kind")
    return key


def ecdsa_signature(signature: Any) -> bytes:
    """A TPMT_SIGNATURE by ECDSA with SHA-256, in DER."""
    if signature.sigAlg != TPM2_ALG.ECDSA or signature.signature.ecdsa.hash != TPM2_ALG.SHA256:
        raise Malformed("expected an ECDSA signature with SHA-256 from a TPM, got another")
    parts = signature.signature.ecdsa
    return encode_dss_signature(
        int.from_bytes(bytes(parts.signatureR), "big"), int.from_bytes(bytes(parts.signatureS), "big")
    )


def ecdsa_scheme() -> Any:
    return TPMT_SIG_SCHEME(
        scheme=TPM2_ALG.ECDSA,
        details=TPMU_SIG_SCHEME(ecdsa=TPMS_SCHEME_HASH(hashAlg=TPM2_ALG.SHA256)),
    )
