"""The trust file: everything ever signed with, and a signed status of who and what is not to be trusted."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from cryptography.hazmat.primitives.serialization import Encoding

from fltrust.artifacts.envelope import SignedEnvelope
from fltrust.artifacts.keeping import TaintedKind, TrustMaterial
from fltrust.artifacts.ports import EntryKind
from fltrust.artifacts.status import RevokedName, Status, TaintedAggregate, TaintedModel
from fltrust.artifacts.trustfile import TrustFile
from fltrust.artifacts.trustroot import TrustedRoot, build_trusted_root
from fltrust.coordinator.ca import CurrentCa
from fltrust.coordinator.countersigner import Countersigner
from fltrust.coordinator.ledger import Ledger, Work
from fltrust.coordinator.notary import NotaryKeys
from fltrust.coordinator.ports import Transaction
from fltrust.coordinator.public_names import PublicNaming
from fltrust.coordinator.sequencer import Sequencer
from fltrust.coordinator.taint import aggregate_key, place_of
from fltrust.identity import Digest, Epoch, Role, SpiffeId
from fltrust.keys.file import generate
from fltrust.pki.leaf import ca_key_id
from fltrust.pki.types import TrustBundle
from fltrust.revocation.events import EventKind, RevocationReason, TrustEvent
from fltrust.tlog.checkpoint import sign_checkpoint
from fltrust.tlog.entries import LogKind
from fltrust.tlog.note import NoteKey

MAX_STATUS_AGE = timedelta(minutes=10)
"""A status is made anew when it is asked for and older, or says something else."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """Up to where the record was read: nothing that a status says can change without one of these."""

    epoch: Epoch
    last_taint: int


@dataclass(frozen=True, slots=True)
class _Made:
    """A trust file, and what it was made from."""

    data: bytes
    seen: _Seen
    said: Status
    root: bytes
    at: datetime


class TrustDesk:
    """Makes trust files. Signs the status as the coordinator, with a key that lives for one signature."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        sequencer: Sequencer,
        countersigner: Countersigner,
        notary: NotaryKeys,
        ca: CurrentCa,
        names: PublicNaming,
        log_key: NoteKey,
    ) -> None:
        self._ledger = ledger
        self._sequencer = sequencer
        self._countersigner = countersigner
        self._notary = notary
        self._ca = ca
        self._names = names
        self._log_key = log_key
        self._lock = threading.Lock()
        self._made: _Made | None = None
        self._last_taint = -1

    def trust_file(self) -> bytes:
        """The trust file of this moment (`fltrust.artifacts.trustfile`), in its one byte form.

        Made anew when who is revoked, what is tainted or what is trusted has changed since the last, or
        after `MAX_STATUS_AGE`; else it is the last one again.
        """
        with self._lock:
            made = self._refreshed(self._made)
            self._made = made
            return made.data

    def trusted_root(self) -> bytes:
        """Sigstore's ``trusted_root.json``, as it stands in the trust file: for stock clients."""
        return build_trusted_root(self._trusted_root())

    def _trusted_root(self) -> TrustedRoot:
        """Everything ever signed with. A CA that was ended is trusted up to when that was."""
        now, keys = self._ca.now, [ca_key_id(c.public_key()) for c in self._notary.issuing_history]
        with self._ledger.reading() as tx:
            ended = {key: at for key in keys if (at := tx.statuses.issuer_revoked_at(key)) is not None}
        return self._notary.trusted_root(now.bundle, former=now.former, ended=ended)

    def _refreshed(self, made: _Made | None) -> _Made:
        now, root = self._ledger.now(), self.trusted_root()
        with self._ledger.reading() as tx:
            seen = self._look(tx)
            if made is not None and made.root == root and made.at <= now < made.at + MAX_STATUS_AGE:
                if made.seen == seen:
                    return made
                if _says_the_same(read_status(tx, self._ca.bundle, self._names, at=now), made.said):
                    return replace(made, seen=seen)
            status = read_status(tx, self._ca.bundle, self._names, at=now)
            head = tx.tlog.head
        status = replace(status, checkpoint=sign_checkpoint(head, self._log_key).decode())
        bundle, sequence = self._signed(status)
        file = TrustFile(
            trusted_root=json.loads(root),
            sequence=sequence,
            domain=self._ca.bundle.domain,
            created=now,
            status=bundle,
        )
        return _Made(file.to_json(), seen, status, root, now)

    def _look(self, tx: Transaction) -> _Seen:
        while found := tx.tlog.find(kinds=(LogKind.TAINT,), after=self._last_taint):
            self._last_taint = found[-1].index
        return _Seen(tx.events.head, self._last_taint)

    def _signed(self, status: Status) -> tuple[bytes, int]:
        """The status's bundle, and the sequence of the trusted root that goes with it."""
        who = SpiffeId(self._ca.bundle.domain, Role.COORDINATOR, None)
        signer = generate()
        envelope = SignedEnvelope.sign(status.to_payload(), signer=signer)
        timestamp = self._countersigner.timestamp(envelope)
        root = self._trusted_root()

        def finish(work: Work) -> tuple[bytes, int]:
            issued = self._countersigner.certify(who, signer.public_key, work)
            done = self._countersigner.countersign(
                envelope,
                issued.certificate.public_bytes(Encoding.DER),
                timestamp,
                work,
                kind=EntryKind.HASHEDREKORD,
                subjects=(str(who),),
            )
            return done.bundle, _keep(work.tx, root)

        return self._sequencer.run(finish)


def read_status(tx: Transaction, bundle: TrustBundle, names: PublicNaming, *, at: datetime) -> Status:
    """What the record says of who and what is not to be trusted, without a checkpoint.

    1. Every revocation, by public name. One of an identity that was enrolled anew since is of the
       certificates that it barred, and of those that had run out by then and signed after it counts as
       compromised: what the identity signs today is not touched.
    2. Every aggregate and model that is tainted, directly if one of its causes says so.
    """
    aggregates, models = _tainted(tx)
    return Status(
        domain=bundle.domain,
        epoch=tx.events.head,
        at=at,
        revoked=tuple(_revoked(tx, names)),
        tainted_aggregates=aggregates,
        tainted_models=models,
    )


def _revoked(tx: Transaction, names: PublicNaming) -> Iterator[RevokedName]:
    events = tx.events.read(Epoch(0))
    enrolled = {e.subject: e.epoch for e in events if e.kind is EventKind.ENROLLED}
    for event in events:
        if event.kind is not EventKind.REVOKED or event.subject is None:
            continue
        is_whole = event.identity_wide and enrolled.get(event.subject, Epoch(0)) < event.epoch
        yield RevokedName(
            name=names.of(event.subject),
            at=event.at,
            compromised_since=event.compromised_since,
            is_identity_wide=is_whole,
            certificates=frozenset() if is_whole else frozenset(_certificates(tx, event)),
            reason=event.reason or RevocationReason.UNSPECIFIED,
        )


def _certificates(tx: Transaction, event: TrustEvent) -> Iterator[Digest]:
    records = [tx.certificates.by_serial(serial) for serial in event.serials]
    records += [record for key in event.keys for record in tx.certificates.all_by_key(key)]
    if event.identity_wide and event.subject is not None and event.compromised_since is not None:
        lived = tx.certificates.unexpired_of(event.subject, now=event.compromised_since)
        records += [record for record in lived if record.not_after <= event.at]
    for record in records:
        if record is not None:
            yield Digest.sha256_of(record.der)


def _tainted(tx: Transaction) -> tuple[tuple[TaintedAggregate, ...], tuple[TaintedModel, ...]]:
    direct: dict[tuple[TaintedKind, str], bool] = {}
    for taint in tx.taints.all():
        direct[taint.what, taint.key] = direct.get((taint.what, taint.key), False) or taint.is_direct
    places = [place_of(key) for what, key in direct if what is TaintedKind.AGGREGATE]
    known = [
        record
        for record in tx.aggregates.descendants(places)
        if (TaintedKind.AGGREGATE, aggregate_key(record.place)) in direct
    ]
    aggregates = tuple(
        TaintedAggregate(
            record.tensors,
            record.run_id,
            record.step,
            direct[TaintedKind.AGGREGATE, aggregate_key(record.place)],
        )
        for record in known
    )
    models = tuple(
        TaintedModel(record.subject, record.name, direct[TaintedKind.MODEL, str(record.log_index)])
        for record in tx.models.made_of([r.place for r in known], dict.fromkeys(r.tensors for r in known))
        if (TaintedKind.MODEL, str(record.log_index)) in direct
    )
    return aggregates, models


def _says_the_same(status: Status, other: Status) -> bool:
    return replace(status, at=other.at, epoch=other.epoch, checkpoint=other.checkpoint) == other


def _keep(tx: Transaction, root: TrustedRoot) -> int:
    """Keep what the trusted root is made of; the sequence, which grows whenever something is new in it."""
    kept = {(item.kind, item.fingerprint) for item in tx.trust_material.all()}
    for material in _materials(root):
        if (material.kind, material.fingerprint) not in kept:
            kept.add((material.kind, material.fingerprint))
            tx.trust_material.put(material)
    return len(kept)


def _materials(root: TrustedRoot) -> Iterator[TrustMaterial]:
    for kind, chains in (
        ("certificate-authority", root.certificate_authorities),
        ("timestamp-authority", root.timestamp_authorities),
    ):
        for trusted in chains:
            data = b"".join(c.public_bytes(Encoding.DER) for c in trusted.certificates)
            yield TrustMaterial(kind, Digest.sha256_of(data), data, trusted.start, trusted.end)
    for kind, logs in (("certificate-log", root.ct_logs), ("log", root.tlogs)):
        for log in logs:
            yield TrustMaterial(kind, Digest.sha256_of(log.log_id), log.log_id, log.start, log.end)
