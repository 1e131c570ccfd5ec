"""Adds one to every weight; sleeps, or fails, where its node config asks for it."""

from __future__ import annotations

import time

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict

from fltrust.flower import TrustedClientApp

app = TrustedClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """`sleep-in-round` with `sleep-seconds`; `fail-in-round` raises."""
    server_round, config = int(message.content["config"]["server-round"]), context.node_config
    if server_round == int(config.get("fail-in-round", 0)):
        raise RuntimeError("asked to fail")
    if server_round == int(config.get("sleep-in-round", 0)):
        time.sleep(float(config.get("sleep-seconds", 0)))
    time.sleep(float(config.get("always-sleep", 0)))
    arrays = ArrayRecord([a.numpy() + 1 for a in message.content["arrays"].values()])
    metrics = MetricRecord({"num-examples": 1})
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """The weights' mean."""
    mean = float(message.content["arrays"].to_numpy_ndarrays()[0].mean())
    return Message(RecordDict({"metrics": MetricRecord({"num-examples": 1, "mean": mean})}), reply_to=message)
