"""A site that turns on the others, for the demo and the tests. Off unless its node config says so.

hostile-from-round=2    from this round on, send a scaled update of a label-flipped model
hang-seconds=600        and before that, hang: the round must not wait for it
"""

from __future__ import annotations

import time

import torch
from flwr.app import Context, Message

from digits.task import Net, fit, load_site

_SCALE = 25.0


def maybe_turn(model: Net, message: Message, context: Context) -> None:
    """Poison `model` in place, and hang, where the node config asks for it."""
    start = int(context.node_config.get("hostile-from-round", 0))
    server_round = int(message.content["config"]["server-round"])
    if not start or server_round < start:
        return
    pixels, labels = load_site(int(context.node_config.get("partition-id", 0))).tensors
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fit(model, torch.utils.data.TensorDataset(pixels, 9 - labels), epochs=3, learning_rate=0.05)
    poisoned = {
        name: before[name] + _SCALE * (tensor - before[name]) for name, tensor in model.state_dict().items()
    }
    model.load_state_dict(poisoned)
    time.sleep(float(context.node_config.get("hang-seconds", 0)))
