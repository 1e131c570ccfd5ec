"""The same ServerApp, with two things more: admitted updates are kept, and the model is written to a file.

`python -m examples.poison` runs it. In the run config: ``retain`` (folder), ``recipient`` (public half of the
recovery key), ``model`` (file to write), ``start-from`` and ``trust`` (a signed model to go on from, and the
trust file to verify it with; "" begins anew), ``signer`` (who must have signed it).
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from digits.task import Net, accuracy, initial_model, load_test
from fltrust.artifacts.loading import load_safetensors
from fltrust.flower import Retention, TrustedStrategy, TrustPolicy, save_model

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train, keep what came in, and write the last model."""
    config, test = context.run_config, load_test()
    retention = Retention(folder=Path(str(config["retain"])), recipient=Path(str(config["recipient"])))
    nodes = int(config["min-nodes"])
    strategy = TrustedStrategy(
        FedAvg(fraction_evaluate=0.0, min_train_nodes=nodes, min_available_nodes=nodes),
        policy=TrustPolicy(retention=retention),
    )

    def evaluate(_round: int, arrays: ArrayRecord) -> MetricRecord:
        model = Net()
        model.load_state_dict(arrays.to_torch_state_dict())
        return MetricRecord({"accuracy": accuracy(model, test)})

    result = strategy.start(
        grid=grid,
        initial_arrays=_first_arrays(context),
        num_rounds=int(config["num-server-rounds"]),
        evaluate_fn=evaluate,
    )
    save_model(result.arrays, Path(str(config["model"])))
    rounds = {str(r): dict(m) for r, m in result.evaluate_metrics_serverapp.items()}
    Path(str(config["report"])).write_text(json.dumps(rounds, indent=2))


def _first_arrays(context: Context) -> ArrayRecord:
    """The same first model on every machine, or a signed one: loaded only as it was verified."""
    config = context.run_config
    start = str(config["start-from"])
    if not start:
        return ArrayRecord(initial_model().state_dict())
    found = load_safetensors(start, trust=str(config["trust"]), identity=str(config["signer"]))
    return ArrayRecord({name: Array(np.asarray(found[name])) for name in Net().state_dict()})  # in its order
