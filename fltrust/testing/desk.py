"""A coordinator's signing desk in memory: a CA, a log and a timestamp authority for tests of artifacts.

Everything it gives verifies against its `trust_file`, with our verifier and with stock Sigstore clients.
What only a real coordinator does (permissions, durability, records) it leaves out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import Encoding

from fltrust.artifacts.envelope import SignedEnvelope
from fltrust.artifacts.ports import BlastRadius, EntryKind, RoundFacts, StepOfRun
from fltrust.artifacts.rekor import assemble_bundle, build_body, promise_payload
from fltrust.artifacts.status import Status
from fltrust.artifacts.trustfile import TrustFile
from fltrust.artifacts.trustroot import TrustedRoot, build_trusted_root
from fltrust.clock import Clock
from fltrust.coordinator.ca import CurrentCa
from fltrust.coordinator.notary import scratch_notary
from fltrust.errors import NotFound
from fltrust.identity import Digest, Role, RunId, SpiffeId, TrustDomain
from fltrust.keys import generate
from fltrust.pki import Issuer, create_csr, create_issuing, create_root, make_bundle, parse_csr
from fltrust.pki.codesigning import DEFAULT_SIGNING_LIFETIME, SigningDraft, issue_signer
from fltrust.pki.sct import SignedCertificateTimestamp, sign_sct
from fltrust.strictjson import decode
from fltrust.testing.clock import FakeClock
from fltrust.tlog.checkpoint import Checkpoint, CosignerKey, add_signatures, sign_checkpoint
from fltrust.tlog.ctleaf import PrecertificateLeaf
from fltrust.tlog.merkle import Prover, fold, leaf_hash
from fltrust.tlog.note import NoteKey, VerifierKey

DOMAIN = TrustDomain("hospitals.example")
RELEASE = SpiffeId.of(DOMAIN, Role.SIGNER, "release")


class _Tree:
    """Leaf hashes in memory, as a `HashSource`."""

    def __init__(self) -> None:
        self.leaves: list[bytes] = []

    def append(self, data: bytes) -> int:
        self.leaves.append(leaf_hash(data))
        return len(self.leaves) - 1

    def hashes(self, level: int, start: int, end: int) -> Sequence[bytes]:
        width = 256**level
        return [fold(self.leaves[at * width : (at + 1) * width]) for at in range(start, end)]


class ScratchDesk:
    """`SigningDesk` and `LineageArchive` for one caller; `acting_as` gives the same desk to another.

    `lineages` are what `find_lineage` answers, by tensor set and by step; `status` stands in the trust file.
    """

    def __init__(
        self, *, domain: TrustDomain = DOMAIN, clock: Clock | None = None, caller: SpiffeId | None = None
    ) -> None:
        self.clock = clock or FakeClock()
        self.caller = caller or SpiffeId.of(domain, Role.SIGNER, "release")
        self.domain = domain
        root_signer, issuing = generate(), generate()
        now = self.clock.now() - timedelta(days=1)
        root = create_root(domain, signer=root_signer, now=now)
        certificate = create_issuing(
            root=root, root_signer=root_signer, public_key=issuing.public_key, now=now
        )
        self.issuer = Issuer(certificate=certificate, signer=issuing)
        self.roots = make_bundle(domain, [root])
        self.notary = scratch_notary(CurrentCa(self.issuer, self.roots), clock=self.clock)
        self.tree = _Tree()
        self.witnesses: list[CosignerKey] = []
        self.lineages: dict[Digest | StepOfRun, tuple[bytes, ...]] = {}
        self.status: Status | None = None

    def acting_as(self, who: SpiffeId) -> ScratchDesk:
        other = object.__new__(ScratchDesk)
        other.__dict__ = {**self.__dict__, "caller": who}
        return other

    # SigningDesk.

    def certify_signer(self, csr_der: bytes) -> tuple[bytes, ...]:
        issued = self.certify(parse_csr(csr_der))
        return tuple(c.public_bytes(Encoding.DER) for c in (issued, self.issuer.certificate))

    def certify(
        self, public_key: EllipticCurvePublicKey, *, lifetime: timedelta = DEFAULT_SIGNING_LIFETIME
    ) -> x509.Certificate:
        draft = SigningDraft.of(self.caller, public_key, now=self.clock.now(), lifetime=lifetime)
        return issue_signer(self.issuer, draft, promise=self._promise).certificate

    def countersign(
        self, envelope: bytes, certificate: bytes, *, entry_kind: EntryKind = EntryKind.HASHEDREKORD
    ) -> bytes:
        signed = SignedEnvelope.from_json(envelope)
        timestamp = self.notary.timestamps.timestamp(signed.signature)
        body = build_body(signed, certificate, kind=entry_kind)
        index = self.tree.append(body)
        return self.bundle_of(signed, certificate, (timestamp,), body, index, entry_kind=entry_kind)

    def bundle_of(
        self,
        envelope: SignedEnvelope,
        certificate: bytes,
        timestamps: Sequence[bytes],
        body: bytes,
        index: int,
        *,
        entry_kind: EntryKind = EntryKind.HASHEDREKORD,
    ) -> bytes:
        """The bundle of an entry as of the tree's present size."""
        prover = Prover(self.tree, len(self.tree.leaves))
        checkpoint = sign_checkpoint(prover.head, self._note_key)
        text = Checkpoint(self.notary.log_name, prover.head)
        lines = [witness.cosign(text, at=self.clock.now()) for witness in self.witnesses]
        log_id, promise, at = self.log_id, None, None
        if entry_kind is EntryKind.DSSE:
            log_id, at = self.notary.ct_log_id, int(self.clock.now().timestamp())
            lines.append(self.notary.sign_promise(text.text))
            promise = self.notary.ct.sign(
                promise_payload(body, integrated_time=at, log_id=log_id, index=index)
            )
        return assemble_bundle(
            envelope=envelope,
            certificate=certificate,
            timestamps=timestamps,
            kind=entry_kind,
            body=body,
            log_id=log_id,
            index=index,
            tree_size=prover.head.size,
            root=prover.head.root,
            proof=prover.inclusion(index),
            checkpoint=add_signatures(checkpoint, tuple(lines)),
            integrated_time=at,
            promise=promise,
        )

    def sign(self, payload: bytes, *, entry_kind: EntryKind = EntryKind.HASHEDREKORD) -> bytes:
        """The bundle of any statement, signed by the caller with a fresh key."""
        signer = generate()
        certificate = self.certify_signer(create_csr(signer))[0]
        envelope = SignedEnvelope.sign(payload, signer=signer)
        return self.countersign(envelope.to_json(), certificate, entry_kind=entry_kind)

    # LineageArchive.

    def describe_round(self, run_id: RunId, step: int) -> RoundFacts:
        raise NotFound(f"no round {step} of run {run_id} here")

    def find_lineage(self, query: Digest | StepOfRun) -> Iterator[bytes]:
        if query not in self.lineages:
            raise NotFound(f"no lineage of {query} here")
        return iter(self.lineages[query])

    def blast_radius(self, who: SpiffeId, since: datetime) -> BlastRadius:
        return BlastRadius(who, since, (), (), ())

    def trust_file(self) -> bytes:
        return TrustFile(
            trusted_root=decode(build_trusted_root(self.trusted_root), limit=2**24, what="a trusted root"),
            sequence=1,
            domain=self.domain,
            created=self.clock.now(),
            status=None if self.status is None else self.sign_status(self.status),
        ).to_json()

    @property
    def trusted_root(self) -> TrustedRoot:
        return self.notary.trusted_root(self.roots)

    def sign_status(self, status: Status) -> bytes:
        coordinator = SpiffeId(self.domain, Role.COORDINATOR, None)
        return self.acting_as(coordinator).sign(status.to_payload())

    @property
    def log_id(self) -> bytes:
        return self._log_key.full_id

    @property
    def _note_key(self) -> NoteKey:
        return NoteKey(self.notary.log_name, self.notary.note)

    @property
    def _log_key(self) -> VerifierKey:
        return self._note_key.verifier

    def _promise(self, key_hash: bytes, tbs: bytes) -> SignedCertificateTimestamp:
        sct = sign_sct(self.notary.ct, key_hash=key_hash, tbs=tbs, at=self.clock.now())
        self.tree.append(PrecertificateLeaf(sct.timestamp_ms, key_hash, tbs).encode())
        return sct


def append_noise(desk: ScratchDesk, entries: Iterable[bytes]) -> None:
    """Let other entries come into the log."""
    for entry in entries:
        desk.tree.append(entry)
