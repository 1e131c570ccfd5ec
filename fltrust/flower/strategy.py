"""`TrustedStrategy`: one word around a Flower strategy."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedXgbBagging, FedXgbCyclic, Result, Strategy

from fltrust.flower.policy import TrustPolicy
from fltrust.flower.trusting import trusted_grid
from fltrust.updates import StructurePolicy


class TrustedStrategy(Strategy):
    """Wraps any `Strategy`: Flower's own, or yours.

        strategy = TrustedStrategy(FedAvg(min_train_nodes=3))
        result = strategy.start(grid=grid, initial_arrays=…, num_rounds=3)

    The inner strategy does all that it did, over a `TrustedGrid`: it samples among participants in good
    standing, its instructions go out signed, and it aggregates what was verified and sealed. Whatever
    else you ask of a `TrustedStrategy` is answered by the inner one.
    """

    def __init__(self, inner: Strategy, *, policy: TrustPolicy | None = None) -> None:
        self.inner = inner
        self.policy = policy or TrustPolicy()

    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord,
        num_rounds: int = 3,
        timeout: float = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: Callable[[int, ArrayRecord], MetricRecord | None] | None = None,
    ) -> Result:
        """Run the inner strategy under trust; arguments and result are `Strategy.start`'s.

        Raises what keeps the aggregator itself from working: `AgentUnavailable`, `Revoked`, `QuorumNotMet`
        (by policy), `CoordinatorUnavailable` (by policy).
        """
        with trusted_grid(grid, self._policy()) as trusted:
            return self.inner.start(
                grid=trusted,
                initial_arrays=initial_arrays,
                num_rounds=num_rounds,
                timeout=timeout,
                train_config=train_config,
                evaluate_config=evaluate_config,
                evaluate_fn=evaluate_fn,
            )

    def _policy(self) -> TrustPolicy:
        if self.policy.structure is not None:
            return self.policy
        grows = isinstance(self.inner, FedXgbBagging | FedXgbCyclic)
        return replace(self.policy, structure=StructurePolicy.READABLE if grows else StructurePolicy.TENSORS)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        return self.inner.configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        return self.inner.aggregate_train(server_round, replies)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        return self.inner.configure_evaluate(server_round, arrays, config, grid)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        return self.inner.aggregate_evaluate(server_round, replies)

    def summary(self) -> None:
        self.inner.summary()

    def __getattr__(self, name: str) -> Any:
        if name == "inner":  # while unpickling, before there is one
            raise AttributeError(name)
        return getattr(self.inner, name)
