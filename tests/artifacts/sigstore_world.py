"""A private Sigstore in the process: a CA, a notary and a log of a few entries, and bundles out of it.

It puts bundles together from the pieces alone, by the definitions of RFC 6962, without the coordinator: what
a stranger's verifier says of them is said of the formats.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import sha256

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from fltrust.artifacts.envelope import SignedEnvelope
from fltrust.artifacts.ports import EntryKind
from fltrust.artifacts.rekor import assemble_bundle, build_body, promise_payload
from fltrust.artifacts.trustroot import TrustedRoot, build_trusted_root
from fltrust.clock import Clock, SystemClock
from fltrust.coordinator.notary import NotaryKeys, scratch_notary
from fltrust.identity import Role, SpiffeId, TrustDomain
from fltrust.keys import FileSigner, generate
from fltrust.pki import Issuer, TrustBundle, create_issuing, create_root, make_bundle
from fltrust.pki.codesigning import SigningDraft, issue_signer
from fltrust.pki.sct import SignedCertificateTimestamp, sign_sct
from fltrust.tlog.checkpoint import add_signatures, sign_checkpoint
from fltrust.tlog.note import NoteKey, parse_note
from fltrust.tlog.ports import TreeHead

DOMAIN = TrustDomain("hospitals.example")
SIGNER = SpiffeId.of(DOMAIN, Role.SIGNER, "release")
ISSUER = f"spiffe://{DOMAIN}"
PAYLOAD_TYPE = "application/vnd.in-toto+json"


def statement(name: str = "model", digest: str = "11" * 32) -> bytes:
    """An in-toto statement about something."""
    return json.dumps(
        {
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{"name": name, "digest": {"sha256": digest}}],
            "predicateType": "https://example.com/predicate/v1",
            "predicate": {},
        }
    ).encode()


@dataclass
class SetClock:
    """A clock that stands where it is set."""

    at: datetime

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return 0.0


@dataclass
class SigstoreWorld:
    """One trust domain; `before` and `after` are the entries around each signature in its log."""

    clock: Clock = field(default_factory=SystemClock)
    domain: TrustDomain = DOMAIN
    before: Sequence[bytes] = (b"first", b"second")
    after: Sequence[bytes] = (b"third", b"fourth")

    def __post_init__(self) -> None:
        began = self.clock.now() - timedelta(days=1)
        root_signer, issuing_signer = generate(), generate()
        self.root = create_root(self.domain, signer=root_signer, now=began)
        self.issuing = create_issuing(
            root=self.root, root_signer=root_signer, public_key=issuing_signer.public_key, now=began
        )
        self.issuer = Issuer(certificate=self.issuing, signer=issuing_signer)
        self.bundle: TrustBundle = make_bundle(self.domain, [self.root])
        self.notary: NotaryKeys = scratch_notary(self.issuer, clock=self.clock)

    @property
    def trusted_root(self) -> TrustedRoot:
        return self.notary.trusted_root(self.bundle)

    @property
    def trusted_root_json(self) -> bytes:
        return build_trusted_root(self.trusted_root)

    def certify(self, who: SpiffeId = SIGNER) -> tuple[FileSigner, x509.Certificate]:
        """A fresh key and its code-signing certificate."""
        key = generate()

        def promise(key_hash: bytes, tbs: bytes) -> SignedCertificateTimestamp:
            return sign_sct(self.notary.ct, key_hash=key_hash, tbs=tbs, at=self.clock.now())

        draft = SigningDraft.of(who, key.public_key, now=self.clock.now())
        return key, issue_signer(self.issuer, draft, promise=promise).certificate

    def sign(
        self,
        payload: bytes | None = None,
        *,
        who: SpiffeId = SIGNER,
        kind: EntryKind = EntryKind.HASHEDREKORD,
    ) -> bytes:
        """A bundle over a statement: certificate, timestamp, and an entry with proof and checkpoint."""
        key, certificate = self.certify(who)
        envelope = SignedEnvelope.sign(payload or statement(), signer=key)
        return self.bundle_of(envelope, certificate, kind=kind)

    def bundle_of(self, envelope: SignedEnvelope, certificate: x509.Certificate, *, kind: EntryKind) -> bytes:
        leaf = certificate.public_bytes(Encoding.DER)
        body = build_body(envelope, leaf, kind=kind)
        entries, index = [*self.before, body, *self.after], len(self.before)
        head = TreeHead(len(entries), tree_hash(entries))
        checkpoint = sign_checkpoint(head, NoteKey(self.notary.log_name, self.notary.note))
        log_id, promised = self.trusted_root.tlogs[0].log_id, {}
        if kind is EntryKind.DSSE:
            log_id, at = self.notary.ct_log_id, int(self.clock.now().timestamp())
            text = parse_note(checkpoint).text
            checkpoint = add_signatures(checkpoint, (self.notary.sign_promise(text),))
            payload = promise_payload(body, integrated_time=at, log_id=log_id, index=index)
            promised = {"integrated_time": at, "promise": self.notary.ct.sign(payload)}
        return assemble_bundle(
            envelope=envelope,
            certificate=leaf,
            timestamps=[self.notary.timestamps.timestamp(envelope.signature)],
            kind=kind,
            body=body,
            log_id=log_id,
            index=index,
            tree_size=head.size,
            root=head.root,
            proof=inclusion_path(index, entries),
            checkpoint=checkpoint,
            **promised,  # type: ignore[arg-type]
        )


def tree_hash(entries: Sequence[bytes]) -> bytes:
    """The Merkle Tree Hash by its definition (RFC 6962, 2.1)."""
    if len(entries) == 1:
        return sha256(b"\x00" + entries[0]).digest()
    split = _split(len(entries))
    return sha256(b"\x01" + tree_hash(entries[:split]) + tree_hash(entries[split:])).digest()


def inclusion_path(index: int, entries: Sequence[bytes]) -> list[bytes]:
    """The audit path by its definition (RFC 6962, 2.1.1)."""
    if len(entries) == 1:
        return []
    split = _split(len(entries))
    if index < split:
        return [*inclusion_path(index, entries[:split]), tree_hash(entries[split:])]
    return [*inclusion_path(index - split, entries[split:]), tree_hash(entries[:split])]


def _split(size: int) -> int:
    """The largest power of two below `size`."""
    return 1 << (size - 1).bit_length() - 1
