"""Invariants 1, 2, 3 and 6, tried on a real database with whatever order hypothesis can think of.

The model knows only what was acknowledged. Crashes come before a commit (nothing may remain), after it
(everything must), and between calls (the store is opened again by a new authority).
"""

from __future__ import annotations

import secrets
import tempfile
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from authority_world import DOMAIN, RUN, Authorities, Exchange, Member, World, admitted, receipt_of
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from fltrust.coordinator.authority import Caller
from fltrust.enrollment.challenge import node_key_challenge
from fltrust.enrollment.types import EnrollRequest, JoinTokenEvidence
from fltrust.errors import CertificateRefused, Conflict, FltrustError, Refused, TokenRefused
from fltrust.identity import Epoch, Role, SpiffeId
from fltrust.keys import generate, spki_der
from fltrust.pki import Draft, verify_certificate
from fltrust.pki.signing import SignerKey
from fltrust.revocation import RevocationReason, Standing, TrustEvent, TrustState
from fltrust.rounds.chain import verify_chain
from fltrust.rounds.types import Candidate, RoundRecord
from fltrust.storage import CommitStep

NAMES = ("site-a", "site-b", "site-c")
HAPPENINGS = ("arrive", "arrive", "arrive", "junk", "revoke", "hold", "release", "enroll_anew", "restart")
CRASHES = st.sampled_from([None, CommitStep.BEFORE, CommitStep.AFTER])
CA = Authorities.make()


class _Crashed(Exception):
    pass


class RoundsUnderRevocation(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.world = World(str(Path(self.folder.name) / "state.db"), ca=CA)
        self.aggregator = self.world.join("main", Role.AGGREGATOR)
        self.members = {name: self.world.join(name) for name in NAMES}
        self.barred: dict[str, Standing] = {}
        self.feed: list[TrustEvent] = []
        self.step = 0
        self.receipts: list[bytes] = []

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.close()
            self.folder.cleanup()

    # -- a round, with whatever happens while it is open ---------------------------------------------

    @rule(
        happens=st.lists(st.tuples(st.sampled_from(HAPPENINGS), st.sampled_from(NAMES)), max_size=8),
        crash=CRASHES,
    )
    def conduct_a_round(self, happens: list[tuple[str, str]], crash: CommitStep | None) -> None:
        self.step += 1
        exchange = Exchange(self.world, self.aggregator, step=self.step)
        opened = exchange.open(*self.members.values())
        assert {str(who.name) for who, _ in opened.refused} == set(self.barred)
        arrived: list[Candidate] = []
        for what, name in happens:
            if what in ("arrive", "junk"):
                candidate = exchange.answer(self.members[name])
                junk = Candidate(candidate.instruction, secrets.token_bytes(64))
                arrived.append(junk if what == "junk" else candidate)
            else:
                getattr(self, what)(name)
        candidates = tuple(arrived)
        with self._crashing(crash):
            exchange.session.seal_round(exchange.key, candidates, ())
        # Asked again, as an aggregator does that got no answer: decided once, whatever happened.
        receipt = exchange.session.seal_round(exchange.key, candidates, ())
        assert exchange.session.seal_round(exchange.key, candidates, ()) == receipt
        assert admitted(receipt_of(receipt)).isdisjoint(self.barred)  # invariant 1
        self.receipts.append(receipt)

    # -- what operators do --------------------------------------------------------------------------

    @rule(name=st.sampled_from(NAMES), crash=CRASHES)
    def revoke(self, name: str, crash: CommitStep | None = None) -> None:
        with self._crashing(crash):
            self.world.revoke(self.members[name])
            crash = None  # nothing was written, so nothing crashed: it was revoked before
        if crash is not CommitStep.BEFORE:
            self.barred[name] = Standing.REVOKED

    @rule(name=st.sampled_from(NAMES))
    def hold(self, name: str) -> None:
        try:
            self.world.op.hold(self.members[name].target, reason=RevocationReason.UNSPECIFIED)
        except Conflict:
            assert self.barred[name] is Standing.REVOKED
        else:
            self.barred[name] = Standing.HELD

    @rule(name=st.sampled_from(NAMES))
    def release(self, name: str) -> None:
        try:
            self.world.op.release(self.members[name].target)
        except Conflict:
            assert self.barred.get(name) is not Standing.HELD
        else:
            assert self.barred.pop(name, Standing.HELD) is Standing.HELD

    @rule(name=st.sampled_from(NAMES), claims=st.sampled_from([*NAMES, "root", "main"]))
    def enroll_anew(self, name: str, claims: str = "root") -> None:
        """With a request that claims somebody else's name, which nobody may read (invariant 6)."""
        signer, node = generate(), generate()
        uri = x509.UniformResourceIdentifier(f"spiffe://{DOMAIN}/participant/{claims}")
        csr = (
            x509.CertificateSigningRequestBuilder()
            .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, claims)]))
            .add_extension(x509.SubjectAlternativeName([uri]), critical=False)
            .sign(SignerKey(signer), SHA256())
            .public_bytes(Encoding.DER)
        )
        evidence = JoinTokenEvidence(self.world.token(name, replace=True).secret)
        proof = node.sign(node_key_challenge(csr, evidence))
        try:
            issued = self.world.authority.enroll(
                EnrollRequest(evidence, csr, spki_der(node.public_key), proof)
            )
        except Refused:
            assert self.barred[name] is Standing.HELD
            return
        assert self.barred.get(name) is not Standing.HELD
        assert issued.spiffe_id == SpiffeId.of(DOMAIN, Role.PARTICIPANT, name)
        certificate = verify_certificate(issued.chain_der, bundle=CA.bundle, at=self.world.clock.now())
        assert certificate.spiffe_id == issued.spiffe_id
        old = self.members[name]
        self.members[name] = Member(
            issued.spiffe_id, signer, issued.chain_der, certificate, node, old.node_id
        )
        self.barred.pop(name, None)
        with pytest.raises(Refused):
            self.world.authority.judge(old.certificate)

    # -- what the world does ------------------------------------------------------------------------

    @rule()
    def restart(self, _name: str = "") -> None:
        self.world.reopen()

    @rule(role=st.sampled_from([Role.PARTICIPANT, Role.AGGREGATOR, Role.OPERATOR]))
    def a_stranger_knocks(self, role: Role) -> None:
        """Invariant 3: our own root certified a name that was never enrolled; and a token is made up."""
        signer, who = generate(), SpiffeId.of(DOMAIN, role, "stranger")
        leaf = CA.issuer.redeem(Draft.of(who, signer.public_key, now=self.world.clock.now()))
        certificate = verify_certificate(
            (leaf, CA.issuer.certificate), bundle=CA.bundle, at=self.world.clock.now()
        )
        with pytest.raises(CertificateRefused) as refusal:
            self.world.authority.session(Caller.of(certificate)).list_rounds()
        assert refusal.value.reason == "unknown-identity"
        made_up = replace(self.world.token("stranger"), secret=secrets.token_bytes(32))
        with pytest.raises(TokenRefused):
            self.world.join("stranger", token=made_up)

    # -- what must always hold ----------------------------------------------------------------------

    @invariant()
    def no_epoch_is_lost_changed_or_skipped(self) -> None:
        events = list(self.world.authority.events(Epoch(0), 1_000, reader=None))
        assert [event.epoch for event in events] == list(range(1, len(events) + 1))
        assert events[: len(self.feed)] == self.feed
        assert self.world.authority.head == len(events)
        self.feed = events
        state = TrustState.replay(events)
        for name, member in self.members.items():
            standing = self.barred.get(name, Standing.ACTIVE)
            assert state.identities[member.spiffe_id].standing is standing
            try:
                self.world.authority.judge(member.certificate)
            except FltrustError:
                assert standing is not Standing.ACTIVE
            else:
                assert standing is Standing.ACTIVE

    @invariant()
    def the_record_agrees_with_the_feed(self) -> None:
        records: list[RoundRecord] = [
            self.world.op.get_round(record.key.run_id, record.key.step)
            for record in self.world.op.list_rounds()
        ]
        log = self.world.op.prove_rounds(RUN) if records else None
        report = verify_chain(records, CA.bundle, log=log, events=self.feed)
        assert report.problems == ()
        assert [record.receipt for record in records if record.receipt is not None] == self.receipts

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


TestRoundsUnderRevocation = RoundsUnderRevocation.TestCase
TestRoundsUnderRevocation.settings = settings(
    max_examples=25,
    stateful_step_count=8,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.reuse, Phase.generate),  # shrinking takes longer than reading eight steps
)
