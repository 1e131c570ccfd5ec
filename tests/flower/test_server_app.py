"""`TrustedServerApp`: legacy apps and apps that call the grid themselves."""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from app_world import QUICK, Gate, honest, instruction, model, weights
from flwr.app import ArrayRecord, Context, RecordDict
from flwr.client import NumPyClient
from flwr.common import ndarrays_to_parameters, parameters_to_ndarrays
from flwr.server import Server, ServerAppComponents, ServerConfig, SimpleClientManager
from flwr.server.strategy import FedAvg
from flwr.serverapp import Grid
from flwr.serverapp import strategy as message_api

from fltrust.errors import Malformed, QuorumNotMet
from fltrust.flower import TrustedClientApp, TrustedGrid, TrustedServerApp
from fltrust.flower.policy import OnFailure, QuorumPolicy, TrustPolicy
from fltrust.testing import LocalFederation, mischief

POLICY = TrustPolicy(waits=QUICK)


class PlusOne(NumPyClient):
    """Adds one to every weight."""

    def get_parameters(self, config: Any) -> list[Any]:  # noqa: ARG002 - Flower's signature
        return [np.zeros(4, dtype=np.float32)]

    def fit(self, parameters: list[Any], config: Any) -> Any:  # noqa: ARG002
        return [p + 1 for p in parameters], 1, {}

    def evaluate(self, parameters: list[Any], config: Any) -> Any:  # noqa: ARG002
        return float(parameters[0].mean()), 1, {}


def legacy_client() -> TrustedClientApp:
    return TrustedClientApp(client_fn=lambda context: PlusOne().to_client())  # noqa: ARG005


class Seen(FedAvg):
    """Notes how many results and failures reach it, and the model after each round."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.rounds: list[tuple[int, int]] = []
        self.models: list[float] = []

    def aggregate_fit(self, server_round: int, results: Any, failures: Any) -> Any:
        self.rounds.append((len(results), len(failures)))
        aggregated = super().aggregate_fit(server_round, results, failures)
        if aggregated[0] is not None:
            self.models.append(float(parameters_to_ndarrays(aggregated[0])[0].mean()))
        return aggregated


def context(federation: LocalFederation, **run_config: Any) -> Context:
    return Context(
        run_id=int(federation.run_id), node_id=1, node_config={}, state=RecordDict(), run_config=run_config
    )


def run(
    federation: LocalFederation, strategy: Seen, *, rounds: int = 2, policy: TrustPolicy = POLICY
) -> None:
    def server_fn(_context: Context) -> ServerAppComponents:
        return ServerAppComponents(strategy=strategy, config=ServerConfig(num_rounds=rounds))

    TrustedServerApp(server_fn=server_fn, policy=policy)(federation.grid, context(federation))


def test_a_legacy_app_trains_under_trust() -> None:
    strategy = Seen()
    with LocalFederation(legacy_client(), 3) as federation:
        run(federation, strategy)
        phases = [str(r.key.phase) for r in federation.rounds()]
    assert strategy.rounds == [(3, 0), (3, 0)]
    assert strategy.models == [1.0, 2.0]
    assert phases.count("query") == 1  # the first model, from one of the sites
    assert (phases.count("train"), phases.count("evaluate")) == (6, 6)


def test_a_hostile_legacy_site_is_a_failure_and_the_run_goes_on() -> None:
    strategy = Seen(initial_parameters=ndarrays_to_parameters([np.zeros(4, dtype=np.float32)]))
    with LocalFederation(legacy_client(), 3) as federation:
        federation["site-1"].mischief = mischief.tamper
        run(federation, strategy)
    assert strategy.rounds == [(2, 1), (2, 1)]
    assert strategy.models == [1.0, 2.0]


def test_a_legacy_site_that_is_revoked_mid_round_is_not_waited_for() -> None:
    gate = Gate()
    strategy = Seen(initial_parameters=ndarrays_to_parameters([np.zeros(4, dtype=np.float32)]))
    with LocalFederation(legacy_client(), 3) as federation:
        federation["site-1"].before = gate

        def act() -> None:
            assert gate.reached.wait(10)
            federation.revoke("site-1")

        thread = threading.Thread(target=act)
        thread.start()
        run(federation, strategy)
        thread.join()
        gate.opened.set()
    assert strategy.rounds == [(2, 1), (2, 0)]


def test_a_legacy_site_that_is_revoked_after_its_own_seal_is_not_aggregated() -> None:
    strategy = Seen(initial_parameters=ndarrays_to_parameters([np.zeros(4, dtype=np.float32)]))
    slow = Gate()
    with LocalFederation(legacy_client(), 3) as federation:
        federation["site-2"].before = slow

        def sealed(name: str) -> bool:
            who = federation[name].spiffe_id
            return any(m.participant == who for r in federation.rounds() if r.receipt for m in r.cohort)

        def act() -> None:
            assert slow.reached.wait(10)
            while not sealed("site-0"):
                time.sleep(0.01)
            federation.revoke("site-0")
            slow.opened.set()

        thread = threading.Thread(target=act)
        thread.start()
        run(federation, strategy, rounds=1)
        thread.join()
    assert strategy.rounds == [(2, 1)]


def test_a_legacy_quorum_is_of_the_whole_round() -> None:
    strategy = Seen(initial_parameters=ndarrays_to_parameters([np.zeros(4, dtype=np.float32)]))
    quorum = QuorumPolicy(min_updates=3, on_failure=OnFailure.FAIL)
    with LocalFederation(legacy_client(), 3) as federation:
        run(federation, strategy, rounds=1, policy=TrustPolicy(waits=QUICK, quorum=quorum))
        assert strategy.models == [1.0]
        federation["site-1"].mischief = mischief.strip
        again = Seen(initial_parameters=ndarrays_to_parameters([np.zeros(4, dtype=np.float32)]))
        with pytest.raises(QuorumNotMet):
            run(federation, again, rounds=1, policy=TrustPolicy(waits=QUICK, quorum=quorum))


def test_a_legacy_app_does_not_wait_a_day_for_clients_that_will_not_come() -> None:
    strategy = Seen(min_fit_clients=3, min_available_clients=3)
    with LocalFederation(legacy_client(), 2) as federation, pytest.raises(QuorumNotMet, match="3 clients"):
        run(federation, strategy)


def test_a_server_of_ones_own_is_kept() -> None:
    strategy = Seen(initial_parameters=ndarrays_to_parameters([np.zeros(4, dtype=np.float32)]))
    manager = SimpleClientManager()

    class Mine(Server):
        pass

    server = Mine(client_manager=manager, strategy=strategy)
    app = TrustedServerApp(server=server, config=ServerConfig(num_rounds=1), policy=POLICY)
    with LocalFederation(legacy_client(), 2) as federation:
        app(federation.grid, context(federation))
    assert strategy.rounds == [(2, 0)]


def test_server_fn_and_its_parts_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="server_fn"):
        TrustedServerApp(strategy=FedAvg(), server_fn=lambda context: ServerAppComponents())  # noqa: ARG005


# --- apps with a main


def test_a_main_that_calls_the_grid_itself_gets_a_trusted_one() -> None:
    app, seen = TrustedServerApp(), []

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        assert isinstance(grid, TrustedGrid)
        seen.extend(grid.send_and_receive([instruction(i) for i in grid.get_node_ids()]))

    with LocalFederation(honest(), 2) as federation:
        app(federation.grid, context(federation))
    assert [reply.has_content() for reply in seen] == [True, True]


def test_a_stock_strategy_inside_a_trusted_server_app_is_under_trust() -> None:
    app, results = TrustedServerApp(policy=POLICY), []

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        strategy = message_api.FedAvg(fraction_evaluate=0.0)
        results.append(strategy.start(grid, initial_arrays=model(), num_rounds=2))

    with LocalFederation(honest(), 3) as federation:
        federation["site-0"].mischief = mischief.forge
        app(federation.grid, context(federation))
        assert [len(r.evidence) for r in federation.rounds()] == [2, 2]
    arrays: ArrayRecord = results[0].arrays
    assert weights(arrays) == [2.0] * 4


def test_its_policy_comes_from_the_run_config() -> None:
    app, seen = TrustedServerApp(), []

    @app.main()
    def main(grid: TrustedGrid, context: Context) -> None:
        seen.append(grid.longest_node_wait)
        grid.send_and_receive([])

    with LocalFederation(honest(), 1) as federation:
        app(federation.grid, context(federation, **{"fltrust-node-wait": 7, "lr": 0.1}))
        assert seen == [timedelta(minutes=10)]
        with pytest.raises(Malformed, match="fltrust-min-updates"):
            app(federation.grid, context(federation, **{"fltrust-typo": 1}))
