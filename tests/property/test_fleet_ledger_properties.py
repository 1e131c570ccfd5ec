"""The Fleet guard's memory, against any order of what nodes are given and what they claim."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from fltrust.errors import FltrustError
from fltrust.flower.fleet_ledger import (
    MAX_DEPTH,
    MAX_OBJECTS,
    Announcement,
    Bounded,
    FleetLedger,
    Instruction,
    flatten,
    is_object_id,
)
from fltrust.identity import KeyId, NodeId, RunId

NODES = st.integers(1, 3).map(NodeId)
RUNS = st.integers(1, 2).map(RunId)
MESSAGES = st.integers(0, 7).map(lambda number: sha256(bytes([number])).hexdigest())
SESSIONS = st.integers(0, 3).map(str)


class AnyOrder(RuleBasedStateMachine):
    """A model that keeps everything: what the ledger lets a node do, the model must have seen it given."""

    @initialize()
    def begin(self) -> None:
        self.ledger = FleetLedger()
        self.given: dict[tuple[NodeId, str], RunId] = {}
        self.instructions: set[str] = set()
        self.accepted: dict[tuple[NodeId, str], str] = {}
        self.owner: dict[str, tuple[NodeId, str]] = {}
        self.sessions: dict[tuple[NodeId, str], str] = {}

    @rule(node=NODES, run=RUNS, message=MESSAGES)
    def deliver(self, node: NodeId, run: RunId, message: str) -> None:
        if message in self.instructions or message in self.owner:
            return  # Flower gives every instruction an id of its own, and to one node
        self.ledger.deliver(node, Instruction(message, run, "train", NodeId(99), frozenset((message,))))
        self.given[node, message] = run
        self.instructions.add(message)

    @rule(node=NODES, run=RUNS, reply_to=MESSAGES, message=MESSAGES, session=SESSIONS)
    def push(self, node: NodeId, run: RunId, reply_to: str, message: str, session: str) -> None:
        reply = Announcement(message, reply_to, run, b"", {message: ()})
        allowed = (
            self.given.get((node, reply_to)) == run
            and self.accepted.get((node, reply_to), message) == message
            and message not in self.instructions
            and self.owner.get(message, (node, reply_to)) == (node, reply_to)
        )
        try:
            self.ledger.check_announcement(node, reply)
        except FltrustError:
            assert not allowed
            return
        assert allowed
        self.ledger.announce(node, reply, session_id=f"{node}-{session}")
        self.accepted[node, reply_to] = message
        self.owner[message] = (node, reply_to)
        self.sessions[node, f"{node}-{session}"] = message

    @rule(node=NODES, owner=NODES, session=SESSIONS)
    def upload(self, node: NodeId, owner: NodeId, session: str) -> None:
        name = f"{owner}-{session}"
        try:
            found = self.ledger.upload(node, name)
        except FltrustError:
            assert (node, name) not in self.sessions
        else:
            assert self.sessions[node, name] == found.message_id

    @rule(node=NODES, run=RUNS, message=MESSAGES)
    def fetch(self, node: NodeId, run: RunId, message: str) -> None:
        try:
            self.ledger.check_fetch(node, run, message)
        except FltrustError:
            assert self.given.get((node, message)) != run
        else:
            assert self.given[node, message] == run

    @rule(node=NODES)
    def forget(self, node: NodeId) -> None:
        self.ledger.learn(node, KeyId("0" * 64))
        self.ledger.forget(node)
        assert self.ledger.key_of(node) is None
        for known in (self.given, self.accepted, self.sessions):
            for key in [key for key in known if key[0] == node]:
                del known[key]

    @invariant()
    def no_reply_has_two_owners(self) -> None:
        if hasattr(self, "owner"):
            assert not self.instructions & set(self.owner)


TestAnyOrder = AnyOrder.TestCase


@dataclass
class Node:
    object_id: str
    children: list[Node]


TREES = st.recursive(
    MESSAGES.map(lambda name: Node(name, [])),
    lambda below: st.builds(Node, MESSAGES, st.lists(below, max_size=3)),
    max_leaves=20,
)


@given(TREES)
def test_a_flattened_tree_names_every_object_once_with_its_children(tree: Node) -> None:
    try:
        found = flatten(tree)
    except FltrustError:
        return
    seen = [tree]
    for item in seen:
        assert found[item.object_id] == tuple(child.object_id for child in item.children)
        seen.extend(item.children)
    assert set(found) == {item.object_id for item in seen}


def test_a_tree_is_bounded_in_depth_and_in_number() -> None:
    name = "a" * 64
    deep = Node(name, [])
    for level in range(MAX_DEPTH):
        deep = Node(f"{level:064x}", [deep])
    with pytest.raises(FltrustError, match="levels"):
        flatten(deep)
    wide = Node(name, [Node("b" * 64, [])] * MAX_OBJECTS)
    with pytest.raises(FltrustError, match="objects"):
        flatten(wide)


@given(st.text(max_size=70))
def test_an_object_id_is_64_lower_case_hex_digits(text: str) -> None:
    assert not is_object_id(text) or (text.lower() == text and len(bytes.fromhex(text)) == 32)


@given(st.lists(st.integers(0, 30)), st.integers(1, 8))
def test_a_bounded_dict_keeps_the_newest(keys: list[int], limit: int) -> None:
    kept: Bounded[int, int] = Bounded(limit)
    for key in keys:
        kept[key] = key
    newest = list(dict.fromkeys(reversed(keys)))[:limit]
    assert list(reversed(kept)) == newest
