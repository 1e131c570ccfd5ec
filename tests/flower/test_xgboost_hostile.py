"""A site that sends no trees does not end a federated XGBoost run."""

from __future__ import annotations

import json

import numpy as np
import pytest
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedXgbBagging

from fltrust.flower import TrustedClientApp, TrustedStrategy
from fltrust.testing import LocalFederation

BOOSTER = {
    "gbtree_model_param": {"num_trees": "1", "num_parallel_tree": "1"},
    "iteration_indptr": [0, 1],
    "trees": [{"id": 0}],
    "tree_info": [0],
}
MODEL = json.dumps({"learner": {"gradient_booster": {"model": BOOSTER}}}).encode()


def sending(data: bytes) -> TrustedClientApp:
    app = TrustedClientApp()

    @app.train()
    def train(message: Message, _context: Context) -> Message:
        arrays = ArrayRecord([np.frombuffer(data, dtype=np.uint8)])
        records = RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": 1})})
        return Message(records, reply_to=message)

    return app


@pytest.mark.parametrize("data", [b"not json", b"{}", b"", MODEL.replace(b'[{"id": 0}]', b"[]")])
def test_a_reply_without_trees_is_refused_and_the_run_goes_on(data: bytes) -> None:
    with LocalFederation(sending(MODEL), 3, apps={"site-2": sending(data)}) as federation:
        strategy = TrustedStrategy(FedXgbBagging(fraction_evaluate=0.0))
        result = strategy.start(
            federation.grid, initial_arrays=ArrayRecord([np.frombuffer(b"", dtype=np.uint8)]), num_rounds=2
        )
    trees = json.loads(result.arrays["0"].numpy().tobytes())["learner"]["gradient_booster"]["model"]["trees"]
    assert len(trees) == 4
    assert [dict(r.refused) for r in strategy.reports] == [{"site-2": "structure"}] * 2
