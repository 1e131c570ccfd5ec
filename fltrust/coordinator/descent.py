"""What an aggregate or a model comes from, as its statement says and as the record knows.

An aggregator states what came before. It is not believed: what it names must be recorded here, in these
very words, and what the round's instructions sent out must not be another recorded aggregate. So taint
cannot be shaken off by naming another parent.
"""

from __future__ import annotations

from collections.abc import Iterable

from fltrust.artifacts.inputs import ModelInput
from fltrust.artifacts.keeping import AggregateRecord
from fltrust.artifacts.ports import StepOfRun
from fltrust.coordinator.ports import Transaction
from fltrust.errors import Refusal, StatementRefused
from fltrust.identity import Digest

MAX_SAME = 64
"""Earlier aggregates of the same tensors that an aggregate is linked to, beside the last."""


def recorded(tx: Transaction, said: ModelInput, *, what: str) -> AggregateRecord:
    """The aggregate that a statement names, or `StatementRefused` (``wrong-model``): run, step, digests and
    place in the log must be the recorded ones."""
    found = tx.aggregates.get(said.run_id, said.step)
    if found is None or (found.tensors, found.model, found.log_index) != (
        said.tensors,
        said.model,
        said.log_index,
    ):
        raise StatementRefused(
            f"expected {what} to be an aggregate that is recorded here, got step {said.step} of run "
            f"{int(said.run_id)} with other digests, in another place, or not recorded",
            reason=Refusal.WRONG_MODEL,
        )
    return found


def refuse_hidden_parent(tx: Transaction, models: Iterable[Digest], previous: ModelInput) -> None:
    """Raise `StatementRefused` (``wrong-model``) if a round trained from a recorded aggregate that is not the
    one named before it."""
    for model in models:
        if model != previous.model and (hidden := tx.aggregates.by_model(model)):
            raise StatementRefused(
                f"expected the model before to be the one that the round trained from, step {hidden[0].step} "
                f"of run {int(hidden[0].run_id)}; got step {previous.step} of run {int(previous.run_id)}",
                reason=Refusal.WRONG_MODEL,
            )


def same_aggregates(tx: Transaction, *, tensors: Digest, model: Digest) -> tuple[StepOfRun, ...]:
    """Where these very tensors were seen before: the last aggregate that has them, and earlier rounds that
    made them. Of a file that was released, the aggregate that it comes from.

    Earlier initial models are left out: the last is linked to them.
    """
    known = {r.place: r for r in (*tx.aggregates.by_tensors(tensors), *tx.aggregates.by_model(model))}
    ordered = sorted(known.values(), key=lambda record: record.log_index, reverse=True)
    made = [record.place for record in ordered[1:] if record.previous is not None][:MAX_SAME]
    released = [m.aggregate for m in tx.models.made_of((), (tensors,)) if m.aggregate is not None]
    found = [record.place for record in ordered[:1]] + made + released[-MAX_SAME:]
    return tuple(dict.fromkeys(found))
