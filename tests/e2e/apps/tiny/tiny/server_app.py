"""FedAvg under trust; writes down the model after each round."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from fltrust.flower import TrustedStrategy, TrustPolicy

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """The report maps each round to the mean of the model: one more for every round that learnt."""
    config = context.run_config
    strategy = TrustedStrategy(
        FedAvg(
            fraction_evaluate=float(config["fraction-evaluate"]),
            min_train_nodes=int(config["min-nodes"]),
            min_available_nodes=int(config["min-nodes"]),
        ),
        policy=TrustPolicy.from_config(config),
    )
    means: dict[str, float] = {}

    def note(server_round: int, arrays: ArrayRecord) -> MetricRecord | None:
        means[str(server_round)] = float(arrays.to_numpy_ndarrays()[0].mean())
        Path(str(config["report"])).write_text(json.dumps(means))
        return None

    strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord([np.zeros(4, dtype=np.float32)]),
        num_rounds=int(config["num-server-rounds"]),
        evaluate_fn=note,
    )
