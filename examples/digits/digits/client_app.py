"""What runs at each site. The one word that fltrust changes: `ClientApp` → `TrustedClientApp`."""

from __future__ import annotations

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict

from digits import hostile
from digits.task import Net, accuracy, fit, load_site
from fltrust.flower import TrustedClientApp

app = TrustedClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train the global model on this site's data."""
    model, data = _received(message), load_site(int(context.node_config.get("partition-id", 0)))
    loss = fit(
        model,
        data,
        epochs=int(context.run_config["local-epochs"]),
        learning_rate=float(context.run_config["learning-rate"]),
    )
    hostile.maybe_turn(model, message, context)
    metrics = MetricRecord({"train-loss": loss, "num-examples": len(data)})
    content = RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": metrics})
    return Message(content, reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Evaluate the global model on this site's data."""
    model, data = _received(message), load_site(int(context.node_config.get("partition-id", 0)))
    metrics = MetricRecord({"accuracy": accuracy(model, data), "num-examples": len(data)})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)


def _received(message: Message) -> Net:
    model = Net()
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    return model
