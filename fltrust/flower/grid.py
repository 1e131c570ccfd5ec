"""`TrustedGrid`: any Flower `Grid`, with every instruction signed and every reply verified and sealed."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Self

from flwr.app import ArrayRecord, Message, RecordDict
from flwr.serverapp import Grid

from fltrust.agent.ports import AggregatorAgent
from fltrust.client.follower import TrustFollower
from fltrust.clock import Clock, SystemClock
from fltrust.errors import CertificateRefused, Revoked
from fltrust.eventlog import EventLog
from fltrust.flower import _private
from fltrust.flower.collecting import Collector
from fltrust.flower.exchange import Exchange
from fltrust.flower.nodes import KeyOf, NodeDirectory
from fltrust.flower.numbering import claimed_round, numbers_of
from fltrust.flower.policy import TrustPolicy
from fltrust.flower.recording import ARRAYS, LineageRecorder
from fltrust.flower.retention import retainer_of
from fltrust.flower.roots import LiveVerifier
from fltrust.flower.services import ExchangeReport, Services
from fltrust.flower.verdicts import Judge
from fltrust.flower.waiting import NodeWait
from fltrust.identity import NodeId, RunId
from fltrust.pki.second import read_second_ca, second_roots_of
from fltrust.revocation.view import TrustView
from fltrust.rounds.types import RoundKey
from fltrust.updates import Phase, StructurePolicy, phase_of

_log = logging.getLogger("fltrust.flower")

_MARGIN = timedelta(seconds=60)
"""An instruction outlives the wait for its answer by this much."""
_SOON = 0.5
"""Seconds for which a pull by hand waits for something to come."""


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
        is_legacy: bool = False,
    ) -> None:
        """`key_of` says how a node's key id is read from Flower's `NodeInfo` (PEM by default).

        `is_legacy`: the app exchanges each message by itself, so quorum and waits are its wrapper's.
        """
        self._grid = grid
        self._agent = agent
        self._clock = clock or SystemClock()
        self._policy = policy or TrustPolicy()
        self._view = TrustView(self._clock, self._policy.reach)
        self._follower = TrustFollower(agent, self._view)
        verifier = LiveVerifier(agent, self._view)
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
                second_roots=second_roots_of(map(read_second_ca, self._policy.second_roots)),
            ),
            verifier=verifier,
            policy=self._policy,
            numbers=numbers_of(RunId(grid.run.run_id)),
            clock=self._clock,
            events=events or EventLog.from_environment(process="serverapp"),
            retainer=retainer_of(self._policy.retention, RunId(grid.run.run_id)),
        )
        self._lineage = LineageRecorder(
            self._services, run=grid.run, is_on=self._policy.lineage and not is_legacy
        )
        self._is_legacy = is_legacy
        self._node_wait = NodeWait(self._policy.waits)
        self._direct_lock = threading.Lock()
        self._direct: Collector | None = None
        """Collects for `pull_messages`, from the first `push_messages` on."""
        self._sent: dict[str, Exchange] = {}
        self._decided: set[str] = set()

    def start(self) -> Self:
        """Follow the trust feed; returns once the view is as fresh as policy asks, or raises why not."""
        self._follower.start()
        self._require_fresh()
        return self

    def close(self) -> None:
        """Stop following the feed. The run stays open: another strategy of the same ServerApp may go on
        with it. `trusted_grid` closes it when the process ends."""
        self._follower.stop()
        with self._direct_lock:
            if self._direct is not None:
                self._direct.close()

    def stands_well(self, node_id: int) -> bool:
        """Whether this node's participant is in good standing now."""
        try:
            self._services.nodes.find(NodeId(node_id))
        except (CertificateRefused, Revoked):
            return False
        return True

    def meets_quorum(self, *, server_round: int, got: int, asked: int) -> bool:
        """Whether `got` updates of `asked` are enough; raises `QuorumNotMet` where policy says so."""
        return self._services.meets_quorum(round_=server_round, got=got, asked=asked, missing="")

    @property
    def reports(self) -> tuple[ExchangeReport, ...]:
        """How each exchange ended, so far."""
        return tuple(self._services.reports)

    @property
    def lineage(self) -> LineageRecorder:
        """Records aggregates; `TrustedStrategy` does it by itself."""
        return self._lineage

    def record_aggregate(
        self, server_round: int, arrays: ArrayRecord, *, record: str = ARRAYS
    ) -> tuple[bytes, ...]:
        """Record a model that an app's own loop made, and return the provenance so far, the newest first.

        Call it with round 0 for the arrays that the loop begins with (`record` names the record that
        instructions carry them in), and after each round with what it made of the replies of one
        `send_and_receive`. Messages that are sent one by one are rounds of their own and leave no aggregate
        that could be recorded.
        """
        if server_round == 0:
            self._lineage.begin(arrays, record=record)
        else:
            self._lineage.record(arrays)
        return self._lineage.bundles

    def _require_fresh(self) -> None:
        """Wait, for as long as policy is patient, for a view as fresh as policy asks."""
        patience = self._policy.waits.patience.total_seconds()
        self._view.wait_until(lambda _: self._view.age() <= self._policy.reach.bound, patience)
        if not self._view.require_fresh():
            _log.warning("going on with a trust view that is %s old, as policy says", self._view.age())

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def longest_node_wait(self) -> timedelta:
        """How long a strategy may wait for nodes at this point of the run."""
        return self._node_wait.bound

    @property
    def view(self) -> TrustView:
        """Who stands how, as this grid knows it."""
        return self._view

    # --- exchanges

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Ask, wait, verify, seal; see the class. Returns as soon as everybody worth waiting for is decided.

        Raises `QuorumNotMet` where policy says so, and what keeps the aggregator itself from working
        (agent or coordinator out of reach, this aggregator revoked). Never raises for what one
        participant did.
        """
        exchanges = []
        owner: dict[str, Exchange] = {}
        with self._collector() as collector:
            for group in self._grouped(messages):
                bound = self._bound(timeout, group.messages)
                exchange = self._exchange(group, has_quorum=not self._is_legacy)
                exchange.send(group.messages, lifetime=bound + _MARGIN)
                collector.expect(exchange.asked, within=bound)
                owner.update(dict.fromkeys(exchange.asked, exchange))
                exchanges.append(exchange)
            while collector.is_waiting:
                for message_id, verdict in collector.gather():
                    owner[message_id].take(verdict)
        return [reply for exchange in exchanges for reply in exchange.seal()]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Sign and push each message as an exchange of its own, and begin to pull its reply.

        The ids are in the order of the messages, "" for one that could not be sent.
        """
        ids: list[str] = []
        for message in messages:
            (group,) = self._grouped([message])
            bound = self._bound(None, group.messages)
            exchange = self._exchange(group, has_quorum=False)
            exchange.send(group.messages, lifetime=bound + _MARGIN)
            ids.append(next(iter(exchange.asked), ""))
            with self._direct_lock:
                self._direct = self._direct or self._collector()
                self._direct.expect(exchange.asked, within=bound)
                self._sent.update(dict.fromkeys(exchange.asked, exchange))
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies that have come and that their seals admit, and error replies for refused ones.

        Returns soon, with nothing where nothing has come. Ids that were not pushed through this grid are
        left out: their replies cannot be verified.
        """
        wanted = {message_id for message_id in message_ids if message_id in self._sent}
        if not wanted or self._direct is None:
            return []
        with self._direct_lock:
            for message_id, verdict in self._direct.gather(wait=_SOON):
                self._sent[message_id].take(verdict)
                self._decided.add(message_id)
            ready = [self._sent.pop(message_id) for message_id in sorted(wanted & self._decided)]
            self._decided -= wanted
        return [reply for exchange in ready for reply in exchange.seal()]

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
        if not self._is_legacy:  # a legacy ServerApp looks for nodes in the background, all the time
            self._node_wait.asked(len(nodes))
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

    def _collector(self) -> Collector:
        services = self._services
        return Collector(
            self._grid.pull_messages, judge=services.judge, view=self._view, waits=self._policy.waits
        )

    def _exchange(self, group: _Group, *, has_quorum: bool) -> Exchange:
        self._node_wait.done()
        self._require_fresh()
        run_id, numbers = RunId(self.run.run_id), self._services.numbers
        key = RoundKey(run_id, numbers.next_step(), group.round, group.phase)
        return Exchange(key, self._services, has_quorum)

    def _grouped(self, messages: Iterable[Message]) -> list[_Group]:
        """Messages by round, phase, and how often their node was asked already: an exchange is about one
        round and phase, and asks nobody twice."""
        groups: dict[tuple[int | None, Phase, int], _Group] = {}
        asked: Counter[tuple[int | None, Phase, int]] = Counter()
        for message in messages:
            phase, claimed = phase_of(message.metadata.message_type), claimed_round(message)
            node = (claimed, phase, message.metadata.dst_node_id)
            which = (claimed, phase, asked[node])
            asked[node] += 1
            if which not in groups:
                first = groups.get((claimed, phase, 0))
                number = self._services.numbers.round_of(phase, claimed) if first is None else first.round
                groups[which] = _Group(number, phase, [])
            groups[which].messages.append(message)
        return list(groups.values())

    def _bound(self, timeout: float | None, messages: list[Message]) -> timedelta:
        """How long to wait for replies: the shortest of what the caller, policy and the messages say."""
        bounds = [message.metadata.ttl for message in messages]
        if timeout is not None:
            bounds.append(timeout)
        if self._policy.waits.timeout is not None:
            bounds.append(self._policy.waits.timeout.total_seconds())
        return timedelta(seconds=max(0.0, min(bounds)))


@dataclass(slots=True)
class _Group:
    round: int
    phase: Phase
    messages: list[Message]
