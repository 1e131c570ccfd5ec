"""A Flower grid in this process: no Ray, no sockets; each node answers in a thread of its own."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from queue import SimpleQueue
from uuid import uuid4

from flwr.app import Array, ArrayRecord, Error, Message, RecordDict
from flwr.serverapp import Grid

from fltrust.agent.ports import AggregatorAgent
from fltrust.clock import Clock, SystemClock
from fltrust.flower import _private
from fltrust.identity import NodeId, RunId

_log = logging.getLogger("fltrust.testing")

_HOLD = 0.5  # seconds for which an empty pull is held open, as `fltrust superlink` does
Handle = Callable[[Message], Message | None]
"""What a node does with an instruction; None if it never replies."""


class LocalGrid(Grid):
    """Carries messages between a ServerApp and nodes in this process, and copies them on the way.

    `nodes` maps each node id to its public key in PEM and to what it does with an instruction. It is
    the SuperLink of this small world, so it promises nothing: trust is the wrapper's.
    """

    def __init__(
        self,
        run_id: RunId,
        nodes: Mapping[NodeId, tuple[bytes, Handle]],
        *,
        aggregator_agent: AggregatorAgent,
        clock: Clock | None = None,
    ) -> None:
        self._run = _private.Run.create_empty(int(run_id))
        self._agent = aggregator_agent
        self._clock = clock or SystemClock()
        self._nodes = {node_id: _Node(node_id, key, handle) for node_id, (key, handle) in nodes.items()}
        self._changed = threading.Condition()
        self._replies: dict[str, Message] = {}
        self._stalled: set[str] = set()
        self._closed = False
        self.offline: set[NodeId] = set()
        """Nodes that Flower would not show."""
        self.stalling: set[NodeId] = set()
        """Nodes that announce replies and never upload them: a pull for one blocks until `close`."""

    @property
    def aggregator_agent(self) -> AggregatorAgent:
        """The agent of this federation's aggregator: `TrustedStrategy` finds it here."""
        return self._agent

    @property
    def clock(self) -> Clock:
        """The time that statements are verified at."""
        return self._clock

    def set_run(self, run: _private.Run) -> None:
        self._run = run

    @property
    def run(self) -> _private.Run:
        _private.become_server_app(self._run.run_id)
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        _private.become_server_app(self._run.run_id)
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        return [node.node_id for node in self.get_nodes()]

    def get_nodes(self) -> Iterable[_private.NodeInfo]:
        _private.become_server_app(self._run.run_id)  # strategies ask for nodes before they make messages
        return [
            _private.NodeInfo(node_id=int(node.node_id), public_key=node.public_key)
            for node in self._nodes.values()
            if node.node_id not in self.offline
        ]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        ids = []
        for message in messages:
            message_id = uuid4().hex
            _private.set_message_id(message, message_id)
            ids.append(message_id)
            node = self._nodes.get(NodeId(message.metadata.dst_node_id))
            if node is None:
                self._put(message_id, _error(message, _private.ErrorCode.NODE_UNAVAILABLE, "unknown node"))
            else:
                node.send(wire_copy(message), partial(self._put, message_id))
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        wanted = list(message_ids)
        with self._changed:
            self._changed.wait_for(
                lambda: self._closed or any(i in self._replies or i in self._stalled for i in wanted), _HOLD
            )
            # As Flower's: a pull for a reply whose tensors are not there blocks all that it asked for.
            self._changed.wait_for(lambda: self._closed or not self._stalled.intersection(wanted))
            return [self._replies.pop(i) for i in wanted if i in self._replies]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """As stock Flower does: wait until everybody has answered, or for `timeout` seconds."""
        waiting = set(self.push_messages(messages))
        replies: list[Message] = []
        end = None if timeout is None else time.monotonic() + timeout
        while waiting and not self._closed and (end is None or time.monotonic() < end):
            arrived = list(self.pull_messages(waiting))
            replies.extend(arrived)
            waiting.difference_update(reply.metadata.reply_to_message_id for reply in arrived)
        return replies

    def inject(self, message_id: str, reply: Message) -> None:
        """Put a reply where the one to `message_id` is expected: what a malicious node can do."""
        self._put(message_id, reply)

    def close(self) -> None:
        """Let everybody go who pulls, and the nodes' threads end."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for node in self._nodes.values():
            node.close()

    def _put(self, message_id: str, reply: Message) -> None:
        with self._changed:
            if NodeId(reply.metadata.src_node_id) in self.stalling:
                self._stalled.add(message_id)
            else:
                self._replies.setdefault(message_id, wire_copy(reply))
            self._changed.notify_all()


class _Node:
    """One node: a queue and a thread, which is started with the first instruction."""

    def __init__(self, node_id: NodeId, public_key: bytes, handle: Handle) -> None:
        self.node_id = node_id
        self.public_key = public_key
        self._handle = handle
        self._inbox: SimpleQueue[tuple[Message, Callable[[Message], None]] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def send(self, message: Message, reply_with: Callable[[Message], None]) -> None:
        self._inbox.put((message, reply_with))
        if self._thread is None:
            # A daemon: a hanging app must not keep the test's process alive.
            self._thread = threading.Thread(target=self._work, name="fltrust-local-node", daemon=True)
            self._thread.start()

    def close(self) -> None:
        self._inbox.put(None)

    def _work(self) -> None:
        while (item := self._inbox.get()) is not None:
            message, reply_with = item
            try:
                reply = self._handle(message)
            except Exception as error:
                _log.debug("a local node raised", exc_info=True)
                code = _private.ErrorCode.CLIENT_APP_RAISED_EXCEPTION
                reply = _error(message, code, f"{type(error).__name__}: {error}")
            if reply is not None:
                reply_with(reply)


def wire_copy(message: Message) -> Message:
    """The message as the other end builds it: records of its own around the same immutable bytes."""
    if not message.has_content():
        return message
    return _private.copy_message(message, copy_records(message.content))


def copy_records(records: RecordDict) -> RecordDict:
    """New records with the same names, keys and values, of whatever kind they are."""
    copied = RecordDict()
    for name, record in records.items():
        if isinstance(record, ArrayRecord):
            copied[name] = ArrayRecord(
                {
                    key: Array(dtype=a.dtype, shape=a.shape, stype=a.stype, data=a.data)
                    for key, a in record.items()
                }
            )
        else:
            copied[name] = record.copy()
    return copied


def _error(message: Message, code: int, reason: str) -> Message:
    return Message(Error(code=code, reason=reason), reply_to=message)
