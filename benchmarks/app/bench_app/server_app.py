"""Runs the rounds and writes down when each began and ended."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from fltrust.flower import TrustedStrategy

app = ServerApp()
_TENSORS = 10


@app.main()
def main(grid: Grid, context: Context) -> None:
    """`model-bytes` in ten tensors; the report is the end of each round, in seconds since the start."""
    config = context.run_config
    nodes = int(config["nodes"])
    strategy = TrustedStrategy(
        FedAvg(
            fraction_evaluate=float(config["fraction-evaluate"]),
            min_train_nodes=nodes,
            min_available_nodes=nodes,
        )
    )
    began = time.monotonic()
    ends: list[float] = []

    def note(_round: int, _arrays: ArrayRecord) -> MetricRecord | None:
        ends.append(time.monotonic() - began)
        return None

    size = int(config["model-bytes"]) // 4 // _TENSORS
    rng = np.random.default_rng(0)
    model = [rng.random(size, dtype=np.float32) for _ in range(_TENSORS)]
    strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord(model),
        num_rounds=int(config["num-server-rounds"]),
        evaluate_fn=note,
    )
    Path(str(config["report"])).write_text(json.dumps(ends))
