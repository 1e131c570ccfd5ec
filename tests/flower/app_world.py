"""Small Flower apps over a `LocalFederation`: each round adds one to a model of four weights."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg, Result

from fltrust.flower import TrustedClientApp, TrustedGrid, TrustedStrategy
from fltrust.flower.policy import TrustPolicy, WaitPolicy
from fltrust.flower.services import ExchangeReport
from fltrust.testing import LocalFederation

logging.getLogger("flwr").setLevel(logging.ERROR)

QUICK = WaitPolicy(
    timeout=timedelta(seconds=20),
    stall=timedelta(seconds=1),
    nodes=timedelta(seconds=1),
    startup=timedelta(seconds=1),
    patience=timedelta(seconds=1),
    poll=timedelta(milliseconds=5),
)
"""Bounds for tests: short where a test waits for them, never where it should not come to that."""


def model(*weights: float) -> ArrayRecord:
    return ArrayRecord({"w": Array(np.array(weights or (0.0,) * 4, dtype=np.float32))})


def weights(arrays: ArrayRecord | None) -> list[float]:
    assert arrays is not None
    found: list[float] = arrays["w"].numpy().tolist()
    return found


def plus_one(message: Message) -> RecordDict:
    """What an honest site answers."""
    arrays = ArrayRecord({key: Array(a.numpy() + 1) for key, a in message.content["arrays"].items()})
    return RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": 1, "loss": 0.5})})


def answering(make: Callable[[Message], RecordDict] = plus_one) -> TrustedClientApp:
    """A site whose app makes its own content; its agent signs whatever that is."""
    app = TrustedClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        return Message(make(message), reply_to=message)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        metrics = MetricRecord({"num-examples": 1, "loss": 0.5})
        return Message(RecordDict({"metrics": metrics}), reply_to=message)

    @app.query()
    def query(message: Message, context: Context) -> Message:
        return Message(RecordDict({"answer": ConfigRecord({"yes": True})}), reply_to=message)

    return app


def honest() -> TrustedClientApp:
    return answering(plus_one)


def train(
    federation: LocalFederation,
    *,
    rounds: int = 1,
    policy: TrustPolicy | None = None,
    evaluate: bool = False,
    start: ArrayRecord | None = None,
    **options: Any,
) -> tuple[Result, tuple[ExchangeReport, ...]]:
    """Run FedAvg under trust, and return its result with how each exchange ended."""
    options = {"min_train_nodes": 1, "min_available_nodes": 1, **options}
    strategy = TrustedStrategy(
        FedAvg(fraction_evaluate=1.0 if evaluate else 0.0, **options),
        policy=policy or TrustPolicy(waits=QUICK),
    )
    result = strategy.start(federation.grid, initial_arrays=start or model(), num_rounds=rounds)
    return result, strategy.reports


def trusted(federation: LocalFederation, policy: TrustPolicy | None = None) -> TrustedGrid:
    """The grid alone, for what an app does by hand. Use it as a context manager."""
    grid, policy = federation.grid, policy or TrustPolicy(waits=QUICK)
    return TrustedGrid(grid, agent=grid.aggregator_agent, policy=policy, clock=grid.clock)


def instruction(node_id: int, *, server_round: int = 1, kind: str = "train") -> Message:
    """A message as a strategy makes it."""
    config = ConfigRecord({"server-round": server_round})
    return Message(RecordDict({"arrays": model(), "config": config}), node_id, kind)


class Gate:
    """Holds a site in its app until the test opens it."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.opened = threading.Event()

    def __call__(self, _message: Message) -> None:
        self.reached.set()
        self.opened.wait(30)


def refusals(report: ExchangeReport) -> dict[str, str]:
    return dict(report.refused)
