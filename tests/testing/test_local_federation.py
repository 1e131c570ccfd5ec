"""What is shipped for users' own tests does what it says."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg

from fltrust.errors import Conflict, CoordinatorUnavailable, NotFound, Refusal, Revoked
from fltrust.flower import TrustedClientApp, TrustedStrategy
from fltrust.identity import Role, RunId
from fltrust.pki import verify_certificate
from fltrust.revocation.view import TrustView
from fltrust.testing import FakeClock, LocalFederation, ScratchCa, ScratchCoordinator, scratch_identity


def app() -> TrustedClientApp:
    made = TrustedClientApp()

    @made.train()
    def train(message: Message, context: Context) -> Message:
        step = float(context.node_config.get("step", 1))
        arrays = ArrayRecord({"w": Array(message.content["arrays"]["w"].numpy() + np.float32(step))})
        context.state["seen"] = MetricRecord({"rounds": 1})
        metrics = MetricRecord({"num-examples": 1})
        return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)

    return made


def run(federation: LocalFederation, rounds: int = 1) -> list[float]:
    strategy = TrustedStrategy(FedAvg(fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=1))
    start = ArrayRecord({"w": Array(np.zeros(2, dtype=np.float32))})
    result = strategy.start(federation.grid, initial_arrays=start, num_rounds=rounds)
    found: list[float] = result.arrays["w"].numpy().tolist()
    return found


def test_five_trusted_rounds_with_four_participants() -> None:
    with LocalFederation(app(), participants=4) as federation:
        assert run(federation, rounds=5) == [5.0, 5.0]
        assert [len(r.evidence) for r in federation.rounds()] == [4] * 5


def test_participants_have_names_configs_and_states_of_their_own() -> None:
    config = {"north": {"step": 3}}
    with LocalFederation(app(), ["north", "south"], node_config=config, run_config={"lr": 0.1}) as federation:
        assert run(federation) == [2.0, 2.0]  # (3 + 1) / 2
        assert federation["north"].context.node_config["partition-id"] == 0
        assert federation["south"].context.run_config["lr"] == 0.1
        assert "seen" in federation["north"].context.state
        with pytest.raises(NotFound, match="north, south"):
            _ = federation["west"]


def test_two_federations_may_live_in_one_process_and_share_a_coordinator() -> None:
    with ScratchCoordinator() as coordinator:
        with (
            LocalFederation(app(), ["a", "b"], coordinator=coordinator) as one,
            LocalFederation(app(), ["c", "d"], coordinator=coordinator) as two,
        ):
            assert run(one) == run(two) == [1.0, 1.0]
        assert len(coordinator.rounds()) == 2


def test_a_revocation_is_known_everywhere_when_the_call_returns() -> None:
    with LocalFederation(app(), 3) as federation:
        (event,) = federation.revoke("site-1")
        assert all(p.view.epoch == event.epoch for p in federation.participants)
        assert not federation["site-1"].view.is_active(federation["site-1"].spiffe_id)


def test_a_federation_can_be_on_disk(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    url = f"sqlite:///{tmp_path}/state.db"
    with LocalFederation(app(), 2, url=url, journals=tmp_path) as federation:
        run(federation)
    assert (tmp_path / "site-0.sqlite").exists()
    made = federation.coordinator
    with ScratchCoordinator(url=url, ca=made.ca, notary=made.notary) as again:
        assert len(again.rounds()) == 1


def test_closing_twice_does_no_harm_and_closes_the_run() -> None:
    with ScratchCoordinator() as coordinator:
        federation = LocalFederation(app(), 1, coordinator=coordinator, run_id=7)
        run(federation)
        assert federation["site-0"].view.is_open(RunId(7))
        federation.close()
        federation.close()
        assert not federation["site-0"].view.is_open(RunId(7))


def test_the_clock_moves_when_told_and_certificates_run_out() -> None:
    clock = FakeClock()
    with LocalFederation(app(), 2, clock=clock) as federation:
        run(federation)
        clock.advance(timedelta(hours=2))
        federation.coordinator.beat()
        with pytest.raises(Exception, match="certificate"):
            run(federation)


def test_an_outage_is_played() -> None:
    with LocalFederation(app(), 1) as federation:
        federation.coordinator.is_reachable = False
        with pytest.raises(CoordinatorUnavailable):
            federation.grid.aggregator_agent.close_run(federation.run_id)


def test_scratch_identities_are_real_certificates_of_a_scratch_ca() -> None:
    ca = ScratchCa.make("lab.example")
    identity = scratch_identity("main", Role.AGGREGATOR, ca=ca)
    chain = identity.credentials.chain_der
    verified = verify_certificate(chain, bundle=ca.bundle, at=identity.credentials.certificate.not_before)
    assert str(verified.spiffe_id) == "spiffe://lab.example/aggregator/main"
    assert scratch_identity("site-a").node_key != scratch_identity("site-a").node_key


def test_a_scratch_coordinator_enrolls_as_the_real_one_does() -> None:
    with ScratchCoordinator() as coordinator:
        site = coordinator.enroll("site-a")
        with pytest.raises(Conflict):
            coordinator.enroll("site-a")
        view = TrustView(coordinator.clock)
        coordinator.keep_current(view, reader=None)
        assert view.is_active(site.spiffe_id)
        coordinator.hold("site-a")
        with pytest.raises(Revoked) as caught:
            view.judge(site.credentials.certificate)
        assert caught.value.reason == Refusal.HELD
        coordinator.release("site-a")
        view.judge(site.credentials.certificate)
        coordinator.revoke("site-a")
        assert coordinator.enroll("site-a", replace=True).spiffe_id == site.spiffe_id


def test_importing_it_starts_nothing_and_needs_no_torch_ray_or_network() -> None:
    code = (
        "import sys, threading, fltrust.testing, fltrust.flower;"
        "bad = {'torch', 'ray', 'psycopg'} & set(sys.modules);"
        "assert not bad, bad;"
        "assert threading.active_count() == 1"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
