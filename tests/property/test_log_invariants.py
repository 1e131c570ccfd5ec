"""Invariant 8: the log says what the tables say, and every tree it ever showed is the beginning of the next.

Acts in whatever order hypothesis can think of, with crashes before and after their commits, restarts, and
entries that share transactions. After each, the whole log is read back and held against the tables.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path

import pytest
from authority_world import RUN, Authorities, Exchange, World, receipt_of
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from fltrust.coordinator.public_names import PublicNaming
from fltrust.enrollment.ports import CertificateRecord
from fltrust.errors import Conflict, FltrustError, TokenRefused
from fltrust.identity import Digest, Epoch, Role, Serial
from fltrust.keys import generate
from fltrust.pki import create_csr
from fltrust.revocation import RevocationReason
from fltrust.rounds.types import RoundStatus
from fltrust.storage import CommitStep
from fltrust.tlog.checkpoint import CheckpointPolicy, sign_checkpoint
from fltrust.tlog.entries import (
    CertificateLeaf,
    LogOpened,
    ParticipantCertificate,
    PrecertificateLeaf,
    SealedRound,
    TrustEventEntry,
    parse_entry,
)
from fltrust.tlog.merkle import Prover, fold, leaf_hash, verify_consistency
from fltrust.tlog.ports import NewEntry, TreeHead

NAMES = ("site-a", "site-b", "site-c")
CRASHES = st.sampled_from([None, None, CommitStep.BEFORE, CommitStep.AFTER])
CA = Authorities.make()


class _Crashed(Exception):
    pass


class LogUnderActs(RuleBasedStateMachine):
    @initialize(key=st.sampled_from([None, b"k" * 32]))
    def begin(self, key: bytes | None) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.world = World(str(Path(self.folder.name) / "state.db"), ca=CA, names=PublicNaming(key))
        self.main = self.world.join("main", Role.AGGREGATOR)
        self.signer = self.world.join("release", Role.SIGNER)
        self.members = {name: self.world.join(name) for name in NAMES}
        self.seen: list[TreeHead] = []
        self.step = 0
        self.alone: list[bytes] = []

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.close()
            self.folder.cleanup()

    # -- acts ---------------------------------------------------------------------------------------

    @rule(name=st.sampled_from(NAMES), crash=CRASHES)
    def enroll_anew(self, name: str, crash: CommitStep | None) -> None:
        with self._crashing(crash), suppress(FltrustError):
            self.members[name] = self.world.join(name, token=self.world.token(name, replace=True))

    @rule(name=st.sampled_from(NAMES), crash=CRASHES)
    def renew(self, name: str, crash: CommitStep | None) -> None:
        with self._crashing(crash), suppress(FltrustError):
            self.members[name] = self.world.renew(self.members[name])

    @rule(name=st.sampled_from(NAMES), since=st.integers(0, 20), crash=CRASHES)
    def revoke(self, name: str, since: int, crash: CommitStep | None) -> None:
        at = self.world.clock.now() - timedelta(minutes=since)
        with self._crashing(crash):
            self.world.revoke(self.members[name], compromised_since=at if since else None)

    @rule(name=st.sampled_from(NAMES))
    def hold_and_release(self, name: str) -> None:
        with suppress(Conflict):
            self.world.op.hold(self.members[name].target, reason=RevocationReason.UNSPECIFIED)
            self.world.op.release(self.members[name].target)

    @rule()
    def a_spent_token_comes_again(self) -> None:
        token = self.world.token("site-a", replace=True)
        with suppress(FltrustError):
            self.members["site-a"] = self.world.join("site-a", token=token)
            with pytest.raises(TokenRefused):
                self.world.join("site-a", token=token)

    @rule(crash=CRASHES)
    def a_signer_is_certified(self, crash: CommitStep | None) -> None:
        with self._crashing(crash):
            self.world.session(self.signer).certify_signer(create_csr(generate()))

    @rule(who=st.sets(st.sampled_from(NAMES), min_size=1), crash=CRASHES)
    def conduct_a_round(self, who: set[str], crash: CommitStep | None) -> None:
        self.step += 1
        self.world.clock.advance(timedelta(minutes=1))
        exchange = Exchange(self.world, self.main, step=self.step)
        exchange.open(*(self.members[name] for name in sorted(who)))
        candidates = tuple(exchange.answer(self.members[name]) for name in sorted(who))
        with self._crashing(crash):
            exchange.session.seal_round(exchange.key, candidates, ())

    @rule(count=st.integers(1, 12))
    def entries_come_at_once(self, count: int) -> None:
        """Stand-alone entries and renewals, from as many threads."""
        sequencer, now = self.world.authority.sequencer, self.world.clock.now()
        texts = [b"%d" % (len(self.alone) + n) for n in range(count)]
        with ThreadPoolExecutor(count + 1) as pool:
            renewing = pool.submit(self.world.renew, self.world.operator)
            futures = [pool.submit(sequencer.append, NewEntry("test", now, text)) for text in texts]
            assert sorted(future.result().data for future in futures) == sorted(texts)
            self.world.operator = renewing.result()
        self.alone += texts

    @rule()
    def restart(self) -> None:
        self.world.reopen()

    # -- what must always hold ----------------------------------------------------------------------

    @invariant()
    def every_tree_that_was_seen_is_the_beginning_of_this_one(self) -> None:
        with self.world.store.reading() as tx:
            head = tx.tlog.head
            prover = Prover(tx.tlog, head.size)
            for old in self.seen:
                verify_consistency(prover.consistency(old.size), old=old, new=head)
            leaves = [leaf_hash(entry.data) for entry in tx.tlog.read(0, head.size)]
        assert len(leaves) == head.size
        assert fold(leaves) == head.root  # from the entries alone
        note = sign_checkpoint(head, self.world.authority.log_key)
        policy = CheckpointPolicy.of(str(self.world.authority.log_key.verifier))
        assert policy.verify(note).head == head
        self.seen.append(head)

    @invariant()
    def the_log_says_what_the_tables_say(self) -> None:
        with self.world.store.reading() as tx:
            logged = tx.tlog.read(0, tx.tlog.head.size)
            events = tx.events.read(Epoch(0))
            certificates = tx.certificates.all()
            rounds = [r for r in tx.rounds.all(None) if r.status is RoundStatus.SEALED]
            places = tx.rounds.places(RUN)
        assert sorted(e.data for e in logged if e.kind == "test") == sorted(self.alone)
        said = [(e.index, parse_entry(e.data)) for e in logged if e.kind != "test"]
        assert isinstance(said[0][1], LogOpened)
        names = self.world.names
        # Every epoch, once, in order, with what the event says.
        entries = [entry for _, entry in said if isinstance(entry, TrustEventEntry)]
        assert [entry.epoch for entry in entries] == [event.epoch for event in events]
        for entry, event in zip(entries, events, strict=True):
            assert (entry.event, entry.at, entry.serials) == (event.kind, event.at, event.serials)
            assert entry.subject == (None if event.subject is None else names.of(event.subject))
            assert entry.compromised_since == event.compromised_since
        # Every certificate, once.
        found = Counter(key for _, entry in said if (key := _certified(entry)) is not None)
        for record in certificates:
            assert found.pop(self._expected(record)) == 1, record.spiffe_id
        assert set(found.values()) <= {1}
        assert len(found) == 1  # the timestamp authority's, which no table keeps
        # Every sealed round, where its receipt says.
        receipts = {receipt_of(r.receipt or b"").index: r for r in rounds}
        sealed = {index: entry for index, entry in said if isinstance(entry, SealedRound)}
        assert sorted(sealed) == sorted(receipts) == list(places)
        for index, entry in sealed.items():
            receipt = receipt_of(receipts[index].receipt or b"")
            assert entry.receipt == Digest.sha256_of(receipt.to_payload())
            assert (entry.epoch, entry.admitted) == (receipt.epoch, len(receipt.admitted))

    def _expected(self, record: CertificateRecord) -> object:
        if self.world.names.has_pseudonym(record.spiffe_id):
            return Digest.sha256_of(record.der)
        is_signing = record.spiffe_id.role is Role.SIGNER and record.der != self.signer.chain[0]
        return record.serial if is_signing else record.der

    @contextmanager
    def _crashing(self, at: CommitStep | None):
        """Run the block in a process that dies at that step of its commit, and start another one."""

        def die(reached: CommitStep) -> None:
            if reached is at:
                raise _Crashed

        self.world.store.on_commit = die
        try:
            yield
        except _Crashed:
            self.world.reopen()
        finally:
            self.world.store.on_commit = None


def _certified(entry: object) -> object:
    """What identifies a certificate in an entry: its DER, its serial, or its digest."""
    if isinstance(entry, CertificateLeaf):
        return entry.certificate
    if isinstance(entry, PrecertificateLeaf):
        return Serial(entry.read().serial_number)
    return entry.certificate if isinstance(entry, ParticipantCertificate) else None


TestLogUnderActs = LogUnderActs.TestCase
TestLogUnderActs.settings = settings(
    max_examples=12,
    stateful_step_count=10,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.reuse, Phase.generate),  # shrinking takes longer than reading ten steps
)
