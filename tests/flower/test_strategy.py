"""`TrustedStrategy` around every strategy of Flower's, and around one's own."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from app_world import QUICK, answering, honest, model, plus_one, train, weights
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.mod import LocalDpMod, adaptiveclipping_mod, fixedclipping_mod, message_size_mod
from flwr.serverapp import Grid
from flwr.serverapp import strategy as flower
from flwr.serverapp.strategy import FedAvg, Strategy

from fltrust.agent.aggregator import AggregatorCore
from fltrust.agent.handlers import aggregator_handlers
from fltrust.agent.server import AgentServer
from fltrust.errors import AgentUnavailable, Conflict
from fltrust.flower import TrustedClientApp, TrustedGrid, TrustedStrategy, trusting
from fltrust.flower.policy import TrustPolicy
from fltrust.flower.trusting import trusted_grid
from fltrust.testing import LocalFederation, LocalGrid, mischief
from fltrust.updates import StructurePolicy

POLICY = TrustPolicy(waits=QUICK)
_FEW = {"fraction_evaluate": 1.0}

STRATEGIES: dict[str, Any] = {
    "FedAvg": lambda: flower.FedAvg(**_FEW),
    "FedAvgM": lambda: flower.FedAvgM(**_FEW),
    "FedAdagrad": lambda: flower.FedAdagrad(**_FEW),
    "FedAdam": lambda: flower.FedAdam(**_FEW),
    "FedYogi": lambda: flower.FedYogi(**_FEW),
    "FedMedian": lambda: flower.FedMedian(**_FEW),
    "FedProx": lambda: flower.FedProx(proximal_mu=0.1, **_FEW),
    "FedTrimmedAvg": lambda: flower.FedTrimmedAvg(**_FEW),
    "QFedAvg": lambda: flower.QFedAvg(client_learning_rate=0.1, q=0.2, train_loss_key="loss", **_FEW),
    "Krum": lambda: flower.Krum(num_malicious_nodes=1, **_FEW),
    "MultiKrum": lambda: flower.MultiKrum(num_malicious_nodes=1, num_nodes_to_select=2, **_FEW),
    "Bulyan": lambda: flower.Bulyan(num_malicious_nodes=0, **_FEW),
    "DifferentialPrivacyServerSideFixedClipping": lambda: flower.DifferentialPrivacyServerSideFixedClipping(
        flower.FedAvg(**_FEW), noise_multiplier=0.1, clipping_norm=10.0, num_sampled_clients=4
    ),
    "DifferentialPrivacyClientSideFixedClipping": lambda: flower.DifferentialPrivacyClientSideFixedClipping(
        flower.FedAvg(**_FEW), noise_multiplier=0.1, clipping_norm=10.0, num_sampled_clients=4
    ),
    "DifferentialPrivacyServerSideAdaptiveClipping": (
        lambda: flower.DifferentialPrivacyServerSideAdaptiveClipping(
            flower.FedAvg(**_FEW), noise_multiplier=0.1, num_sampled_clients=4
        )
    ),
    "DifferentialPrivacyClientSideAdaptiveClipping": (
        lambda: flower.DifferentialPrivacyClientSideAdaptiveClipping(
            flower.FedAvg(**_FEW), noise_multiplier=0.1, num_sampled_clients=4
        )
    ),
}
_XGBOOST = {"FedXgbBagging", "FedXgbCyclic"}  # their models are trees: below
_BASES = {"Strategy", "Result", "FedOpt"}


def test_every_strategy_of_flowers_is_tried_here() -> None:
    concrete = {name for name in flower.__all__ if name not in _BASES}
    assert concrete - _XGBOOST == set(STRATEGIES)


def _mods(name: str) -> TrustedClientApp:
    if "ClientSide" not in name:
        return honest()
    app, mod = TrustedClientApp(), adaptiveclipping_mod if "Adaptive" in name else fixedclipping_mod
    plain = honest()
    app.train(mods=[mod])(lambda message, context: Message(plus_one(message), reply_to=message))  # noqa: ARG005
    app.evaluate()(lambda message, context: ClientApp.__call__(plain, message, context))
    return app


@pytest.mark.parametrize("name", STRATEGIES)
def test_it_runs_under_trust(name: str) -> None:
    with LocalFederation(_mods(name), 4) as federation:
        strategy = TrustedStrategy(STRATEGIES[name](), policy=POLICY)
        result = strategy.start(federation.grid, initial_arrays=model(1, 2, 3, 4), num_rounds=2)
    assert np.isfinite(weights(result.arrays)).all()
    assert [len(r.admitted) for r in strategy.reports] == [4, 4, 4, 4]
    assert len(strategy.lineage) == 3
    assert set(result.evaluate_metrics_clientapp) == {1, 2}


def _tree(number: int) -> bytes:
    """The least of an XGBoost model that Flower's bagging looks at."""
    trees = [{"id": i} for i in range(number)]
    booster = {
        "gbtree_model_param": {"num_trees": str(number), "num_parallel_tree": "1"},
        "iteration_indptr": list(range(number + 1)),
        "trees": trees,
        "tree_info": [0] * number,
    }
    return json.dumps({"learner": {"gradient_booster": {"model": booster}}}).encode()


def _boosted(message: Message) -> RecordDict:
    grown = np.frombuffer(_tree(1 + len(message.content["arrays"]["0"].data) // 100), dtype=np.uint8)
    arrays = ArrayRecord([grown])
    return RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": 1})})


@pytest.mark.parametrize("make", [flower.FedXgbBagging, flower.FedXgbCyclic])
def test_xgboost_strategies_whose_models_grow_run_under_trust(make: Any) -> None:
    inner = make(fraction_train=1.0, fraction_evaluate=0.0)
    with LocalFederation(answering(_boosted), 2) as federation:
        strategy = TrustedStrategy(inner, policy=POLICY)
        strategy.start(
            federation.grid, initial_arrays=ArrayRecord([np.frombuffer(b"", dtype=np.uint8)]), num_rounds=2
        )
    assert all(r.admitted and not r.refused for r in strategy.reports)
    assert strategy._policy().structure is StructurePolicy.TREES


@pytest.mark.parametrize("name", ["FedAvg", "FedAdam", "FedMedian", "Krum"])
def test_one_hostile_reply_never_ends_a_run(name: str) -> None:
    def odd(message: Message) -> RecordDict:
        arrays = ArrayRecord({"other": Array(np.zeros(9))})
        return RecordDict({"arrays": arrays, "metrics": MetricRecord({"who": 1})})

    with LocalFederation(honest(), 4, apps={"site-3": answering(odd)}) as federation:
        federation["site-2"].mischief = mischief.tamper
        strategy = TrustedStrategy(STRATEGIES[name](), policy=POLICY)
        result = strategy.start(federation.grid, initial_arrays=model(), num_rounds=2)
    assert weights(result.arrays)
    assert [len(r.admitted) for r in strategy.reports if r.key.phase == "train"] == [2, 2]


@pytest.mark.parametrize("mod", [fixedclipping_mod, message_size_mod, LocalDpMod(10.0, 1.0, 5.0, 1e-5)])
def test_flowers_own_mods_run_inside_the_wrap(mod: Any) -> None:
    app = TrustedClientApp()

    @app.train(mods=[mod])
    def fit(message: Message, context: Any) -> Message:
        return Message(plus_one(message), reply_to=message)

    # A clipping mod asks for its norm in the settings that the strategy sends.
    settings = ConfigRecord({"clipping_norm": 10.0})
    with LocalFederation(app, 2) as federation:
        strategy = TrustedStrategy(FedAvg(fraction_evaluate=0.0), policy=POLICY)
        strategy.start(federation.grid, initial_arrays=model(1, 1, 1, 1), num_rounds=1, train_config=settings)
        (report,) = strategy.reports
    assert len(report.admitted) == 2, report.refused


class Mine(FedAvg):
    """A strategy of one's own, with a state and a start of its own."""

    def __init__(self) -> None:
        super().__init__(fraction_evaluate=0.0)
        self.seen: list[int] = []

    def start(self, grid: Any, initial_arrays: ArrayRecord, shout: str = "", **options: Any) -> Any:  # type: ignore[override]
        self.shout = shout
        return super().start(grid, initial_arrays, **options)

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> Any:
        replies = list(replies)
        self.seen.append(sum(reply.has_content() for reply in replies))
        return super().aggregate_train(server_round, replies)


def test_a_strategy_of_ones_own_keeps_its_state_methods_and_arguments() -> None:
    with LocalFederation(honest(), 3) as federation:
        federation["site-1"].mischief = mischief.strip
        strategy = TrustedStrategy(Mine(), policy=POLICY)
        strategy.start(federation.grid, initial_arrays=model(), num_rounds=2, timeout=20, shout="hey")
    assert strategy.seen == [2, 2]
    assert strategy.shout == "hey"
    assert strategy.min_train_nodes == 2
    with pytest.raises(AttributeError):
        _ = strategy.no_such_thing


def test_refusals_are_counted_by_the_strategy_as_failures() -> None:
    class Counts(FedAvg):
        failures = 0

        def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> Any:
            replies = list(replies)
            Counts.failures += sum(reply.has_error() for reply in replies)
            return super().aggregate_train(server_round, replies)

    with LocalFederation(honest(), 3) as federation:
        federation["site-0"].mischief = mischief.forge
        strategy = TrustedStrategy(Counts(fraction_evaluate=0.0), policy=POLICY)
        strategy.start(federation.grid, initial_arrays=model(), num_rounds=1)
    assert Counts.failures == 1


def test_it_can_be_pickled() -> None:
    again = pickle.loads(pickle.dumps(TrustedStrategy(FedAvg(min_train_nodes=7))))
    assert isinstance(again, Strategy)
    assert again.min_train_nodes == 7


def test_it_must_be_the_outermost_strategy() -> None:
    inside_out = flower.DifferentialPrivacyServerSideFixedClipping(
        TrustedStrategy(FedAvg()), noise_multiplier=0.1, clipping_norm=1.0, num_sampled_clients=2
    )
    with LocalFederation(honest(), 2) as federation, pytest.raises(Conflict, match="outermost"):
        inside_out.start(federation.grid, initial_arrays=model(), num_rounds=1)


def test_inside_a_trusted_grid_it_uses_that() -> None:
    with LocalFederation(honest(), 2) as federation:
        agent = federation.grid.aggregator_agent
        with TrustedGrid(federation.grid, agent=agent, policy=POLICY) as grid:
            strategy = TrustedStrategy(FedAvg(fraction_evaluate=0.0))
            strategy.start(grid, initial_arrays=model(), num_rounds=1)
            assert grid.reports == strategy.reports
            assert len(grid.reports) == 1


def test_without_an_agent_it_says_how_to_start_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLTRUST_AGENT_SOCKET", raising=False)
    with pytest.raises(AgentUnavailable, match="fltrust superlink"), trusted_grid(object(), POLICY):  # type: ignore[arg-type]
        pass


def test_without_evaluation_only_training_is_on_record() -> None:
    with LocalFederation(honest(), 2) as federation:
        _, reports = train(federation, rounds=3)
    assert [r.key.phase for r in reports] == ["train"] * 3


class Deployed:
    """A grid that brings no agent, as the one that Flower gives to a ServerApp's process."""

    def __init__(self, inner: LocalGrid) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        if name in ("aggregator_agent", "clock"):
            raise AttributeError(name)
        return getattr(self._inner, name)


def test_over_the_agents_socket_it_runs_and_closes_the_run_when_the_process_ends(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    at_exit: list[Any] = []
    monkeypatch.setattr(trusting.atexit, "register", lambda *call: at_exit.append(call))
    monkeypatch.setenv("FLTRUST_AGENT_SOCKET", str(tmp_path / "run" / "agent.sock"))
    with LocalFederation(honest(), 2) as federation:
        core = federation.grid.aggregator_agent
        assert isinstance(core, AggregatorCore)
        server = AgentServer(
            tmp_path / "run" / "agent.sock", handlers=aggregator_handlers(core), log=core.log
        )
        server.start()
        try:
            strategy = TrustedStrategy(FedAvg(fraction_evaluate=0.0), policy=POLICY)
            for _ in range(2):
                strategy.start(cast(Grid, Deployed(federation.grid)), initial_arrays=model(), num_rounds=1)
                assert [len(r.admitted) for r in strategy.reports] == [2]
            assert federation["site-0"].view.is_open(federation.run_id)
            ((call, *arguments),) = at_exit  # once, however many strategies
            call(*arguments)
        finally:
            server.stop()
        assert not federation["site-0"].view.is_open(federation.run_id)
