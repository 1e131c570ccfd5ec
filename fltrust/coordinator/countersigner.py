"""The coordinator as a small private Sigstore: certificates with their promise, signatures with their proof.

Everything happens in the caller's transaction: a certificate is in the log when it is handed out, and so
is a signature when its bundle is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import ec

from fltrust.artifacts.envelope import SignedEnvelope
from fltrust.artifacts.ports import EntryKind
from fltrust.artifacts.rekor import assemble_bundle, build_body, promise_payload
from fltrust.coordinator.ca import CurrentCa
from fltrust.coordinator.enroller import record_of
from fltrust.coordinator.ledger import Work
from fltrust.coordinator.notary import NotaryKeys
from fltrust.identity import SpiffeId
from fltrust.pki.codesigning import IssuedSigner, SigningDraft, issue_signer
from fltrust.pki.profiles import ServiceKind
from fltrust.pki.sct import SignedCertificateTimestamp, sign_sct
from fltrust.tlog.checkpoint import add_signatures, sign_checkpoint
from fltrust.tlog.entries import PrecertificateLeaf, StatementBody, new_entry
from fltrust.tlog.merkle import Prover
from fltrust.tlog.note import NoteKey, parse_note
from fltrust.tlog.ports import TreeHead


@dataclass(frozen=True, slots=True)
class Countersigned:
    """A signature that was logged: its place, and the whole bundle (Sigstore v0.3, JSON)."""

    log_index: int
    bundle: bytes


class Countersigner:
    """Issues code-signing certificates and makes bundles, with the notary's keys; for many threads."""

    def __init__(self, *, ca: CurrentCa, notary: NotaryKeys, log_key: NoteKey) -> None:
        self._ca = ca
        self._notary = notary
        self._log_key = log_key

    def certify(self, who: SpiffeId, key: ec.EllipticCurvePublicKey, work: Work) -> IssuedSigner:
        """Issue a code-signing certificate for minutes; its precertificate is logged and it is recorded."""

        def promise(key_hash: bytes, tbs: bytes) -> SignedCertificateTimestamp:
            return sign_sct(self._notary.ct, key_hash=key_hash, tbs=tbs, at=work.now)

        issuer = self._ca.issuer
        work.check_issuer(issuer.certificate)
        lifetime = issuer.profiles.services[ServiceKind.CODE_SIGNING].default_lifetime
        draft = SigningDraft.of(who, key, now=work.now, lifetime=lifetime)
        issued = issue_signer(issuer, draft, promise=promise)
        leaf = PrecertificateLeaf(issued.sct.timestamp_ms, issued.issuer_key_hash, issued.precert_tbs)
        work.add_precertificate(record_of(issued.certificate, who), leaf)
        return issued

    def timestamp(self, envelope: SignedEnvelope) -> bytes:
        """An RFC 3161 response over the signature. It may renew the authority: not inside a transaction."""
        return self._notary.timestamps.timestamp(envelope.signature)

    def countersign(
        self,
        envelope: SignedEnvelope,
        certificate: bytes,
        timestamp: bytes,
        work: Work,
        *,
        kind: EntryKind,
        subjects: Iterable[str],
    ) -> Countersigned:
        """Append the signature's entry and assemble the bundle, proven at the size that this gives."""
        body = build_body(envelope, certificate, kind=kind)
        index = work.log(
            new_entry(StatementBody.parse(body), subjects=tuple(dict.fromkeys(subjects)), at=work.now)
        ).index
        head = work.tx.tlog.head
        is_v1 = kind is EntryKind.DSSE
        log_id = self._notary.ct_log_id if is_v1 else self._log_key.verifier.full_id
        integrated = int(work.now.timestamp()) if is_v1 else None
        bundle = assemble_bundle(
            envelope=envelope,
            certificate=certificate,
            timestamps=(timestamp,),
            kind=kind,
            body=body,
            log_id=log_id,
            index=index,
            tree_size=head.size,
            root=head.root,
            proof=Prover(work.tx.tlog, head.size).inclusion(index),
            checkpoint=self._checkpoint(head, is_v1=is_v1),
            integrated_time=integrated,
            promise=None if integrated is None else self._promise(body, integrated, index),
        )
        return Countersigned(index, bundle)

    def _checkpoint(self, head: TreeHead, *, is_v1: bool) -> bytes:
        """The signed note; verifiers of Rekor v1 know the log by its P-256 key, which signs beside."""
        note = sign_checkpoint(head, self._log_key)
        if not is_v1:
            return note
        return add_signatures(note, (self._notary.sign_promise(parse_note(note).text),))

    def _promise(self, body: bytes, integrated: int, index: int) -> bytes:
        """A signed entry timestamp (Rekor v1)."""
        return self._notary.ct.sign(
            promise_payload(body, integrated_time=integrated, log_id=self._notary.ct_log_id, index=index)
        )
