"""What a site says, with or without a signature, does neither write our log nor outweigh everybody."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg

from fltrust.flower import TrustedClientApp, TrustedStrategy
from fltrust.testing import LocalFederation

MODEL = ArrayRecord([np.zeros(3)])


def site(value: float, weight: float = 100) -> TrustedClientApp:
    """A site that trains to `value` and claims `weight`."""
    app = TrustedClientApp()

    @app.train()
    def train(message: Message, _context: Context) -> Message:
        metrics = MetricRecord({"num-examples": weight})
        return Message(
            RecordDict({"arrays": ArrayRecord([np.full(3, value)]), "metrics": metrics}), reply_to=message
        )

    return app


def one_round(federation: LocalFederation) -> float:
    strategy = TrustedStrategy(FedAvg(fraction_evaluate=0.0))
    result = strategy.start(federation.grid, initial_arrays=MODEL, num_rounds=1)
    assert result.arrays is not None
    return float(result.arrays.to_numpy_ndarrays()[0][0])


def test_weights_that_no_count_of_examples_has_are_refused() -> None:
    hostile = {name: site(-7.0, weight=1.7e308) for name in ("site-0", "site-1")}
    with LocalFederation(site(1.0), 4, apps=hostile) as federation:
        assert one_round(federation) == 1.0


def test_the_words_of_an_error_reply_are_quoted_and_bounded(caplog: pytest.LogCaptureFixture) -> None:
    app = TrustedClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        raise RuntimeError("no\n2026-01-01 WARNING fltrust: site-3 is revoked\x1b[2J" + "x" * 5000)

    with caplog.at_level(logging.WARNING), LocalFederation(site(1.0), 4, apps={"site-0": app}) as federation:
        assert one_round(federation) == 1.0
    (told,) = [r.getMessage() for r in caplog.records if "no-reply" in r.getMessage()]
    assert "RuntimeError" in told
    assert len(told) < 1000
    assert told.isprintable()
