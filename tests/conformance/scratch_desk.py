"""A private Sigstore in this process: the real notary keys, profiles and formats, over a tree in memory.

For what a coordinator refuses to do: countersign after the certificate's end, or long ago. Everything
that strangers check is made by the same code that the coordinator calls.
"""

from __future__ import annotations

from collections.abc import Sequence

from cryptography.hazmat.primitives.serialization import Encoding

from fltrust.artifacts.envelope import SignedEnvelope
from fltrust.artifacts.ports import EntryKind
from fltrust.artifacts.rekor import assemble_bundle, build_body, promise_payload
from fltrust.artifacts.trustroot import build_trusted_root
from fltrust.clock import Clock, SystemClock
from fltrust.coordinator.notary import scratch_notary
from fltrust.identity import Role, SpiffeId
from fltrust.pki.codesigning import SigningDraft, issue_signer
from fltrust.pki.csr import parse_csr
from fltrust.pki.sct import SignedCertificateTimestamp, sign_sct
from fltrust.testing import ScratchCa
from fltrust.tlog.checkpoint import Checkpoint, sign_checkpoint
from fltrust.tlog.merkle import Edge, inclusion_proof, leaf_hash
from fltrust.tlog.note import KeyType, Note, NoteKey, VerifierKey
from fltrust.tlog.ports import TreeHead

DOMAIN = "hospitals.example"
SIGNER = SpiffeId.of(DOMAIN, Role.SIGNER, "release")
ISSUER = f"spiffe://{DOMAIN}"


class MemoryTree:
    """A Merkle tree that keeps its hashes here."""

    def __init__(self) -> None:
        self._edge = Edge()
        self._hashes: dict[tuple[int, int], bytes] = {}

    @property
    def head(self) -> TreeHead:
        return self._edge.head

    def append(self, data: bytes) -> int:
        index = self._edge.size
        self._edge, new = self._edge.append([leaf_hash(data)])
        self._hashes.update({(item.level, item.index): item.hash for item in new})
        return index

    def hashes(self, level: int, start: int, end: int) -> Sequence[bytes]:
        return [self._hashes[level, index] for index in range(start, end)]


class ScratchDesk:
    """A `SigningDesk` of one signer that asks no questions."""

    def __init__(self, *, clock: Clock | None = None, who: SpiffeId = SIGNER, before: int = 3) -> None:
        self.clock = clock or SystemClock()
        self.ca = ScratchCa.make(str(who.domain), now=self.clock.now())
        self.notary = scratch_notary(self.ca.issuer, clock=self.clock)
        self.tree = MemoryTree()
        self._who = who
        for number in range(before):
            self.tree.append(b"what was logged before, %d" % number)

    @property
    def trusted_root(self) -> bytes:
        return build_trusted_root(self.notary.trusted_root(self.ca.bundle))

    def certify_signer(self, csr_der: bytes) -> tuple[bytes, ...]:
        now = self.clock.now()

        def promise(key_hash: bytes, tbs: bytes) -> SignedCertificateTimestamp:
            return sign_sct(self.notary.ct, key_hash=key_hash, tbs=tbs, at=now)

        draft = SigningDraft.of(self._who, parse_csr(csr_der), now=now)
        issued = issue_signer(self.ca.issuer, draft, promise=promise)
        chain = (issued.certificate, self.ca.issuer.certificate)
        return tuple(certificate.public_bytes(Encoding.DER) for certificate in chain)

    def countersign(
        self, envelope: bytes, certificate: bytes, *, entry_kind: EntryKind = EntryKind.HASHEDREKORD
    ) -> bytes:
        signed = SignedEnvelope.from_json(envelope)
        timestamp = self.notary.timestamps.timestamp(signed.signature)
        body = build_body(signed, certificate, kind=entry_kind)
        index = self.tree.append(body)
        head, name = self.tree.head, self.notary.log_name
        note = NoteKey(name, self.notary.note)
        is_old = entry_kind is EntryKind.DSSE
        log_id = (
            self.notary.ct_log_id
            if is_old
            else VerifierKey(name, KeyType.ED25519, self.notary.note.public_key_raw).full_id
        )
        checkpoint = sign_checkpoint(head, note)
        at = int(self.clock.now().timestamp()) if is_old else None
        if is_old:
            text = Checkpoint(name, head).text
            checkpoint = Note(text, (self.notary.sign_promise(text),)).encode()
        return assemble_bundle(
            envelope=signed,
            certificate=certificate,
            timestamps=[timestamp],
            kind=entry_kind,
            body=body,
            log_id=log_id,
            index=index,
            tree_size=head.size,
            root=head.root,
            proof=inclusion_proof(self.tree, index, size=head.size),
            checkpoint=checkpoint,
            integrated_time=at,
            promise=self.notary.ct.sign(promise_payload(body, integrated_time=at, log_id=log_id, index=index))
            if at is not None
            else None,
        )
