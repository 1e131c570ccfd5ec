"""Returns what it got."""

from __future__ import annotations

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict

from fltrust.flower import TrustedClientApp

app = TrustedClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:  # noqa: ARG001 - Flower's signature
    """Add one to every weight, so that an update is new bytes, as a real one is."""
    arrays = ArrayRecord([a.numpy() + 1 for a in message.content["arrays"].values()])
    return Message(
        RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": 1})}), reply_to=message
    )


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:  # noqa: ARG001 - Flower's signature
    """Report one number."""
    return Message(RecordDict({"metrics": MetricRecord({"num-examples": 1, "loss": 0.0})}), reply_to=message)
