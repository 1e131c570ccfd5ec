"""Whole agents against a real coordinator: joining, instructing, answering, renewing, being revoked."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from agent_federation import Federation, eventually
from agent_world import content, model

from fltrust.agent import ca_changes
from fltrust.agent.client import AgentClient
from fltrust.agent.host import AgentHost
from fltrust.agent.ports import InstructionDraft, ReceivedInstruction
from fltrust.agent.renew_request import request_renewal
from fltrust.agent.state import AgentState
from fltrust.client import TrustFollower
from fltrust.clock import SystemClock
from fltrust.errors import (
    AgentUnavailable,
    Conflict,
    CoordinatorUnavailable,
    FltrustError,
    PermissionDenied,
    Refusal,
    Revoked,
    StaleView,
    StatementRefused,
    TokenRefused,
)
from fltrust.identity import Name, NodeId, Role, RunId, SpiffeId
from fltrust.keys import generate
from fltrust.pki import Issuer, create_issuing, make_bundle
from fltrust.pki.ca_certificates import create_root_succession
from fltrust.pki.leaf import ca_key_id
from fltrust.revocation import RevocationReason, RevocationTarget
from fltrust.revocation.events import EventKind
from fltrust.revocation.view import ReachPolicy, TrustView
from fltrust.rounds.types import Candidate, CohortMember, RoundKey
from fltrust.updates.dsse import Envelope
from fltrust.updates.signing import MAX_SEALED_SIGNED_BYTES, SignedStatement
from fltrust.updates.statement import Phase, SealedRoundStatement

RUN = RunId(7)
NODE = NodeId(4711)
KEY = RoundKey(RUN, 1, 1, Phase.TRAIN)


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[Federation]:
    made = Federation(tmp_path)
    yield made
    made.close()


def instruct(
    client: AgentClient, site: AgentHost, *, step: int = 1
) -> tuple[ReceivedInstruction, CohortMember]:
    """Have one instruction signed for a site, as TrustedGrid does."""
    identity = site.agent.identity()
    assert identity.node_key is not None
    draft = InstructionDraft(
        run_id=RUN,
        round=step,
        phase=Phase.TRAIN,
        step=step,
        participant=site.spiffe_id,
        node_id=NODE,
        node_key=identity.node_key,
        message_type="train",
        content=content(1),
        model=model(2),
        lifetime=timedelta(hours=1),
    )
    (signed,) = client.sign_instructions((draft,))
    payload = Envelope.from_json(SignedStatement.from_bytes(signed).envelope_json)
    member = CohortMember(site.spiffe_id, NODE, identity.node_key, payload.payload_digest)
    return ReceivedInstruction(signed, content(1), model(2), RUN, NODE, "train"), member


def test_a_round_goes_from_token_to_receipt_through_two_agents(federation: Federation) -> None:
    main = AgentHost(federation.join("main", Role.AGGREGATOR).folder)
    site = AgentHost(federation.join("site-a").folder)
    with main, site:
        main.wait_ready(30)
        site.wait_ready(30)
        grid, app = AgentClient(main.socket_path), AgentClient(site.socket_path)
        received, member = instruct(grid, site)
        opened = grid.open_round(KEY, (member,))
        assert opened.refused == ()
        app.check_instruction(received)  # the feed may still be on its way: the agent waits for it
        update = app.sign_update(received, reply=content(9), reply_type="train")
        receipt = grid.seal_round(KEY, (Candidate(received.signed, update),), ())
        sealed = SealedRoundStatement.from_payload(
            Envelope.from_json(
                SignedStatement.from_bytes(receipt, limit=MAX_SEALED_SIGNED_BYTES).envelope_json
            ).payload
        )
        assert [admitted.participant for admitted in sealed.admitted] == [site.spiffe_id]
        grid.close_run(RUN)
        eventually(lambda: not site.view.is_open(RUN))
        with pytest.raises(StatementRefused) as caught:
            app.check_instruction(received)
        assert caught.value.reason == Refusal.RUN_NOT_OPEN


def test_an_app_follows_the_feed_through_its_agent(federation: Federation) -> None:
    with AgentHost(federation.join("main", Role.AGGREGATOR).folder) as main:
        main.wait_ready(30)
        copy = TrustView(SystemClock())
        with TrustFollower(AgentClient(main.socket_path), copy):
            site = federation.join("site-a").spiffe_id
            eventually(lambda: copy.is_active(site))
            with federation.as_operator() as client:
                client.revoke(
                    RevocationTarget(name=(Role.PARTICIPANT, Name("site-a"))),
                    reason=RevocationReason.KEY_COMPROMISE,
                )
            eventually(lambda: not copy.is_active(site))
            assert copy.epoch == main.view.epoch


def test_a_revoked_participant_hears_of_it_says_it_once_and_signs_no_more(
    federation: Federation, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[Revoked] = []
    main = AgentHost(federation.join("main", Role.AGGREGATOR).folder)
    site = AgentHost(federation.join("site-a").folder, on_revoked=told.append)
    with main, site:
        main.wait_ready(30)
        site.wait_ready(30)
        grid, app = AgentClient(main.socket_path), AgentClient(site.socket_path)
        received, member = instruct(grid, site)
        grid.open_round(KEY, (member,))
        app.check_instruction(received)
        with federation.as_operator() as client:
            client.revoke(
                RevocationTarget(name=(Role.PARTICIPANT, Name("site-a"))),
                reason=RevocationReason.KEY_COMPROMISE,
            )
        eventually(lambda: bool(told))
        with pytest.raises(Revoked):
            app.sign_update(received, reply=content(9), reply_type="train")
        with pytest.raises(Revoked):
            site.wait_ready(1)
    assert len(told) == 1
    assert caplog.text.count("signs nothing any more") == 1


def test_what_a_foreign_domain_says_of_our_serial_and_key_ends_no_agent_of_ours(
    federation: Federation,
) -> None:
    with AgentHost(federation.join("main", Role.AGGREGATOR).folder) as main:
        main.wait_ready(30)
        ours = main.credentials.current.certificate
        with federation.authority.ledger.writing() as work:
            said = work.emit(
                EventKind.REVOKED,
                actor=main.spiffe_id,
                subject=SpiffeId.of("clinic.example", Role.PARTICIPANT, "site-x"),
                serials=(ours.serial,),
                keys=(ours.key_id,),
                reason=RevocationReason.KEY_COMPROMISE,
            )
        eventually(lambda: main.view.epoch >= said.epoch)
        assert main.revoked is None
        main.wait_ready(1)


def test_a_site_that_was_revoked_is_whole_again_after_joining_anew(federation: Federation) -> None:
    old = federation.join("site-a")
    with federation.as_operator() as client:
        client.revoke(
            RevocationTarget(name=(Role.PARTICIPANT, Name("site-a"))),
            reason=RevocationReason.KEY_COMPROMISE,
        )
    with pytest.raises(FltrustError):
        federation.join("site-a")
    new = federation.join("site-a", replace=True)
    assert new.record.node_key != old.record.node_key
    with AgentHost(new.folder) as site:
        site.wait_ready(30)  # the feed replays the old revocation: it is not this certificate's
        assert site.revoked is None
        site.view.judge(site.credentials.current.certificate)


def test_a_token_works_once_and_a_refused_join_leaves_no_state(federation: Federation) -> None:
    from fltrust.agent.join import join

    with federation.as_operator() as client:
        token = client.create_token(Role.PARTICIPANT, Name("site-a"), ttl=timedelta(minutes=5))
    state = join(token, home=federation.home)
    with pytest.raises(TokenRefused):
        join(token, federation.home.parent / "again")
    assert not (federation.home.parent / "again").exists()
    assert AgentState.open(state.folder).spiffe_id.name == "site-a"


def test_certificates_rotate_every_few_seconds_while_the_agent_goes_on(tmp_path: Path) -> None:
    short = {Role.PARTICIPANT: timedelta(seconds=6), Role.AGGREGATOR: timedelta(seconds=6)}
    federation = Federation(tmp_path, lifetimes=short)
    main = AgentHost(federation.join("main", Role.AGGREGATOR).folder)
    site = AgentHost(federation.join("site-a").folder)
    keys: set[str] = {site.credentials.current.signer.key_id}
    enough = threading.Event()

    def count(credentials: object) -> None:
        keys.add(site.credentials.current.signer.key_id)
        if len(keys) >= 3:
            enough.set()

    try:
        with main, site:
            main.wait_ready(30)
            site.wait_ready(30)
            site.credentials.on_rotate(count)
            grid, app = AgentClient(main.socket_path), AgentClient(site.socket_path)
            step = 0
            while not enough.is_set():
                step += 1
                received, member = instruct(grid, site, step=step)
                key = RoundKey(RUN, step, step, Phase.TRAIN)
                grid.open_round(key, (member,))
                app.check_instruction(received)
                update = app.sign_update(received, reply=content(9), reply_type="train")
                grid.seal_round(key, (Candidate(received.signed, update),), ())
                enough.wait(0.3)
            assert step > 1
            saved, chain = AgentState.open(site.state.folder).load_identity()
            assert saved.key_id in keys
            assert chain[0].public_key() == saved.public_key
    finally:
        federation.close()


def test_an_agent_outlives_an_outage_and_refuses_work_while_its_view_is_old(
    federation: Federation,
) -> None:
    policy = ReachPolicy(bound=timedelta(seconds=1))
    main = AgentHost(federation.join("main", Role.AGGREGATOR).folder, policy=policy)
    site = AgentHost(federation.join("site-a").folder, policy=policy)
    with main, site:
        main.wait_ready(30)
        site.wait_ready(30)
        grid, app = AgentClient(main.socket_path), AgentClient(site.socket_path)
        received, member = instruct(grid, site)
        grid.open_round(KEY, (member,))
        app.check_instruction(received)
        federation.stop()
        eventually(lambda: site.view.age() > policy.bound and main.view.age() > policy.bound)
        with pytest.raises(StaleView):
            app.check_instruction(received)
        with pytest.raises(StaleView):
            instruct(grid, site, step=2)
        with pytest.raises(CoordinatorUnavailable):
            site.wait_ready(0.1)
        federation.start()
        eventually(lambda: site.view.age() <= policy.bound)
        app.sign_update(received, reply=content(9), reply_type="train")


def test_an_agent_starts_while_the_coordinator_is_away_and_says_what_is_missing(
    federation: Federation,
) -> None:
    state = federation.join("site-a")
    federation.stop()
    with AgentHost(state.folder) as site:
        assert AgentClient(site.socket_path).identity().spiffe_id == state.spiffe_id
        with pytest.raises(CoordinatorUnavailable):
            site.wait_ready(0.5)
        federation.start()
        site.wait_ready(30)


def test_a_second_agent_on_one_state_is_refused_and_the_first_goes_on(federation: Federation) -> None:
    state = federation.join("site-a")
    with AgentHost(state.folder) as site:
        with pytest.raises(Conflict, match="one is running"):
            AgentHost(state.folder).start()
        assert AgentClient(site.socket_path).identity().spiffe_id == state.spiffe_id
    assert not site.socket_path.exists()
    with pytest.raises(AgentUnavailable):
        AgentClient(site.socket_path).identity()
    with AgentHost(state.folder):  # the lock ended with the first
        pass


def test_an_operator_has_no_agent(federation: Federation) -> None:
    with pytest.raises(PermissionDenied):
        AgentHost(federation.operator.folder)


def test_a_node_key_that_was_swapped_is_refused(federation: Federation) -> None:
    state = federation.join("site-a")
    state.node_key_path.write_bytes(generate().to_openssh())
    with pytest.raises(Conflict, match="node key"):
        AgentHost(state.folder).start()
    state.lock().release()  # nothing stays behind


def test_stopping_twice_is_stopping_once(federation: Federation) -> None:
    host = AgentHost(federation.join("site-a").folder)
    host.start()
    host.stop()
    host.stop()
    names = {thread.name for thread in threading.enumerate()}
    assert not names & {"fltrust-renewer", "fltrust-follower", "fltrust-agent-accept"}


def end_the_ca(federation: Federation) -> None:
    """Revoke the issuing CA and put another in force, as an operation of the operators does."""
    old, signer = federation.authority.ca.issuer, generate()
    certificate = create_issuing(
        root=federation.bundle.roots[0],
        root_signer=federation.root_signer,
        public_key=signer.public_key,
        now=federation.clock.now(),
    )
    with federation.authority.ledger.writing() as work:
        work.emit(
            EventKind.ISSUER_REVOKED,
            actor=federation.operator.spiffe_id,
            domain=federation.bundle.domain,
            issuer=ca_key_id(old.certificate.public_key()),
        )
    federation.authority.ca.replace(issuer=Issuer(certificate=certificate, signer=signer))


def test_when_the_ca_behind_it_ends_an_agent_comes_over_by_itself_and_another_that_was_off_as_well(
    federation: Federation,
) -> None:
    away = federation.join("site-b").folder
    with AgentHost(federation.join("site-a").folder) as site:
        site.wait_ready(20)
        end_the_ca(federation)
        ca = federation.authority.ca.issuer.certificate
        eventually(lambda: site.credentials.current.certificate.chain[-1] == ca)
        site.wait_ready(20)
        with AgentHost(away) as other:
            other.wait_ready(30)
            assert other.credentials.current.certificate.chain[-1] == ca
            assert (site.revoked, other.revoked) == (None, None)


def test_new_roots_reach_an_agent_that_runs(federation: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ca_changes, "NEW_ROOTS_WITHIN", timedelta(seconds=1))
    with AgentHost(federation.join("site-a").folder) as site:
        site.wait_ready(20)
        before = federation.bundle
        succession = create_root_succession(
            old=before.roots[0],
            old_signer=federation.root_signer,
            new_signer=generate(),
            now=federation.clock.now(),
        )
        bundle = make_bundle(before.domain, [*before.roots, succession.new], sequence=before.sequence + 1)
        federation.authority.ca.replace(bundle=bundle)
        with federation.authority.ledger.writing() as work:
            work.emit(
                EventKind.BUNDLE_CHANGED,
                actor=federation.operator.spiffe_id,
                domain=before.domain,
                sequence=bundle.sequence,
            )
        # Used at once, then written down: what is on disk is the later of the two.
        eventually(lambda: site.state.load_bundle() == bundle)
        assert site.credentials.current.bundle.roots == bundle.roots


@pytest.mark.slow
def test_a_node_that_slept_while_its_certificate_ran_out_comes_back_by_itself(tmp_path: Path) -> None:
    federation = Federation(tmp_path, lifetimes={Role.PARTICIPANT: timedelta(seconds=5)})
    try:
        folder = federation.join("site-a").folder
        first = AgentState.open(folder).load_chain()[0]
        eventually(lambda: federation.clock.now() > first.not_valid_after_utc)
        with AgentHost(folder) as site:
            site.wait_ready(20)
        with federation.as_operator() as client:
            assert client.get_enrollment(site.spiffe_id).evidence == "lapsed-certificate"
    finally:
        federation.close()


def test_a_running_agent_renews_when_its_machine_asks(federation: Federation) -> None:
    with AgentHost(federation.join("site-a").folder) as site:
        site.wait_ready(20)
        before = site.credentials.current
        request_renewal(site.state.folder)
        eventually(lambda: site.credentials.current is not before)
        assert site.credentials.current.certificate.serial != before.certificate.serial
