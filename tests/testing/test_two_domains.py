"""Participants of two trust domains in one round, each under its own CA; without a network."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg

from fltrust.errors import FltrustError
from fltrust.flower import TrustedClientApp, TrustedStrategy
from fltrust.identity import Role, SpiffeId
from fltrust.revocation.events import RevocationReason
from fltrust.revocation.ports import RevocationTarget
from fltrust.revocation.state import Standing
from fltrust.testing import FakeClock, LocalFederation, ScratchCoordinator
from fltrust.updates import SignedStatement, Verifier
from fltrust.updates.signing import MAX_SEALED_SIGNED_BYTES

HOST, CLINIC = "hospitals.example", "clinic.example"
WARD = SpiffeId.of(CLINIC, Role.PARTICIPANT, "ward-1")


def app() -> TrustedClientApp:
    made = TrustedClientApp()

    @made.train()
    def train(message: Message, context: Context) -> Message:
        arrays = ArrayRecord({"w": Array(message.content["arrays"]["w"].numpy() + np.float32(1))})
        return Message(
            RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": 1})}), reply_to=message
        )

    return made


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def clinic(clock: FakeClock) -> Iterator[ScratchCoordinator]:
    with ScratchCoordinator(CLINIC, clock=clock) as made:
        yield made


@pytest.fixture
def federation(clinic: ScratchCoordinator, clock: FakeClock) -> Iterator[LocalFederation]:
    with LocalFederation(app(), ["site-a"], domain=HOST, clock=clock, guests={"ward-1": clinic}) as made:
        yield made


def _round(federation: LocalFederation) -> list[str]:
    """Run one round; who is in it."""
    strategy = TrustedStrategy(FedAvg(fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=1))
    start = ArrayRecord({"w": Array(np.zeros(2, dtype=np.float32))})
    strategy.start(federation.grid, initial_arrays=start, num_rounds=1)
    record = federation.rounds()[-1]
    assert record.receipt is not None
    signed = SignedStatement.from_bytes(record.receipt, limit=MAX_SEALED_SIGNED_BYTES)
    receipt = Verifier(federation.coordinator.bundle).verify_receipt(
        signed, at=federation.clock.now(), judge=lambda _certificate: None
    )
    return sorted(str(entry.participant) for entry in receipt.statement.admitted)


def _standing(federation: LocalFederation) -> Standing:
    return federation.coordinator.authority.ledger.identities()[WARD].standing


def test_a_round_admits_participants_of_both_domains_under_their_own_names(
    federation: LocalFederation,
) -> None:
    assert _round(federation) == [
        "spiffe://clinic.example/participant/ward-1",
        "spiffe://hospitals.example/participant/site-a",
    ]


def test_two_participants_of_one_name_and_two_domains_are_two(
    clinic: ScratchCoordinator, clock: FakeClock
) -> None:
    clinic.enroll("site-a")
    host = ScratchCoordinator(HOST, clock=clock)
    with host, LocalFederation(app(), ["site-b"], coordinator=host, guests={"ward-1": clinic}) as federation:
        host.enroll("ward-1")
        assert len(_round(federation)) == 2
        federation.coordinator.revoke("ward-1")  # our own, who is somebody else
        assert _standing(federation) is Standing.ACTIVE


def test_who_is_revoked_at_home_is_out_of_the_round_that_is_under_way(
    federation: LocalFederation, clinic: ScratchCoordinator
) -> None:
    federation["site-a"].before = lambda _message: _ignore(clinic.revoke("ward-1"))
    assert _round(federation) == ["spiffe://hospitals.example/participant/site-a"]
    assert _standing(federation) is Standing.REVOKED


def test_who_is_revoked_here_is_out_whatever_its_home_says(federation: LocalFederation) -> None:
    federation.coordinator.as_operator().revoke(
        RevocationTarget(foreign=WARD), reason=RevocationReason.PRIVILEGE_WITHDRAWN
    )
    assert _round(federation) == ["spiffe://hospitals.example/participant/site-a"]


def test_a_hold_at_home_is_one_here_and_ends_with_it(
    federation: LocalFederation, clinic: ScratchCoordinator
) -> None:
    clinic.hold("ward-1")
    assert _round(federation) == ["spiffe://hospitals.example/participant/site-a"]
    clinic.release("ward-1")
    assert len(_round(federation)) == 2


def test_once_its_home_is_not_heard_for_too_long_nobody_of_it_is_let_in(
    federation: LocalFederation, clinic: ScratchCoordinator, clock: FakeClock
) -> None:
    (tie,) = federation.coordinator._ties
    clinic.is_reachable = False
    clock.advance(timedelta(seconds=25))
    tie.settle()
    federation.coordinator.beat()
    assert len(_round(federation)) == 2
    clock.advance(timedelta(seconds=10))
    tie.settle()
    federation.coordinator.beat()
    assert _round(federation) == ["spiffe://hospitals.example/participant/site-a"]
    clinic.is_reachable = True
    tie.settle()
    federation.coordinator.beat()
    assert len(_round(federation)) == 2


def test_the_guest_s_own_agent_takes_a_no_of_its_home_at_once(
    federation: LocalFederation, clinic: ScratchCoordinator
) -> None:
    """Even where the host has not heard of it."""
    federation.coordinator._ties[0].close()
    clinic.revoke("ward-1")
    assert _standing(federation) is Standing.ACTIVE
    assert _round(federation) == ["spiffe://hospitals.example/participant/site-a"]
    assert set(federation["ward-1"].agent.refusals) == {"revoked"}


def test_the_guest_s_agent_obeys_no_aggregator_of_its_own_domain_in_the_host_s_rounds(
    federation: LocalFederation, clinic: ScratchCoordinator
) -> None:
    evil = clinic.enroll("evil", Role.AGGREGATOR)
    assert evil.spiffe_id.domain == CLINIC
    agent = federation["ward-1"].agent
    _round(federation)
    received = federation["ward-1"].received[-1]
    with pytest.raises(FltrustError):
        agent.check_instruction(_resigned(received, evil, federation))


def test_an_agent_that_is_no_guest_obeys_nobody_of_another_domain(
    federation: LocalFederation, clinic: ScratchCoordinator
) -> None:
    evil = clinic.enroll("evil", Role.AGGREGATOR)
    _round(federation)
    received = federation["site-a"].received[-1]
    with pytest.raises(FltrustError):
        federation["site-a"].agent.check_instruction(_resigned(received, evil, federation))


def _resigned(message: Message, by: object, federation: LocalFederation) -> object:
    """The instruction that came, signed again by somebody else."""
    from dataclasses import replace

    from fltrust.agent.ports import ReceivedInstruction
    from fltrust.flower.records import detach, to_content
    from fltrust.identity import NodeId
    from fltrust.testing import ScratchIdentity
    from fltrust.updates import content_digest, model_digest, sign_statement, unverified_statement

    assert isinstance(by, ScratchIdentity)
    bare, carried = detach(message.content)
    assert carried is not None
    said = unverified_statement(SignedStatement.from_bytes(carried.statement))
    pair = by.credentials
    statement = replace(  # type: ignore[type-var]
        said,
        domain=by.spiffe_id.domain,
        aggregator=by.spiffe_id,
        certificate=pair.certificate.fingerprint,
    )
    forged = sign_statement(statement, signer=pair.signer, chain=pair.chain_der)
    content = to_content(bare)
    return ReceivedInstruction(
        forged.to_bytes(),
        content_digest(content),
        model_digest(content),
        federation.run_id,
        NodeId(message.metadata.dst_node_id),
        message.metadata.message_type,
    )


def _ignore(_value: object) -> None:
    return None
