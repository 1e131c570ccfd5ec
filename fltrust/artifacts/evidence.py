"""What makes a signature verifiable for good, checked: certificate, its log, time, and the log entry."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Self

from cryptography import x509

from fltrust.artifacts.bundle import SigstoreBundle, TlogEntry
from fltrust.artifacts.rekor import check_body, promise_payload
from fltrust.artifacts.signers import SignerCertificate, read_signer, require_path
from fltrust.artifacts.trustfile import TrustFile
from fltrust.artifacts.trustroot import TransparencyLog, TrustedRoot, trusted_root_from
from fltrust.clock import to_rfc3339
from fltrust.errors import (
    CertificateRefused,
    EvidenceInvalid,
    EvidenceMissing,
    Malformed,
    PolicyNotMet,
    SignatureInvalid,
    UntrustedSigner,
)
from fltrust.identity import Digest
from fltrust.keys.verify import verify_with
from fltrust.pki.leaf import PARSE_ERRORS
from fltrust.pki.sct import verify_embedded_sct
from fltrust.pki.timestamps import verify_timestamp
from fltrust.tlog.checkpoint import Checkpoint, verify_cosignatures
from fltrust.tlog.merkle import leaf_hash, verify_inclusion
from fltrust.tlog.note import Note, VerifierKey, parse_note


@dataclass(frozen=True, slots=True)
class Trust:
    """A trust file whose keys and certificates were read: what bundles are verified against."""

    file: TrustFile
    root: TrustedRoot

    @classmethod
    def of(cls, file: TrustFile) -> Self:
        """Read the trusted root once; `Malformed` where it cannot be read."""
        return cls(file, trusted_root_from(file.trusted_root))


@dataclass(frozen=True, slots=True)
class VerifiedStatement:
    """An in-toto statement whose signature and evidence hold. Who may say it is judged after this.

    `signer` and `issuer` are as in the certificate: a SPIFFE ID and ``spiffe://<domain>`` of ours, an
    e-mail address or URI and an OIDC issuer of Sigstore's. `signed_at` is the earliest verified time.
    """

    payload: bytes
    signer: str
    issuer: str | None
    signed_at: datetime
    certificate: Digest
    log_index: int | None = None
    log_id: bytes | None = None
    witnesses: frozenset[str] = frozenset()

    @property
    def payload_digest(self) -> Digest:
        return Digest.sha256_of(self.payload)


def verify_bundle(
    data: bytes,
    *,
    trust: Trust,
    require_log: bool = True,
    require_timestamp: bool = False,
    witnesses: Sequence[str] = (),
    min_witnesses: int = 0,
) -> VerifiedStatement:
    """Return the statement in a Sigstore bundle, or raise why its evidence does not hold.

    Steps 3 to 8 of `fltrust.artifacts.recipe`; offline, and without memory. A refusal says that the
    bundle is `Malformed` or `Oversized` (3), `SignatureInvalid` (4), `EvidenceMissing` (5, 8),
    `EvidenceInvalid` (5 to 8), or by an `UntrustedSigner` (6).
    """
    # 3.
    bundle = SigstoreBundle.parse(data)
    if len(bundle.entries) > 1:
        raise Malformed(
            f"expected at most one log entry in the bundle, got {len(bundle.entries)}", reason="entry-count"
        )
    entry = bundle.entries[0] if bundle.entries else None
    # 4.
    signer = read_signer(bundle.certificate)
    bundle.envelope.verify(signer.public_key)
    # 5.
    log = None if entry is None else _log_of(entry, trust.root)
    times = [
        verify_timestamp(
            item, message=bundle.envelope.signature, authorities=trust.root.timestamp_authorities
        )
        for item in bundle.timestamps
    ]
    if require_timestamp and not times:
        raise EvidenceMissing("expected an RFC 3161 timestamp, found none", reason="timestamp-missing")
    if entry is not None and log is not None and entry.promise is not None:
        times.append(_promised_time(entry, log))
    if not times:
        raise EvidenceMissing(
            "expected a timestamp, or a log's signed time, found neither", reason="timestamp-missing"
        )
    signed_at = min(times)
    # 6.
    issuers = {_issuer_at(signer, bundle.intermediates, trust.root, at) for at in times}
    # 7.
    for issuer in issuers:
        _require_sct(signer, issuer, trust.root)
    # 8.
    cosigned: frozenset[str] = frozenset()
    if entry is not None and log is not None:
        check_body(entry, bundle.envelope, bundle.certificate)
        cosigned = _require_inclusion(entry, log, trust.root, signed_at, witnesses=witnesses)
    elif require_log:
        raise EvidenceMissing("expected a log entry in the bundle, found none", reason="log-missing")
    if len(cosigned) < min_witnesses:
        raise PolicyNotMet(
            f"expected cosignatures by at least {min_witnesses} witnesses of the policy, "
            f"found {len(cosigned)}",
            reason="witnesses",
        )
    return VerifiedStatement(
        payload=bundle.envelope.payload,
        signer=signer.name,
        issuer=signer.issuer,
        signed_at=signed_at,
        certificate=Digest.sha256_of(bundle.certificate),
        log_index=None if entry is None else entry.index,
        log_id=None if entry is None else entry.log_id,
        witnesses=cosigned,
    )


def _log_of(entry: TlogEntry, root: TrustedRoot) -> TransparencyLog:
    """The log of the trust file that the entry claims to be in."""
    for log in root.tlogs:
        if hmac.compare_digest(log.log_id, entry.log_id):
            return log
    raise UntrustedSigner(
        f"expected an entry in a log of the trust file, got one of log {entry.log_id.hex()[:16]}…",
        reason="log-unknown",
        hint="is this the trust file of the federation that the model comes from?",
    )


def _promised_time(entry: TlogEntry, log: TransparencyLog) -> datetime:
    """The time in a signed entry timestamp (Rekor v1), verified; step 5."""
    if entry.version != "0.0.1" or entry.integrated_time is None or entry.promise is None:
        raise EvidenceInvalid(
            "expected a signed entry timestamp with its time, of an entry of Rekor v1",
            reason="promise-invalid",
        )
    signed = promise_payload(
        entry.body, integrated_time=entry.integrated_time, log_id=entry.log_id, index=entry.index
    )
    try:
        verify_with(log.public_key, entry.promise, signed)
        at = datetime.fromtimestamp(entry.integrated_time, UTC)
    except (SignatureInvalid, ValueError, OverflowError, OSError):
        raise EvidenceInvalid(
            "expected the entry's timestamp to be signed by its log, it is not", reason="promise-invalid"
        ) from None
    return at


def _issuer_at(
    signer: SignerCertificate, intermediates: Sequence[bytes], root: TrustedRoot, at: datetime
) -> x509.Certificate:
    """Who issued the certificate, by a path that holds at this time; step 6."""
    if not signer.is_valid_at(at):
        raise EvidenceInvalid(
            f"expected the certificate of {signer.name[:200]} to be valid at {to_rfc3339(at)}",
            reason="certificate-expired",
        )
    try:
        presented = [x509.load_der_x509_certificate(der) for der in intermediates]
    except PARSE_ERRORS:
        raise Malformed("expected certificates in DER in the bundle's chain, found something else") from None
    refusal: UntrustedSigner | None = None
    for authority in root.certificate_authorities:
        if not authority.covers(at):
            continue
        between = authority.certificates[:-1]
        try:
            return require_path(signer, anchor=authority.anchor, intermediates=[*between, *presented], at=at)
        except UntrustedSigner as error:
            refusal = refusal or error
    raise refusal or UntrustedSigner(
        f"expected an authority of the trust file that was trusted at {to_rfc3339(at)}, found none",
        reason="certificate-path",
    )


def _require_sct(signer: SignerCertificate, issuer: x509.Certificate, root: TrustedRoot) -> None:
    """Step 7: one embedded timestamp of a certificate log, over this certificate under this issuer."""
    try:
        verify_embedded_sct(signer.certificate, issuer, root.ct_logs)
    except CertificateRefused as error:
        raise EvidenceInvalid(error.message, reason="sct-invalid") from None


def _require_inclusion(
    entry: TlogEntry, log: TransparencyLog, root: TrustedRoot, at: datetime, *, witnesses: Sequence[str]
) -> frozenset[str]:
    """Step 8: the entry is in the tree that the log's checkpoint is of. Returns who cosigned it.

    a. The proof's index is the entry's. In Rekor v1, whose trees were replaced over time, the two may
       differ where a signed entry timestamp vouches for the entry's.
    b. The log was trusted when the statement was signed.
    c. The checkpoint is signed by the log's key, and of the size and root that the proof states.
    d. The proof leads from the entry to that root.
    e. Cosignatures by the policy's witnesses verify.
    """
    proof = entry.proof
    # a.
    if entry.promise is None and proof.index != entry.index:
        raise EvidenceInvalid(
            f"expected a proof of entry {entry.index}, got one of {proof.index}", reason="log-index"
        )
    # b.
    if not log.covers(at):
        raise UntrustedSigner(
            f"expected a log that was trusted at {to_rfc3339(at)}, it was not", reason="log-unknown"
        )
    # c.
    try:
        note = parse_note(proof.checkpoint)
        checkpoint = Checkpoint.parse(note.text)
    except Malformed as error:
        raise EvidenceInvalid(error.message, reason="checkpoint-malformed") from None
    _require_signed(note, log, root)
    head = checkpoint.head
    if head.size != proof.tree_size or not hmac.compare_digest(head.root, proof.root):
        raise EvidenceInvalid(
            f"expected a proof in the checkpoint's tree of {head.size} entries, "
            f"got one in another tree of {proof.tree_size}",
            reason="checkpoint-mismatch",
        )
    # d.
    try:
        verify_inclusion(proof.hashes, leaf=leaf_hash(entry.body), index=proof.index, head=head)
    except EvidenceInvalid as error:
        raise EvidenceInvalid(error.message, reason="inclusion-invalid") from None
    # e.
    try:
        return frozenset(verify_cosignatures(note, tuple(map(_witness, witnesses))))
    except SignatureInvalid as error:
        raise EvidenceInvalid(error.message, reason="witness-signature") from None


def _require_signed(note: Note, log: TransparencyLog, root: TrustedRoot) -> None:
    """The note is signed by the log's key, named by the start of its id (C2SP signed-note) and by a name that
    stands in the log's URL. A line that claims to be by any log of the trust file, and is not, refuses the
    note; lines by others are passed over."""
    signed = False
    for known in root.tlogs:
        for line in note.signatures:
            if line.key_id != known.note_key_id or line.name not in known.base_url:
                continue
            try:
                verify_with(known.public_key, line.signature, note.text.encode())
            except SignatureInvalid:
                raise EvidenceInvalid(
                    f"expected the checkpoint to be signed by the log {known.base_url}, it is not",
                    reason="checkpoint-signature",
                ) from None
            signed = signed or known is log
    if not signed:
        raise EvidenceInvalid(
            f"expected the checkpoint to be signed by the log {log.base_url}, it is by others",
            reason="checkpoint-signature",
        )


@lru_cache(maxsize=64)
def _witness(vkey: str) -> VerifierKey:
    return VerifierKey.parse(vkey)
