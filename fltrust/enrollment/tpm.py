"""Evidence of a TPM 2.0: the certificate's key was made in a genuine TPM that the operator knows, and stays.

Two messages, as the TCG's "TPM 2.0 Keys for Device Identity and Attestation" has them:

1. The site shows its endorsement certificate and the public half of an attestation key. It is given a secret
   that only the TPM with both can read (TPM2_MakeCredential, TPM2_ActivateCredential).
2. The site shows the secret, and a statement by the attestation key (TPM2_Certify) about the key in its
   certificate request, over a digest of that request.

What the coordinator has to remember in between it seals into the ticket that the site brings back.
"""

from __future__ import annotations

import hmac
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256

from cryptography import x509
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from fltrust import strictjson
from fltrust.enrollment.ek import MAX_EK_CHAIN, verify_endorsement
from fltrust.enrollment.ports import TokenStore
from fltrust.enrollment.types import Approval, EnrollRequest, Evidence
from fltrust.errors import EvidenceRefused, Malformed, Oversized
from fltrust.identity import KeyId, Name, Role, SpiffeId
from fltrust.pki.csr import parse_csr

KIND = "tpm"
TICKET_LIFE = timedelta(minutes=5)
SECRET_BYTES = 32
MAX_STRUCTURE = 2_048
"""Bytes of one structure of a TPM's."""

MAX_TICKET = 1_024


@dataclass(frozen=True, slots=True)
class TpmIntroduction:
    """The first message: the endorsement certificate's chain, and an attestation key's TPM2B_PUBLIC."""

    chain: tuple[bytes, ...]
    attestation_key: bytes

    def __post_init__(self) -> None:
        if not 1 <= len(self.chain) <= MAX_EK_CHAIN:
            raise Malformed(f"expected 1 to {MAX_EK_CHAIN} certificates of a TPM's maker")
        _bound(self.attestation_key)


@dataclass(frozen=True, slots=True)
class TpmChallenge:
    """The answer to it: TPM2B_ID_OBJECT, TPM2B_ENCRYPTED_SECRET, and a ticket to bring back."""

    credential: bytes
    secret: bytes
    ticket: bytes


@dataclass(frozen=True, slots=True)
class TpmEvidence:
    """The second message. `attestation` is a TPM2B_ATTEST's content, `signature` a TPMT_SIGNATURE."""

    ticket: bytes
    secret: bytes
    attestation_key: bytes
    certified_key: bytes
    attestation: bytes
    signature: bytes

    def __post_init__(self) -> None:
        if len(self.secret) != SECRET_BYTES or not 0 < len(self.ticket) <= MAX_TICKET:
            raise Malformed("expected a TPM's answer with its secret and ticket, got another form")
        for structure in (self.attestation_key, self.certified_key, self.attestation, self.signature):
            _bound(structure)

    def binding(self) -> bytes:
        return b"tpm\x00" + sha256(self.ticket).digest() + self.secret

    def __repr__(self) -> str:
        return "TpmEvidence(secret=…)"


@dataclass(frozen=True, slots=True)
class VerifiedTpm:
    """What the checks before the transaction leave: whose TPM it is."""

    endorsement: KeyId
    bound: bytes

    def binding(self) -> bytes:
        return self.bound


@dataclass(frozen=True, slots=True)
class TpmDevice:
    """A TPM that the operator knows, by SHA-256 of its endorsement key, and what it earns."""

    endorsement: KeyId
    role: Role
    name: Name
    granted_by: SpiffeId | None = None


def qualifying_data(csr_der: bytes, ticket: bytes) -> bytes:
    """What the attestation key's statement must carry: it is about this request, and this challenge."""
    parts = b"fltrust-tpm-v1\x00", sha256(csr_der).digest(), sha256(ticket).digest()
    return sha256(b"".join(parts)).digest()


class TpmChecker:
    """Judges evidence of TPMs. `roots` are the manufacturers that the operator trusts. For many threads."""

    kind = KIND

    def __init__(
        self,
        *,
        roots: Sequence[x509.Certificate],
        devices: Sequence[TpmDevice],
        ticket_key: bytes | None = None,
    ) -> None:
        self._roots = tuple(roots)
        self._devices: Mapping[KeyId, TpmDevice] = {device.endorsement: device for device in devices}
        if len(self._devices) != len(devices):
            raise Malformed("expected each TPM once among the devices, got one twice")
        self._seal = AESGCM(ticket_key or AESGCM.generate_key(256))

    def challenge(self, introduction: TpmIntroduction, *, now: datetime) -> TpmChallenge:
        """Answer the first message.

        1. The endorsement certificate leads to a manufacturer that is trusted (`verify_endorsement`).
        2. Its TPM is one of the operator's devices, else `EvidenceRefused` (``tpm-unknown``).
        3. The attestation key is restricted: it signs nothing that its TPM did not make, else
           ``tpm-attestation-key``.
        4. A secret is encrypted to the TPM that has both keys, and sealed into the ticket.
        """
        from fltrust.enrollment import tpm_structures as structures

        # 1.
        endorsement = verify_endorsement(introduction.chain, roots=self._roots, at=now)
        # 2.
        self._device(endorsement.key_id)
        # 3.
        attestation_key = structures.read_attestation_key(introduction.attestation_key)
        # 4.
        secret = secrets.token_bytes(SECRET_BYTES)
        credential, encrypted = structures.make_credential(
            endorsement.public_key, secret, attestation_key.name
        )
        content = strictjson.encode(
            {
                "endorsement": endorsement.key_id,
                "attestationKey": attestation_key.name.hex(),
                "secret": secret.hex(),
                "until": str(int((now + TICKET_LIFE).timestamp())),
            }
        )
        nonce = os.urandom(12)
        return TpmChallenge(credential, encrypted, nonce + self._seal.encrypt(nonce, content, _TICKET))

    def accepts(self, evidence: Evidence) -> bool:
        return isinstance(evidence, TpmEvidence | VerifiedTpm)

    def examine(self, request: EnrollRequest, *, now: datetime) -> Evidence:
        """Verify the second message, for `approve`.

        1. The ticket is ours and young, else ``tpm-ticket``.
        2. The secret is the one that its TPM alone could read, else ``tpm-secret``.
        3. The attestation key is the one of the first message, else ``tpm-attestation-key``.
        4. The statement is signed by it, made by the TPM, of kind "certify", and carries a digest of this
           request and this ticket, else ``tpm-attestation``.
        5. It is about the key that is shown, which was made in the TPM, cannot leave it, and signs, and that
           is the key of the certificate request, else ``tpm-attestation``.
        """
        from fltrust.enrollment import tpm_structures as structures

        evidence = request.evidence
        if not isinstance(evidence, TpmEvidence):
            raise Malformed("expected the evidence of a TPM")
        # 1.
        ticket = self._open(evidence.ticket, now)
        # 2.
        if not hmac.compare_digest(ticket.secret, evidence.secret):
            raise EvidenceRefused("expected the secret that was given to this TPM", reason="tpm-secret")
        # 3.
        attestation_key = structures.read_attestation_key(evidence.attestation_key)
        if not hmac.compare_digest(attestation_key.name, ticket.attestation_key):
            raise EvidenceRefused(
                "expected the attestation key that was challenged, got another", reason="tpm-attestation-key"
            )
        # 4. and 5.
        certified = structures.verify_certify(
            attestation=evidence.attestation,
            signature=evidence.signature,
            by=attestation_key,
            certified_key=evidence.certified_key,
            qualifying=qualifying_data(request.csr_der, evidence.ticket),
        )
        if certified != parse_csr(request.csr_der):
            raise EvidenceRefused(
                "expected a statement about the key of this certificate request, it is about another",
                reason="tpm-attestation",
            )
        return VerifiedTpm(ticket.endorsement, evidence.binding())

    def approve(self, evidence: Evidence, *, tokens: TokenStore, now: datetime) -> Approval:
        """What the operator's list says of this TPM. `tokens` and `now` decide nothing: the request's key is
        certified once, and so the evidence, which is bound to it, serves once."""
        del tokens, now
        if not isinstance(evidence, VerifiedTpm):
            raise Malformed("expected evidence of a TPM that was examined")
        device = self._device(evidence.endorsement)
        return Approval(
            device.role,
            device.name,
            replace=False,
            granted_by=device.granted_by,
            claims={"endorsement": evidence.endorsement},
        )

    def _device(self, endorsement: KeyId) -> TpmDevice:
        device = self._devices.get(endorsement)
        if device is None:
            raise EvidenceRefused(
                f"expected a TPM that the operator knows, got {endorsement}",
                reason="tpm-unknown",
                hint="the operator adds it to [[evidence.tpm.devices]] in coordinator.toml",
            )
        return device

    def _open(self, sealed: bytes, now: datetime) -> _Ticket:
        try:
            content = self._seal.decrypt(sealed[:12], sealed[12:], _TICKET)
        except (InvalidTag, ValueError):
            raise EvidenceRefused("expected a ticket of this coordinator's", reason="tpm-ticket") from None
        fields = strictjson.Fields(strictjson.decode(content, limit=MAX_TICKET, what="a ticket"), "a ticket")
        ticket = _Ticket(
            fields.key_id("endorsement"),
            bytes.fromhex(fields.text("attestationKey", limit=256)),
            bytes.fromhex(fields.text("secret", limit=128)),
        )
        if now.timestamp() > fields.decimal("until", bits=63):
            raise EvidenceRefused(
                "expected a ticket that is in force, it expired", reason="tpm-ticket", hint="join again"
            )
        return ticket


@dataclass(frozen=True, slots=True)
class _Ticket:
    endorsement: KeyId
    attestation_key: bytes
    secret: bytes


_TICKET = b"fltrust-tpm-ticket-v1"


def _bound(structure: bytes) -> None:
    if not 0 < len(structure) <= MAX_STRUCTURE:
        raise Oversized(f"expected a TPM's structure of 1 to {MAX_STRUCTURE} bytes, got {len(structure)}")
