"""An app for Flower's simulation runtime; run as a script, with Ray installed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation

from fltrust.flower import TrustedClientApp, TrustedStrategy

client = TrustedClientApp()
server = ServerApp()


@client.train()
def train(message: Message, context: Context) -> Message:
    arrays = ArrayRecord({"w": Array(message.content["arrays"]["w"].numpy() + 1)})
    metrics = MetricRecord({"num-examples": 1})
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)


@client.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    metrics = MetricRecord({"num-examples": 1, "loss": 0.0})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)


@server.main()
def main(grid: Grid, context: Context) -> None:
    strategy = TrustedStrategy(FedAvg(min_train_nodes=3, min_evaluate_nodes=3, min_available_nodes=3))
    start = ArrayRecord({"w": Array(np.zeros(4, dtype=np.float32))})
    result = strategy.start(grid, initial_arrays=start, num_rounds=3)
    report = {
        "model": result.arrays["w"].numpy().tolist(),
        "admitted": [len(r.admitted) for r in strategy.reports],
        "sealed": all(r.receipt for r in strategy.reports),
    }
    Path(os.environ["REPORT"]).write_text(json.dumps(report))


if __name__ == "__main__":
    resources = {"client_resources": {"num_cpus": 1, "num_gpus": 0.0}}
    run_simulation(server, client, num_supernodes=3, backend_config=resources)
