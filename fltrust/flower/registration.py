"""Flower's registry of nodes, kept in step with the trust view.

A node is registered when its participant first activates it, with the key that was enrolled and with no
other; a revoked participant's nodes are unregistered at once, so that whatever waits for them is answered.
A held participant stays registered: Flower never takes a key twice, and a hold may end.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import Protocol

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)

from fltrust.errors import CertificateRefused, Malformed, Refusal
from fltrust.eventlog import EventLog
from fltrust.flower.counters import Counters
from fltrust.identity import KeyId, NodeId, SpiffeId
from fltrust.keys.openssh import spki_der
from fltrust.keys.verify import is_p256
from fltrust.revocation.events import EventKind, TrustEvent
from fltrust.revocation.state import Standing
from fltrust.revocation.view import TrustView

MAX_PEM = 1024
_log = logging.getLogger("fltrust.superlink")


class Nodes(Protocol):
    """Flower's registry, as `_private.NodeTable` reaches it. Each call may block."""

    def find(self, public_key_pem: bytes) -> int | None: ...

    def register(self, public_key_pem: bytes) -> int: ...

    def unregister(self, node_id: int) -> bool: ...

    def free(self, node_id: int) -> bool: ...

    def list_keys(self) -> tuple[tuple[int, bytes], ...]: ...

    def drop_instruction(self, message_id: str) -> None: ...


def node_key_of(pem: bytes) -> KeyId:
    """Return the id of a node key as Flower writes it: P-256, SubjectPublicKeyInfo in PEM, no other bytes.

    `Malformed` for anything else: one key in two spellings would be two nodes.
    """
    if len(pem) > MAX_PEM:
        raise Malformed(f"expected a node key of at most {MAX_PEM} bytes, got {len(pem)}")
    try:
        key = load_pem_public_key(pem)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise Malformed("expected a node key as a public key in PEM, got something else") from None
    if not is_p256(key):
        raise Malformed("expected a node key on P-256, got a key of another kind")
    if key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo) != pem:
        raise Malformed("expected a node key as Flower writes it, got other bytes around it")
    return KeyId.of_spki(spki_der(key))


class NodeRegistrar:
    """Registers, frees and unregisters. The async methods belong to the loop, `on_event` to any thread."""

    def __init__(
        self,
        nodes: Nodes,
        view: TrustView,
        *,
        counters: Counters,
        events: EventLog,
        on_lost: Callable[[NodeId], None],
    ) -> None:
        """`on_lost` is called, in whatever thread, after a node was unregistered."""
        self._nodes = nodes
        self._view = view
        self._counters = counters
        self._events = events
        self._on_lost = on_lost
        self._lock = threading.Lock()
        self._seen: dict[NodeId, tuple[SpiffeId, KeyId]] = {}

    async def activate(self, who: SpiffeId, key: KeyId, pem: bytes) -> NodeId:
        """Make sure that Flower will let this enrolled node in, and return its id.

        1. The key is registered, now if it never was. A key that was unregistered stays out.
        2. A process that died without saying so does not keep its successor waiting for a heartbeat.
        3. A revocation that came in between wins.
        """
        return await asyncio.to_thread(self._activate, who, key, pem)

    async def find(self, pem: bytes) -> NodeId | None:
        """Return the id under which Flower knows a key."""
        found = await asyncio.to_thread(self._nodes.find, pem)
        return None if found is None else NodeId(found)

    async def drop_instruction(self, message_id: str) -> None:
        """Answer an instruction with 'unavailable', because its reply was refused for good."""
        await asyncio.to_thread(self._nodes.drop_instruction, message_id)

    def on_event(self, event: TrustEvent) -> None:
        """Unregister whom this event puts out. Never raises: the feed must go on."""
        try:
            if event.kind is EventKind.REVOKED and event.identity_wide and event.subject is not None:
                self._unregister(lambda who, _: who == event.subject, reason=Refusal.REVOKED)
            elif event.kind is EventKind.ENROLLED and event.node_key is not None:
                new = KeyId.of_spki(event.node_key)
                self._unregister(lambda who, key: who == event.subject and key != new, reason="replaced")
        except Exception:  # the feed must go on
            _log.exception("could not unregister the nodes of %s; the Fleet API refuses them", event.subject)

    def reconcile(self) -> None:
        """Unregister every node of a kept database whose participant is revoked by now."""
        self._unregister(lambda who, _: self._standing(who) is Standing.REVOKED, reason=Refusal.REVOKED)

    def _activate(self, who: SpiffeId, key: KeyId, pem: bytes) -> NodeId:
        found = self._nodes.find(pem)
        if found is None:  # 1
            found = self._nodes.register(pem)
            self._tell("node-registered", who, NodeId(found))
        elif self._nodes.free(found):  # 2
            self._tell("node-freed", who, NodeId(found))
        node_id = NodeId(found)
        with self._lock:
            self._seen[node_id] = (who, key)
        if self._standing(who) is Standing.REVOKED:  # 3
            self._unregister(lambda name, _: name == who, reason=Refusal.REVOKED)
            raise CertificateRefused(f"{who} was revoked while it activated a node", reason=Refusal.REVOKED)
        return node_id

    def _unregister(self, is_out: Callable[[SpiffeId, KeyId], bool], *, reason: str) -> None:
        for node_id, (who, key) in self._known().items():
            if not is_out(who, key):
                continue
            if self._nodes.unregister(node_id):
                self._tell("node-unregistered", who, node_id, reason=str(reason))
            with self._lock:
                self._seen.pop(node_id, None)
            self._on_lost(node_id)

    def _known(self) -> dict[NodeId, tuple[SpiffeId, KeyId]]:
        """Every node whose participant is known: those seen here, and those in Flower's database."""
        with self._lock:
            known = dict(self._seen)
        for number, pem in self._nodes.list_keys():
            node_id = NodeId(number)
            if node_id in known:
                continue
            try:
                key = node_key_of(pem)
            except Malformed:
                continue  # registered by hand with a key that no participant of ours can have
            state = self._view.participant_of(key)
            if state is not None:
                known[node_id] = (state.spiffe_id, key)
        return known

    def _standing(self, who: SpiffeId) -> Standing | None:
        for state in self._view.identities():
            if state.spiffe_id == who:
                return state.standing
        return None

    def _tell(self, event: str, who: SpiffeId, node_id: NodeId, **fields: str) -> None:
        self._counters.add(event.replace("node-", "nodes."))
        self._events.emit(event, participant=str(who), node_id=str(int(node_id)), **fields)
        _log.info("%s: node %d of %s", event, node_id, who)
