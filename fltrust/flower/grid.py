"""`TrustedGrid`: any Flower `Grid`, with every instruction signed and every reply verified and sealed."""

from __future__ import annotations

import atexit
import logging
import threading
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from datetime import timedelta
from types import TracebackType
from typing import Self

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from fltrust.agent.ports import AggregatorAgent
from fltrust.client.follower import TrustFollower
from fltrust.clock import Clock, SystemClock
from fltrust.errors import FltrustError, QuorumNotMet
from fltrust.eventlog import EventLog
from fltrust.flower import _private
from fltrust.flower.exchange import Exchange, Services
from fltrust.flower.nodes import KeyOf, NodeDirectory
from fltrust.flower.policy import TrustPolicy
from fltrust.flower.pullers import PullFailed
from fltrust.flower.verdicts import Answer, Judge
from fltrust.identity import RunId
from fltrust.revocation.view import TrustView
from fltrust.rounds.types import RoundKey
from fltrust.updates import Phase, StructurePolicy, Verifier, phase_of

_log = logging.getLogger("fltrust.flower")

_ROUND_KEY = "server-round"
_MARGIN = timedelta(seconds=60)
"""An instruction outlives the wait for its answer by this much."""
_DENSE = 5.0
"""Somebody who asks for nodes again within this many seconds is waiting for them."""

_steps: dict[RunId, int] = defaultdict(int)
_steps_lock = threading.Lock()


class TrustedGrid(Grid):
    """Wraps the grid that Flower gives to a ServerApp.

    `send_and_receive` is one exchange: instructions signed and the round opened, each reply pulled on
    its own, verified as it arrives and judged by our own table, the round sealed; only what the
    coordinator admits is returned with content. Node ids are those of participants in good standing.

    `push_messages` and `pull_messages`, for apps that send by hand, are exchanges of one message each:
    a reply is returned once its own seal admits it.
    """

    def __init__(
        self,
        grid: Grid,
        *,
        agent: AggregatorAgent,
        policy: TrustPolicy | None = None,
        key_of: KeyOf | None = None,
        clock: Clock | None = None,
        events: EventLog | None = None,
    ) -> None:
        """`key_of` says how a node's key id is read from Flower's `NodeInfo` (PEM by default)."""
        self._grid = grid
        self._agent = agent
        self._clock = clock or SystemClock()
        self._policy = policy or TrustPolicy()
        self._view = TrustView(self._clock, self._policy.reach)
        self._follower = TrustFollower(agent, self._view)
        verifier = Verifier(agent.identity().bundle)
        self._services = Services(
            grid=grid,
            agent=agent,
            view=self._view,
            nodes=NodeDirectory(grid.get_nodes, self._view, key_of=key_of),
            judge=Judge(
                verifier,
                self._view,
                self._policy,
                self._policy.structure or StructurePolicy.TENSORS,
                self._clock,
            ),
            verifier=verifier,
            policy=self._policy,
            clock=self._clock,
            events=events or EventLog.from_environment(process="serverapp"),
        )
        self._rounds: dict[Phase, int] = defaultdict(int)
        self._sent: dict[str, Exchange] = {}
        self._asked_for_nodes: tuple[float, float] | None = None  # since when, and when last
        self._has_exchanged = False

    def start(self) -> Self:
        """Follow the trust feed; returns once the view is as fresh as policy asks, or raises why not."""
        self._follower.start()
        patience = self._policy.waits.patience.total_seconds()
        self._view.wait_until(lambda _: self._view.age() <= self._policy.reach.bound, patience)
        self._view.require_fresh()
        return self

    def close(self) -> None:
        """Stop following the feed. The run stays open for another strategy of the same ServerApp."""
        self._follower.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- exchanges

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Ask, wait, verify, seal; see the class. Returns as soon as everybody worth waiting for is decided.

        Raises `QuorumNotMet` where policy says so, and what keeps the aggregator itself from working
        (agent or coordinator out of reach, this aggregator revoked). Never raises for what one
        participant did.
        """
        replies: list[Message] = []
        for (server_round, phase), group in self._grouped(messages).items():
            bound = self._bound(timeout, group)
            exchange = self._exchange(server_round, phase)
            exchange.send(group, lifetime=bound + _MARGIN)
            exchange.collect(timeout=bound)
            replies.extend(exchange.seal())
        return replies

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Sign and push each message as an exchange of its own; "" for one that could not be sent."""
        ids: list[str] = []
        for (server_round, phase), group in self._grouped(messages).items():
            for message in group:
                exchange = self._exchange(server_round, phase)
                exchange.send([message], lifetime=self._bound(None, [message]) + _MARGIN)
                ids.extend(exchange.asked or [""])
                self._sent.update(dict.fromkeys(exchange.asked, exchange))
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies that have come and that their seals admit, and error replies for refused ones.

        Ids that were not pushed through this grid are left out: their replies cannot be verified.
        """
        replies: list[Message] = []
        for message_id in message_ids:
            exchange = self._sent.get(message_id)
            if exchange is None:
                continue
            outcome: Message | PullFailed | None
            try:
                outcome = next(iter(self._grid.pull_messages([message_id])), None)
            except Exception as error:
                if _private.is_transport_error(error):
                    raise
                outcome = PullFailed(error, transport=False)
            if outcome is not None:
                del self._sent[message_id]
                replies.extend(self._sealed(exchange, message_id, outcome))
        return replies

    def _sealed(self, exchange: Exchange, message_id: str, outcome: Message | PullFailed) -> list[Message]:
        verdict = self._services.judge.judge(exchange.asked[message_id], outcome)
        if isinstance(verdict, Answer):
            exchange.admit(verdict)
        else:
            exchange.refuse(verdict.asked, verdict.reason, verdict.text)
        return exchange.seal()

    # --- nodes

    def get_node_ids(self) -> Iterable[int]:
        """Ids of the nodes whose participant stands well.

        Strategies wait for nodes in an endless loop: after the bound in policy this raises
        `QuorumNotMet` instead.
        """
        return [node.node_id for node in self.get_nodes()]

    def get_nodes(self) -> Iterable[_private.NodeInfo]:
        """The nodes whose participant stands well; see `get_node_ids`."""
        nodes = self._services.nodes.standing()
        now = self._clock.monotonic()
        since, last = self._asked_for_nodes or (now, now)
        if now - last > _DENSE:
            since = now
        self._asked_for_nodes = (since, now)
        waits = self._policy.waits
        bound = waits.nodes if self._has_exchanged else waits.startup
        if now - since > bound.total_seconds():
            raise QuorumNotMet(
                f"the strategy waits for more nodes than stand well: {len(nodes)} after "
                f"{bound.total_seconds():.0f} s",
                hint="lower min_train_nodes or min_available_nodes of the strategy, or enroll more sites",
            )
        return nodes

    # --- the rest of the interface

    def set_run(self, run: _private.Run) -> None:
        self._grid.set_run(run)

    @property
    def run(self) -> _private.Run:
        return self._grid.run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        return self._grid.create_message(content, message_type, dst_node_id, group_id, ttl)

    # --- inside

    def _exchange(self, server_round: int, phase: Phase) -> Exchange:
        run_id = RunId(self.run.run_id)
        self._asked_for_nodes = None
        self._has_exchanged = True
        with _steps_lock:
            _steps[run_id] += 1
            step = _steps[run_id]
        if step == 1:
            atexit.register(_close_run, self._agent, run_id)
        return Exchange(RoundKey(run_id, step, server_round, phase), self._services)

    def _grouped(self, messages: Iterable[Message]) -> dict[tuple[int, Phase], list[Message]]:
        """Messages by round and phase: an exchange is about one of each."""
        groups: dict[tuple[int, Phase], list[Message]] = defaultdict(list)
        counted: dict[Phase, int] = {}
        for message in messages:
            phase = phase_of(message.metadata.message_type)
            server_round = _round_of(message)
            if server_round is None:
                if phase not in counted:
                    self._rounds[phase] += 1
                    counted[phase] = self._rounds[phase]
                server_round = counted[phase]
            groups[server_round, phase].append(message)
        return groups

    def _bound(self, timeout: float | None, messages: list[Message]) -> timedelta:
        """How long to wait for replies: the shortest of what the caller, policy and the messages say."""
        bounds = [message.metadata.ttl for message in messages]
        if timeout is not None:
            bounds.append(timeout)
        if self._policy.waits.timeout is not None:
            bounds.append(self._policy.waits.timeout.total_seconds())
        return timedelta(seconds=max(0.0, min(bounds)))


def _round_of(message: Message) -> int | None:
    """The strategy's own number for the round, where the message says it."""
    for record in message.content.values():
        if isinstance(record, ConfigRecord):
            number = record.get(_ROUND_KEY)
            if isinstance(number, int) and not isinstance(number, bool) and number >= 0:
                return number
    group = message.metadata.group_id
    return int(group) if group.isascii() and group.isdigit() and len(group) < 10 else None


def _close_run(agent: AggregatorAgent, run_id: RunId) -> None:
    """At the end of the ServerApp's process: agents stop signing for this run."""
    with suppress(FltrustError):
        agent.close_run(run_id)
