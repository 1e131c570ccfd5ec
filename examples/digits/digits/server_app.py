"""What runs beside the SuperLink. The one word that fltrust adds: `TrustedStrategy(…)`."""

from __future__ import annotations

import json
from pathlib import Path

from flwr.app import ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from digits.task import Net, accuracy, initial_model, load_test
from fltrust.flower import TrustedStrategy, save_model

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train for `num-server-rounds`; report each round's accuracy on data no site has; save the model."""
    config = context.run_config
    strategy = TrustedStrategy(
        FedAvg(
            fraction_evaluate=float(config["fraction-evaluate"]),
            min_train_nodes=int(config["min-nodes"]),
            min_available_nodes=int(config["min-nodes"]),
        )
    )
    test = load_test()

    def evaluate(_round: int, arrays: ArrayRecord) -> MetricRecord:
        model = Net()
        model.load_state_dict(arrays.to_torch_state_dict())
        return MetricRecord({"accuracy": accuracy(model, test)})

    result = strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord(initial_model().state_dict()),
        num_rounds=int(config["num-server-rounds"]),
        evaluate_fn=evaluate,
    )
    if path := str(config["model"]):
        save_model(result.arrays, path)
    if report := str(config["report"]):
        rounds = {str(r): dict(m) for r, m in result.evaluate_metrics_serverapp.items()}
        Path(report).write_text(json.dumps(rounds, indent=2))
