"""`TrustedStrategy`: one word around a Flower strategy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedXgbBagging, FedXgbCyclic, Result, Strategy

from fltrust.errors import Conflict
from fltrust.flower.grid import TrustedGrid
from fltrust.flower.policy import TrustPolicy
from fltrust.flower.recording import ARRAYS, recorded
from fltrust.flower.services import ExchangeReport
from fltrust.flower.trusting import trusted_grid
from fltrust.updates import StructurePolicy


class TrustedStrategy(Strategy):
    """Wraps any `Strategy`: Flower's own, or yours.

        strategy = TrustedStrategy(FedAvg(min_train_nodes=3))
        result = strategy.start(grid=grid, initial_arrays=…, num_rounds=3)

    The inner strategy does all that it did, over a `TrustedGrid`: it samples among participants in good
    standing, its instructions go out signed, and it aggregates what was verified and sealed. Each model that
    it makes is recorded with its provenance (`TrustPolicy.lineage`). Whatever else you ask of a
    `TrustedStrategy` is answered by the inner one.
    """

    def __init__(self, inner: Strategy, *, policy: TrustPolicy | None = None) -> None:
        self.inner = inner
        self.policy = policy or TrustPolicy()
        self._trusted: TrustedGrid | None = None

    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord,
        num_rounds: int = 3,
        timeout: float = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: Callable[[int, ArrayRecord], MetricRecord | None] | None = None,
        **more: Any,
    ) -> Result:
        """Run the inner strategy under trust; arguments and result are `Strategy.start`'s.

        What else your own strategy's `start` takes is passed on, by name.

        Raises what keeps the aggregator itself from working: `AgentUnavailable`, `Revoked`, `QuorumNotMet`
        (by policy), `CoordinatorUnavailable` (by policy).
        """
        with trusted_grid(grid, self._policy()) as trusted:
            self._trusted = trusted
            names = (getattr(layer, "arrayrecord_key", None) for layer in self._layers())
            name = next((name for name in names if isinstance(name, str)), ARRAYS)
            with recorded(self.inner, trusted.lineage, initial_arrays, record=name):
                return self.inner.start(
                    grid=trusted,
                    initial_arrays=initial_arrays,
                    num_rounds=num_rounds,
                    timeout=timeout,
                    train_config=train_config,
                    evaluate_config=evaluate_config,
                    evaluate_fn=evaluate_fn,
                    **more,
                )

    @property
    def lineage(self) -> tuple[bytes, ...]:
        """Provenance of the models that the last `start` made, the newest first, the initial arrays last:
        one Sigstore bundle each, as a lineage file holds them (`fltrust.artifacts.lineage`)."""
        return () if self._trusted is None else self._trusted.lineage.bundles

    @property
    def reports(self) -> tuple[ExchangeReport, ...]:
        """How each exchange of the last `start` ended; empty before."""
        return () if self._trusted is None else self._trusted.reports

    def _policy(self) -> TrustPolicy:
        """What the policy leaves to the strategy, chosen by looking at it."""
        policy = self.policy
        if policy.structure is None:
            grows = any(isinstance(s, FedXgbBagging | FedXgbCyclic) for s in self._layers())
            structure = StructurePolicy.TREES if grows else StructurePolicy.TENSORS
            policy = replace(policy, structure=structure)
        if policy.weight_key is None:
            keys = (getattr(s, "weighted_by_key", None) for s in self._layers())
            policy = replace(policy, weight_key=next((key for key in keys if isinstance(key, str)), ""))
        return policy

    def _layers(self) -> Iterator[Strategy]:
        """The inner strategy and those that it wraps itself, as Flower's differential privacy does."""
        layer: Any = self.inner
        while isinstance(layer, Strategy):
            yield layer
            layer = getattr(layer, "strategy", None)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        _require_trusted(grid)
        return self.inner.configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        return self.inner.aggregate_train(server_round, replies)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        _require_trusted(grid)
        return self.inner.configure_evaluate(server_round, arrays, config, grid)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        return self.inner.aggregate_evaluate(server_round, replies)

    def summary(self) -> None:
        self.inner.summary()

    def __getattr__(self, name: str) -> Any:
        if name in ("inner", "_trusted"):  # while unpickling, before there is one
            raise AttributeError(name)
        return getattr(self.inner, name)


def _require_trusted(grid: Grid) -> None:
    """A strategy around this one runs its own `start`, over a grid that nobody wrapped."""
    if not isinstance(grid, TrustedGrid):
        raise Conflict(
            "expected TrustedStrategy to be the outermost strategy, another one is around it",
            hint="write TrustedStrategy(Other(FedAvg())), not Other(TrustedStrategy(FedAvg()))",
        )
