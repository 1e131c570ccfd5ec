"""`ServerApp(server_fn=…)`, wrapped by one word."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from flwr.common import Context, ndarrays_to_parameters
from flwr.server import ServerAppComponents, ServerConfig
from flwr.server.strategy import FedAvg

from fltrust.flower import TrustedServerApp


def server_fn(context: Context) -> ServerAppComponents:
    report = Path(str(context.run_config["report"]))
    means: dict[str, float] = {}

    def note(server_round: int, parameters: list[Any], _config: dict[str, Any]) -> None:
        means[str(server_round)] = float(parameters[0].mean())
        report.write_text(json.dumps(means))

    strategy = FedAvg(
        initial_parameters=ndarrays_to_parameters([np.zeros(4, dtype=np.float32)]), evaluate_fn=note
    )
    rounds = int(context.run_config["num-server-rounds"])
    return ServerAppComponents(strategy=strategy, config=ServerConfig(num_rounds=rounds))


app = TrustedServerApp(server_fn=server_fn)
