"""What a site asks of its own TPM, to prove that a key is in it: endorsement, activation, a statement."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tpm2_pytss import (
    ESYS_TR,
    TPM2_ALG,
    TPM2_SE,
    TPM2B_DATA,
    TPM2B_ENCRYPTED_SECRET,
    TPM2B_ID_OBJECT,
    TPM2B_SENSITIVE_CREATE,
    TPMA_OBJECT,
    TPML_PCR_SELECTION,
    TSS2_Exception,
)
from tpm2_pytss.tsskey import TSSPrivKey
from tpm2_pytss.types import TPMT_SIG_SCHEME, TPMT_SYM_DEF
from tpm2_pytss.utils import NVReadEK, create_ek_template

from fltrust.errors import Malformed, NotFound
from fltrust.identity import KeyId
from fltrust.keys.tpm import Tpm, read_key_file, tpm_of
from fltrust.keys.tpm_shapes import signing_template
from fltrust.keys.tpm_uri import TpmUri

_KINDS = ("EK-RSA2048", "EK-ECC256")


@dataclass(frozen=True, slots=True)
class Proof:
    """The TPM's answer: the secret, and its statement about the key, in the TPM's own structures."""

    secret: bytes
    certified_key: bytes
    attestation: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Attester:
    """One TPM with a fresh attestation key; the key in `uri` is what statements are about."""

    uri: TpmUri
    kind: str
    certificate_der: bytes
    attestation_key: bytes
    """TPM2B_PUBLIC."""
    _stored: Any

    @classmethod
    def of(cls, uri: TpmUri) -> Attester:
        """Read the TPM's endorsement certificate and make an attestation key; `NotFound` without either."""
        return tpm_of(uri.tcti).run(lambda tpm: cls._made(tpm, uri))

    @classmethod
    def _made(cls, tpm: Tpm, uri: TpmUri) -> Attester:
        kind, certificate = _endorsement(tpm)
        stored = TSSPrivKey.create(tpm.context, _attestation_template())
        return cls(uri, kind, certificate, bytes(stored.public.marshal()), stored)

    def prove(self, *, credential: bytes, secret: bytes, qualifying: bytes) -> Proof:
        """Read the secret (TPM2_ActivateCredential) and certify the key (TPM2_Certify) over `qualifying`."""
        return tpm_of(self.uri.tcti).run(lambda tpm: self._proof(tpm, credential, secret, qualifying))

    def _proof(self, tpm: Tpm, credential: bytes, secret: bytes, qualifying: bytes) -> Proof:
        tpm.forget()  # room for three objects, and no more
        context = tpm.context
        ak = self._stored.load(context, None)
        with ak:
            known = self._activate(context, ak, credential, secret)
            with read_key_file(self.uri).load(context, self.uri.password()) as key:
                public = context.read_public(key)[0]
                attest, signature = context.certify(
                    key, ak, qualifying, TPMT_SIG_SCHEME(scheme=TPM2_ALG.NULL)
                )
        return Proof(known, bytes(public.marshal()), bytes(attest), bytes(signature.marshal()))

    def _activate(self, context: Any, ak: Any, credential: bytes, secret: bytes) -> bytes:
        _, template = create_ek_template(self.kind, NVReadEK(context))
        ek = context.create_primary(
            TPM2B_SENSITIVE_CREATE(),
            template,
            ESYS_TR.ENDORSEMENT,
            TPM2B_DATA(),
            TPML_PCR_SELECTION(),
        )[0]
        with ek:
            session = context.start_auth_session(
                ESYS_TR.NONE,
                ESYS_TR.NONE,
                TPM2_SE.POLICY,
                TPMT_SYM_DEF(algorithm=TPM2_ALG.NULL),
                TPM2_ALG.SHA256,
            )
            try:
                # The endorsement key's own policy: whoever may use the endorsement hierarchy.
                context.policy_secret(ESYS_TR.ENDORSEMENT, session, b"", b"", b"", 0)
                known = context.activate_credential(
                    ak,
                    ek,
                    TPM2B_ID_OBJECT.unmarshal(credential)[0],
                    TPM2B_ENCRYPTED_SECRET.unmarshal(secret)[0],
                    session2=session,
                )
            finally:
                with suppress(TSS2_Exception):
                    context.flush_context(session)
        return bytes(known)


def endorsement_of(tcti: str | None = None) -> KeyId:
    """SHA-256 of the endorsement key in the certificate that lies in the TPM."""
    der = tpm_of(tcti).run(lambda tpm: _endorsement(tpm)[1])
    try:
        key = x509.load_der_x509_certificate(der).public_key()
    except ValueError:
        raise Malformed("expected an endorsement certificate in the TPM, found something else") from None
    return KeyId.of_spki(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def _endorsement(tpm: Tpm) -> tuple[str, bytes]:
    """The kind of the endorsement key that has a certificate in the TPM, and that."""
    for kind in _KINDS:
        with suppress(TSS2_Exception, ValueError):
            certificate, _ = create_ek_template(kind, NVReadEK(tpm.context))
            if certificate:
                return kind, _one_certificate(certificate)
    raise NotFound(
        "expected an endorsement certificate in the TPM, found none",
        reason="tpm-endorsement",
        hint="some makers serve it over their website: not supported",
    )


def _attestation_template() -> Any:
    template = signing_template()
    template.objectAttributes |= TPMA_OBJECT.RESTRICTED | TPMA_OBJECT.NODA
    return template


def _one_certificate(data: bytes) -> bytes:
    """The certificate at the start of an NV area, which may be larger than it."""
    size = 4 + int.from_bytes(data[2:4], "big") if data[:2] == b"\x30\x82" else len(data)
    return bytes(data[:size])
