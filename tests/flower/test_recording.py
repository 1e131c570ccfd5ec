"""Lineage as a run goes: every aggregate recorded, in order, and loud where it cannot be."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from app_world import QUICK, answering, honest, model, train, weights
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import strategy as flower
from flwr.serverapp.strategy import FedAvg

from fltrust.agent.aggregator import AggregatorCore
from fltrust.agent.client import AgentClient
from fltrust.agent.handlers import aggregator_handlers
from fltrust.agent.recorder import read_provenance
from fltrust.agent.server import AgentServer
from fltrust.artifacts.evidence import Trust, verify_bundle
from fltrust.artifacts.lineage import Lineage, SignedProvenance, verify_lineage
from fltrust.artifacts.provenance import BuildType, Provenance
from fltrust.artifacts.trustfile import TrustFile
from fltrust.errors import CoordinatorUnavailable, Malformed, NotFound, PermissionDenied
from fltrust.flower import TrustedGrid, TrustedStrategy, TrustPolicy, save_model
from fltrust.flower.policy import OnFailure, QuorumPolicy
from fltrust.flower.records import tensor_set_of_record
from fltrust.flower.trusting import trusted_grid
from fltrust.identity import SpiffeId
from fltrust.revocation.view import ReachMode, ReachPolicy
from fltrust.testing import LocalFederation

POLICY = TrustPolicy(waits=QUICK)


def fedavg(**options: Any) -> FedAvg:
    return FedAvg(**{"fraction_evaluate": 0.0, **options})


def said(bundles: Iterable[bytes]) -> list[Provenance]:
    return [read_provenance(bundle)[0] for bundle in bundles]


def verified(federation: LocalFederation, bundles: Iterable[bytes]) -> Lineage:
    """With real signatures, timestamps and log entries."""
    trust = Trust.of(TrustFile.parse(federation.trust_file()))

    def verify(bundle: bytes) -> SignedProvenance:
        found = verify_bundle(bundle, trust=trust)
        assert found.log_index is not None
        return SignedProvenance(found.payload, SpiffeId.parse(found.signer), found.signed_at, found.log_index)

    return verify_lineage(bundles, head=None, verify_bundle=verify, domain=federation.signer.domain)


def test_every_model_of_a_run_is_recorded_with_what_it_was_made_of() -> None:
    with LocalFederation(honest(), 3) as federation:
        strategy = TrustedStrategy(fedavg(), policy=POLICY)
        result = strategy.start(federation.grid, initial_arrays=model(1, 2, 3, 4), num_rounds=2)
        lineage = verified(federation, strategy.lineage)
        receipts = {report.key.step: report for report in strategy.reports}
    first, second, start = (
        lineage.steps[1].provenance,
        lineage.steps[0].provenance,
        lineage.steps[2].provenance,
    )
    assert second.tensors == tensor_set_of_record(result.arrays)
    assert [step.provenance.build_type for step in lineage.steps] == [
        BuildType.FEDERATED_ROUND,
        BuildType.FEDERATED_ROUND,
        BuildType.INITIAL_MODEL,
    ]
    assert start.tensors == tensor_set_of_record(model(1, 2, 3, 4))
    assert (first.previous, first.trained_from) == (
        start.as_input(log_index=lineage.steps[2].log_index),
        None,
    )
    assert {u.public_name.rpartition("/")[2] for u in first.updates} == {"site-0", "site-1", "site-2"}
    assert {u.examples for u in first.updates} == {"1"}
    assert first.builder == federation.aggregator.spiffe_id
    assert first.sealed is not None
    assert int(first.sealed.epoch) == receipts[first.step].epoch


def test_the_file_that_is_saved_has_the_tensors_that_are_recorded(tmp_path: Path) -> None:
    from fltrust.artifacts.measuring import build_manifest

    with LocalFederation(honest(), 2) as federation:
        strategy = TrustedStrategy(fedavg(), policy=POLICY)
        result = strategy.start(federation.grid, initial_arrays=model(), num_rounds=1)
    save_model(result.arrays, tmp_path / "m.safetensors")
    (file,) = build_manifest(tmp_path / "m.safetensors").tensors.values()
    assert file.tensors.set == said(strategy.lineage)[0].tensors


def test_a_second_strategy_goes_on_from_the_first_ones_model() -> None:
    with LocalFederation(honest(), 2) as federation:
        first = TrustedStrategy(fedavg(), policy=POLICY)
        result = first.start(federation.grid, initial_arrays=model(), num_rounds=1)
        second = TrustedStrategy(fedavg(), policy=POLICY)
        second.start(federation.grid, initial_arrays=result.arrays, num_rounds=1)
        lineage = verified(federation, [*second.lineage, *first.lineage])
    assert lineage.rounds == 2
    assert len(lineage.runs) == 1
    again = said(second.lineage)[-1]
    assert again.is_initial
    assert again.step > 0


def test_two_runs_that_begin_alike_are_not_each_others_lineage() -> None:
    with LocalFederation(honest(), 2) as federation:
        TrustedStrategy(fedavg(), policy=POLICY).start(federation.grid, initial_arrays=model(), num_rounds=1)
        coordinator = federation.coordinator
        with LocalFederation(honest(), ["x", "y"], coordinator=coordinator, run_id=5) as other:
            strategy = TrustedStrategy(fedavg(), policy=POLICY)
            strategy.start(other.grid, initial_arrays=model(), num_rounds=1)
            assert said(strategy.lineage)[-1].previous is None


def test_an_ensemble_of_trees_is_recorded_as_its_bytes() -> None:
    def grow(message: Message) -> RecordDict:
        arrays = ArrayRecord([np.frombuffer(b'{"learner": {}}', dtype=np.uint8)])
        return RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": 1})})

    class Concat(flower.FedXgbBagging):
        """Real bagging needs real trees; what is recorded is what comes out."""

        def aggregate_train(self, _round: int, replies: Iterable[Message]) -> Any:
            contents = [reply.content for reply in replies if not reply.has_error()]
            joined = b"".join(c["arrays"]["0"].numpy().tobytes() for c in contents)  # type: ignore[index]
            return ArrayRecord([np.frombuffer(joined, dtype=np.uint8)]), MetricRecord()

    with LocalFederation(answering(grow), 2) as federation:
        strategy = TrustedStrategy(Concat(fraction_evaluate=0.0), policy=POLICY)
        start = ArrayRecord([np.frombuffer(b"", dtype=np.uint8)])
        result = strategy.start(federation.grid, initial_arrays=start, num_rounds=1)
        lineage = verified(federation, strategy.lineage)
    assert lineage.head.provenance.tensors == tensor_set_of_record(result.arrays)


def test_a_round_that_nothing_came_of_leaves_no_aggregate() -> None:
    with LocalFederation(honest(), 2) as federation:
        policy = TrustPolicy(waits=QUICK, quorum=QuorumPolicy(min_updates=3, on_failure=OnFailure.KEEP_MODEL))
        strategy = TrustedStrategy(fedavg(), policy=policy)
        strategy.start(federation.grid, initial_arrays=model(), num_rounds=2)
    assert [statement.is_initial for statement in said(strategy.lineage)] == [True]


def test_a_strategy_that_sends_another_model_out_says_what_it_was_trained_from() -> None:
    class Shifted(FedAvg):
        def configure_train(self, server_round: int, arrays: ArrayRecord, config: Any, grid: Any) -> Any:
            other = ArrayRecord({key: Array(a.numpy() + 10) for key, a in arrays.items()})
            return super().configure_train(server_round, other, config, grid)

    with LocalFederation(honest(), 2) as federation:
        strategy = TrustedStrategy(Shifted(fraction_evaluate=0.0), policy=POLICY)
        strategy.start(federation.grid, initial_arrays=model(), num_rounds=2)
        lineage = verified(federation, strategy.lineage)
    for step in lineage.steps[:-1]:
        assert step.provenance.trained_from is not None
        assert step.provenance.previous is not None


def test_the_strategy_is_left_as_it_was() -> None:
    with LocalFederation(honest(), 2) as federation:
        inner = fedavg()
        TrustedStrategy(inner, policy=POLICY).start(federation.grid, initial_arrays=model(), num_rounds=1)
        assert "aggregate_train" not in vars(inner)
        mine = inner.aggregate_train
        inner.aggregate_train = mine  # type: ignore[method-assign]
        strategy = TrustedStrategy(inner, policy=POLICY)
        strategy.start(federation.grid, initial_arrays=model(), num_rounds=1)
        assert vars(inner)["aggregate_train"] is mine
        assert len(strategy.lineage) == 2


def test_lineage_can_be_turned_off() -> None:
    with LocalFederation(honest(), 2) as federation:
        strategy = TrustedStrategy(fedavg(), policy=TrustPolicy(waits=QUICK, lineage=False))
        strategy.start(federation.grid, initial_arrays=model(), num_rounds=1)
        assert strategy.lineage == ()
    assert TrustPolicy.from_config({"fltrust-lineage": False}).lineage is False


def test_it_is_recorded_over_the_agents_socket_as_well(tmp_path: Path) -> None:
    with LocalFederation(honest(), 2) as federation:
        core = federation.grid.aggregator_agent
        assert isinstance(core, AggregatorCore)
        server = AgentServer(
            tmp_path / "run" / "agent.sock", handlers=aggregator_handlers(core), log=core.log
        )
        server.start()
        try:
            client = AgentClient(server.path)
            with TrustedGrid(federation.grid, agent=client, policy=POLICY, clock=federation.clock) as grid:
                strategy = TrustedStrategy(fedavg(), policy=POLICY)
                strategy.start(grid, initial_arrays=model(), num_rounds=2)
        finally:
            server.stop()
        assert verified(federation, strategy.lineage).rounds == 2


# --- an app's own loop


def asking(node: int, arrays: ArrayRecord, server_round: int) -> Message:
    config = ConfigRecord({"server-round": server_round})
    return Message(RecordDict({"arrays": arrays, "config": config}), node, "train")


def test_an_apps_own_loop_records_what_it_makes() -> None:
    with LocalFederation(honest(), 2) as federation, trusted_grid(federation.grid, POLICY) as grid:
        arrays = model()
        assert len(grid.record_aggregate(0, arrays)) == 1
        for server_round in (1, 2):
            messages = [asking(node, arrays, server_round) for node in grid.get_node_ids()]
            replies = [r for r in grid.send_and_receive(messages) if not r.has_error()]
            found = [reply.content["arrays"]["w"].numpy() for reply in replies]  # type: ignore[index,union-attr]
            arrays = ArrayRecord({"w": Array(np.mean(found, axis=0))})
            bundles = grid.record_aggregate(server_round, arrays)
        assert verified(federation, bundles).rounds == 2


def test_a_model_of_several_exchanges_is_not_recorded_and_that_is_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with LocalFederation(honest(), 2) as federation, trusted_grid(federation.grid, POLICY) as grid:
        grid.record_aggregate(0, model())
        for node in grid.get_node_ids():
            list(grid.send_and_receive([asking(node, model(), 1)]))
        with caplog.at_level(logging.ERROR, logger="fltrust.flower"):
            assert len(grid.record_aggregate(1, model(1, 1, 1, 1))) == 1
    assert "made of 2 exchanges" in caplog.text


# --- when the coordinator is away


def recording_fails(monkeypatch: pytest.MonkeyPatch, make: Callable[[int], Exception | None]) -> list[int]:
    """Let `record_aggregate` fail by the number of the call, from 1."""
    calls: list[int] = []
    real = AggregatorCore.record_aggregate

    def record(self: AggregatorCore, draft: Any) -> bytes:
        calls.append(draft.step)
        error = make(len(calls))
        if error is not None:
            raise error
        return real(self, draft)

    monkeypatch.setattr(AggregatorCore, "record_aggregate", record)
    return calls


def test_what_could_not_be_recorded_is_recorded_before_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    soft = TrustPolicy(
        waits=QUICK,
        reach=ReachPolicy(mode=ReachMode.SOFT_FAIL, soft_bound=timedelta(hours=1)),
    )
    with LocalFederation(honest(), 2, reach=soft.reach) as federation:
        began = time.monotonic()
        recording_fails(
            monkeypatch,
            # The first aggregate waits out the patience of one second; the next one finds somebody.
            lambda n: CoordinatorUnavailable("away") if n > 1 and time.monotonic() < began + 1.3 else None,
        )
        strategy = TrustedStrategy(fedavg(), policy=soft)
        strategy.start(federation.grid, initial_arrays=model(), num_rounds=3)
        assert verified(federation, strategy.lineage).rounds == 3


def test_what_could_not_be_recorded_to_the_end_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    soft = TrustPolicy(waits=QUICK, reach=ReachPolicy(mode=ReachMode.BEST_EFFORT))
    with LocalFederation(honest(), 2, reach=soft.reach) as federation:
        recording_fails(monkeypatch, lambda n: CoordinatorUnavailable("away") if n > 1 else None)
        strategy = TrustedStrategy(fedavg(), policy=soft)
        with caplog.at_level(logging.ERROR, logger="fltrust.flower"):
            result = strategy.start(federation.grid, initial_arrays=model(), num_rounds=1)
    assert weights(result.arrays) == [1.0] * 4
    assert len(strategy.lineage) == 1
    assert "out of reach to the end" in caplog.text


def test_hard_fail_ends_the_run_when_an_aggregate_cannot_be_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    with LocalFederation(honest(), 2) as federation:
        recording_fails(monkeypatch, lambda n: CoordinatorUnavailable("away") if n > 1 else None)
        strategy = TrustedStrategy(fedavg(), policy=POLICY)
        with pytest.raises(CoordinatorUnavailable):
            strategy.start(federation.grid, initial_arrays=model(), num_rounds=2)


def test_a_refusal_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    with LocalFederation(honest(), 2) as federation:
        recording_fails(monkeypatch, lambda n: PermissionDenied("no") if n > 1 else None)
        with pytest.raises(PermissionDenied):
            train(federation, rounds=1)


def test_a_coordinator_without_a_notary_keeps_no_lineage_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with LocalFederation(honest(), 2) as federation:
        recording_fails(monkeypatch, lambda _n: NotFound("no notary", reason="no-notary"))
        strategy = TrustedStrategy(fedavg(), policy=POLICY)
        with caplog.at_level(logging.ERROR, logger="fltrust.flower"):
            result = strategy.start(federation.grid, initial_arrays=model(), num_rounds=2)
    assert weights(result.arrays) == [2.0] * 4
    assert strategy.lineage == ()
    assert "the lineage of run" in caplog.text


def test_a_legacy_app_records_nothing() -> None:
    """Each of its messages is a round of its own."""
    with (
        LocalFederation(honest(), 2) as federation,
        trusted_grid(federation.grid, POLICY, is_legacy=True) as grid,
    ):
        assert grid.record_aggregate(0, model()) == ()


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(Malformed):
        TrustPolicy.from_config({"fltrust-lineages": True})
