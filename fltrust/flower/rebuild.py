"""A strategy driven by updates that were kept: no nodes, nothing sent, nothing waited for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fltrust.errors import Conflict, Malformed
from fltrust.flower import _private
from fltrust.flower.records import tensor_set_of_record, to_content, to_records
from fltrust.identity import Digest, RunId
from fltrust.updates import Content, model_digest


class Rebuilder:
    """Holds a model, and has a strategy aggregate round after round into it, as `Strategy.start` would.

    Strategies keep state between rounds and in `configure_train`, so every round is given to it in order,
    whether its result is wanted or not.
    """

    def __init__(self, make_strategy: Callable[[], Strategy], run_id: RunId, initial: Content) -> None:
        records = to_records(initial)
        if len(records.array_records) != 1:
            raise Malformed("expected one record of arrays as the model that a run began with")
        ((self._record, self.arrays),) = records.array_records.items()
        self._make_strategy = make_strategy
        self._strategy = make_strategy()
        self._run_id = run_id
        self._base = self._last = 0

    def begin_anew(self) -> None:
        """Another strategy of the run goes on with the model; it counts its rounds from 1."""
        self._strategy, self._base = self._make_strategy(), self._last

    def pass_over(self, round_: int) -> None:
        """A round of which nothing is left: the model stays."""
        self._last = round_

    def aggregate(self, round_: int, updates: Sequence[Content], *, cohort: int) -> None:
        """Aggregate updates, in the order given, of the run's round `round_`, for which `cohort` nodes were
        asked. Raises `Conflict` where the strategy makes nothing of them.
        """
        self._last, number = round_, round_ - self._base
        grid = _NoGrid(self._run_id, max(cohort, _wanted(self._strategy)))
        config = ConfigRecord({"server-round": number})
        list(self._strategy.configure_train(number, self.arrays, config, grid))
        replies = [_reply(to_records(content), node) for node, content in enumerate(updates, start=1)]
        arrays, _ = self._strategy.aggregate_train(number, replies)
        if arrays is None:
            raise Conflict(
                f"expected the strategy to aggregate {len(updates)} updates of round {round_}, it did not",
                reason="not-aggregated",
                hint="some strategies need more updates than are left; choose another with --strategy",
            )
        self.arrays = arrays

    @property
    def tensors(self) -> Digest:
        return tensor_set_of_record(self.arrays)

    @property
    def model(self) -> Digest:
        """The model digest, as the run's instructions would state it."""
        return model_digest(to_content(RecordDict({self._record: self.arrays})))


def _wanted(strategy: Strategy) -> int:
    """The nodes that a strategy waits for before it goes on."""
    found = (getattr(strategy, name, 0) for name in ("min_available_nodes", "min_train_nodes"))
    return max((number for number in found if isinstance(number, int)), default=0)


def _reply(content: RecordDict, node: int) -> Message:
    return Message(content, reply_to=Message(RecordDict(), node, "train"))


class _NoGrid(Grid):
    """Nodes by number alone, for strategies that sample before they aggregate."""

    def __init__(self, run_id: RunId, nodes: int) -> None:
        self._run = _private.Run.create_empty(int(run_id))
        self._nodes = range(1, nodes + 1)
        _private.become_server_app(int(run_id))

    def set_run(self, run: _private.Run) -> None:
        self._run = run

    @property
    def run(self) -> _private.Run:
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        return self._nodes

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        raise _no_nodes(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        raise _no_nodes(message_ids)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        raise _no_nodes(messages, timeout)


def _no_nodes(*_asked: object) -> Conflict:
    return Conflict("a strategy asked nodes in a replay: there are none", reason="not-reproduced")
