"""Who was given which instruction, and what each node announced: the memory behind the Fleet guard.

Pure and bounded: what falls out at the far end is unknown, and unknown is no. Belongs to the event loop.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from fltrust.errors import Conflict, Malformed, Oversized, PermissionDenied, Refusal
from fltrust.identity import KeyId, NodeId, RunId

MAX_INSTRUCTIONS = 64
"""Instructions (and replies to them) remembered per node; Flower gives a node one at a time."""

MAX_MESSAGE_IDS = 1 << 17
MAX_OBJECTS = 100_000
MAX_DEPTH = 8
"""Message ids remembered in all; objects in one message and levels of its tree (Flower's own has five)."""

K = TypeVar("K")
V = TypeVar("V")


class Bounded(OrderedDict[K, V], Generic[K, V]):
    """A dict that forgets its oldest entry when it grows over `limit`."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit

    def __setitem__(self, key: K, value: V) -> None:
        super().__setitem__(key, value)
        self.move_to_end(key)
        if len(self) > self._limit:
            self.popitem(last=False)


@dataclass(frozen=True, slots=True)
class Instruction:
    """A message that was delivered to a node."""

    message_id: str
    run_id: RunId
    message_type: str
    source: NodeId
    objects: frozenset[str]


@dataclass(frozen=True, slots=True)
class Announcement:
    """A reply that a node said it will upload: `metadata` is what it claimed of it, as bytes;
    `children` maps every object of its tree to those right below it."""

    message_id: str
    reply_to: str
    run_id: RunId
    metadata: bytes
    children: Mapping[str, tuple[str, ...]]


@dataclass(slots=True)
class _Node:
    instructions: Bounded[str, Instruction] = field(default_factory=lambda: Bounded(MAX_INSTRUCTIONS))
    replies: Bounded[str, Announcement] = field(default_factory=lambda: Bounded(MAX_INSTRUCTIONS))
    sessions: Bounded[str, Announcement] = field(default_factory=lambda: Bounded(MAX_INSTRUCTIONS))


class FleetLedger:
    """What each node may answer, fetch, confirm and upload, as far as this SuperLink saw it."""

    def __init__(self) -> None:
        self._keys: dict[NodeId, KeyId] = {}
        self._nodes: dict[NodeId, _Node] = {}
        self._messages: Bounded[str, NodeId | None] = Bounded(MAX_MESSAGE_IDS)

    # --- nodes

    def learn(self, node_id: NodeId, key: KeyId) -> None:
        """Remember that Flower knows this node by this key."""
        self._keys[node_id] = key

    def key_of(self, node_id: NodeId) -> KeyId | None:
        return self._keys.get(node_id)

    def forget(self, node_id: NodeId) -> None:
        """Drop all that is known of a node: nothing is its to answer any more."""
        self._keys.pop(node_id, None)
        self._nodes.pop(node_id, None)

    # --- instructions

    def deliver(self, node_id: NodeId, instruction: Instruction) -> None:
        """Remember that this node was given this instruction."""
        self._node(node_id).instructions[instruction.message_id] = instruction
        self._messages[instruction.message_id] = None

    def instruction(self, node_id: NodeId, message_id: str) -> Instruction:
        """Return the instruction if it was given to this node, else refuse (``wrong-instruction``)."""
        found = self._node(node_id).instructions.get(message_id)
        if found is None:
            raise PermissionDenied(
                f"node {node_id} speaks of an instruction that it was not given",
                reason=Refusal.WRONG_INSTRUCTION,
            )
        return found

    def check_run(self, node_id: NodeId, run_id: RunId) -> None:
        """Return if the node has an instruction of this run, else refuse (``wrong-run``)."""
        if not any(given.run_id == run_id for given in self._node(node_id).instructions.values()):
            raise PermissionDenied(
                f"node {node_id} asks about run {run_id}, of which it was given nothing",
                reason=Refusal.WRONG_RUN,
            )

    def check_fetch(self, node_id: NodeId, run_id: RunId, object_id: str) -> None:
        """Return if the object belongs to an instruction of this run that the node was given."""
        for given in reversed(self._node(node_id).instructions.values()):
            if object_id in given.objects and given.run_id == run_id:
                return
        raise PermissionDenied(
            f"node {node_id} fetches an object that belongs to no instruction it was given",
            reason=Refusal.WRONG_INSTRUCTION,
        )

    # --- replies

    def check_announcement(self, node_id: NodeId, reply: Announcement) -> None:
        """Return if this may be the node's reply; the same reply again is the same reply.

        1. It answers an instruction that the node was given, of the same run.
        2. The node announced no other reply to it (``duplicate``).
        3. No other message has this id (``replayed``).
        """
        given = self.instruction(node_id, reply.reply_to)  # 1
        if given.run_id != reply.run_id:
            raise PermissionDenied(
                f"node {node_id} answers an instruction of run {given.run_id} in run {reply.run_id}",
                reason=Refusal.WRONG_RUN,
            )
        earlier = self._node(node_id).replies.get(reply.reply_to)
        if earlier is not None and earlier != reply:  # 2
            raise Conflict(
                f"node {node_id} announces a second, different reply to one instruction",
                reason=Refusal.DUPLICATE,
            )
        if earlier is None and reply.message_id in self._messages:  # 3
            raise Conflict(
                f"node {node_id} announces a reply under the id of another message", reason=Refusal.REPLAYED
            )

    def announce(self, node_id: NodeId, reply: Announcement, *, session_id: str) -> None:
        """Remember the announcement that Flower took, and the session in which it is uploaded."""
        node = self._node(node_id)
        node.replies[reply.reply_to] = reply
        self._messages[reply.message_id] = node_id
        if session_id:
            node.sessions[session_id] = reply

    def upload(self, node_id: NodeId, session_id: str) -> Announcement:
        """Return what is uploaded in this session, if it is this node's; else refuse (``wrong-node``)."""
        found = self._node(node_id).sessions.get(session_id)
        if found is None:
            raise PermissionDenied(
                f"node {node_id} uploads in a session that is not its own", reason=Refusal.WRONG_NODE
            )
        return found

    def _node(self, node_id: NodeId) -> _Node:
        node = self._nodes.get(node_id)
        if node is None:
            node = self._nodes[node_id] = _Node()
        return node


class Tree(Protocol):
    """The shape of Flower's ``ObjectTree`` message."""

    @property
    def object_id(self) -> str: ...

    @property
    def children(self) -> Iterable[Tree]: ...


def flatten(tree: Tree) -> dict[str, tuple[str, ...]]:
    """Map every object of a tree to its children, within bounds, without recursion.

    `Oversized` above `MAX_OBJECTS` or `MAX_DEPTH`; `Malformed` for an id that is not 64 lower-case hex
    digits, or an object that stands in the tree twice with different children.
    """
    found: dict[str, tuple[str, ...]] = {}
    level, depth, count = [tree], 0, 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise Oversized(f"expected an object tree of at most {MAX_DEPTH} levels, got more")
        below: list[Tree] = []
        for item in level:
            count += 1
            if count > MAX_OBJECTS:
                raise Oversized(f"expected at most {MAX_OBJECTS} objects in a message, got more")
            if not is_object_id(item.object_id):
                raise Malformed("expected object ids of 64 hex digits in an object tree, got another")
            children = tuple(item.children)
            names = tuple(child.object_id for child in children)
            if found.setdefault(item.object_id, names) != names:
                raise Malformed("expected one set of children for each object of a tree, got two")
            below.extend(children)
        level = below
    return found


def is_object_id(text: str) -> bool:
    """Say whether this is how Flower names objects and messages: SHA-256 in 64 lower-case hex digits."""
    return len(text) == 64 and all(digit in "0123456789abcdef" for digit in text)
