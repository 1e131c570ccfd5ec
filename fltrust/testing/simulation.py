"""Trust in Flower's simulation runtime: the same two words, with identities that protect nothing.

The ServerApp's process runs a scratch coordinator and one agent for all simulated nodes; the workers
(Ray's, or whatever runs the ClientApps) find it by a private socket whose path follows from uid and run.
"""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from flwr.serverapp import Grid

from fltrust.agent.aggregator import AggregatorCore
from fltrust.agent.credentials import CredentialStore
from fltrust.agent.feedlog import FeedLog
from fltrust.agent.handlers import participant_handlers
from fltrust.agent.journal import Journal
from fltrust.agent.participant import ParticipantCore
from fltrust.agent.ports import AgentIdentity, ReceivedInstruction
from fltrust.agent.server import AgentServer
from fltrust.enrollment.second import no_second_key
from fltrust.errors import AgentUnavailable, PermissionDenied
from fltrust.flower._private import NodeInfo
from fltrust.flower.agents import simulation_socket
from fltrust.flower.grid import TrustedGrid
from fltrust.flower.policy import TrustPolicy
from fltrust.identity import Digest, KeyId, NodeId, Role, RunId
from fltrust.revocation.view import TrustView
from fltrust.testing.coordinator import ScratchCoordinator

_log = logging.getLogger("fltrust.flower")

_CONNECTIONS = 1_024
"""Ray runs many ClientApps at once, and each asks twice."""
_HEARS_WITHIN = 2.0


@contextmanager
def simulated_grid(grid: Grid, policy: TrustPolicy, *, is_legacy: bool = False) -> Iterator[TrustedGrid]:
    """A started `TrustedGrid` over the simulation's grid, with a `SimulationAgent` beside it."""
    with SimulationAgent(RunId(grid.run.run_id), policy) as simulation:
        trusted: TrustedGrid

        def key_of(node: NodeInfo) -> KeyId:
            key = simulation.key_of(node)
            # The grid's view hears of the enrollment a moment later; until then the node would be nobody.
            trusted.view.wait_until(lambda state: state.participant_of(key) is not None, _HEARS_WITHIN)
            return key

        trusted = TrustedGrid(
            grid, agent=simulation.aggregator, policy=policy, key_of=key_of, is_legacy=is_legacy
        )
        with trusted:
            yield trusted


class SimulationAgent:
    """Everybody's agent in one simulated run: the aggregator's in this process, the nodes' on a socket."""

    def __init__(self, run_id: RunId, policy: TrustPolicy) -> None:
        self._path = simulation_socket(run_id)
        self._policy = policy
        self._coordinator = ScratchCoordinator("simulation.example")
        self._lock = threading.Lock()
        self._nodes: dict[NodeId, ParticipantCore] = {}
        self._keys: dict[NodeId, KeyId] = {}
        self._stack = ExitStack()
        self._stack.callback(self._coordinator.close)
        self.aggregator = self._aggregator()

    def key_of(self, node: NodeInfo) -> KeyId:
        """The key id of a simulated node, which is enrolled when it is first seen.

        Flower gives simulated nodes random bytes for a public key, so the node id stands in for it.
        """
        with self._lock:
            return self._enrolled(NodeId(node.node_id))

    def identity(self) -> AgentIdentity:
        """Which identity this is cannot be said: one socket serves all nodes."""
        raise PermissionDenied("a simulation's agent has no identity of its own: it speaks for every node")

    def check_instruction(self, received: ReceivedInstruction) -> None:
        """`ParticipantAgent.check_instruction`, by the agent of the node that is named."""
        self._known(received.node_id).check_instruction(received)

    def sign_update(self, received: ReceivedInstruction, *, reply: Digest, reply_type: str) -> bytes:
        """`ParticipantAgent.sign_update`, by the agent of the node that is named."""
        return self._known(received.node_id).sign_update(received, reply=reply, reply_type=reply_type)

    def sign_second(self, _signed: bytes) -> bytes:
        """Refused: the nodes of a simulation have no second key."""
        raise no_second_key("a simulated node")

    def __enter__(self) -> SimulationAgent:
        server = AgentServer(self._path, handlers=participant_handlers(self), max_connections=_CONNECTIONS)
        server.start()
        self._stack.callback(shutil.rmtree, self._path.parent, ignore_errors=True)
        self._stack.callback(server.stop)
        _log.warning(
            "SIMULATION: the identities of this run were made on the spot, in one process, and protect "
            "NOTHING. What you see is how fltrust behaves, not that you are safe."
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _known(self, node_id: NodeId) -> ParticipantCore:
        with self._lock:
            core = self._nodes.get(node_id)
        if core is None:
            raise AgentUnavailable(f"expected a node of this simulation, got node {int(node_id)}")
        return core

    def _enrolled(self, node_id: NodeId) -> KeyId:
        """The key of a node, enrolled if it is new. Called with the lock held."""
        if node_id not in self._keys:
            identity = self._coordinator.enroll(f"node-{int(node_id)}")
            view = TrustView(self._coordinator.clock, self._policy.reach)
            self._coordinator.keep_current(view, reader=identity.spiffe_id)
            journal = Journal(None)
            self._stack.callback(journal.close)
            self._nodes[node_id] = ParticipantCore(
                CredentialStore(identity.credentials),
                node_key=identity.node_key,
                view=view,
                journal=journal,
                clock=self._coordinator.clock,
            )
            self._keys[node_id] = identity.node_key
        return self._keys[node_id]

    def _aggregator(self) -> AggregatorCore:
        identity = self._coordinator.enroll("simulation", Role.AGGREGATOR)
        view = TrustView(self._coordinator.clock, self._policy.reach)
        log = FeedLog(view, clock=self._coordinator.clock)
        self._coordinator.keep_current(view, reader=identity.spiffe_id)
        return AggregatorCore(
            CredentialStore(identity.credentials),
            view=view,
            log=log,
            coordinator=self._coordinator.link(identity),
            clock=self._coordinator.clock,
        )
