"""Who is node 4711? Flower names each node's public key; the trust view binds that key to a participant."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from fltrust.errors import CertificateRefused, Refusal, Revoked
from fltrust.flower._private import NodeInfo
from fltrust.identity import KeyId, NodeId, SpiffeId
from fltrust.revocation.state import IdentityState, Standing
from fltrust.revocation.view import TrustView

_log = logging.getLogger("fltrust.flower")

KeyOf = Callable[[NodeInfo], KeyId]


@dataclass(frozen=True, slots=True)
class TrustedNode:
    """A node that is a participant's."""

    node_id: NodeId
    node_key: KeyId
    participant: SpiffeId

    def fallen(self, view: TrustView) -> CertificateRefused | Revoked | None:
        """Why this node is not (any more) one of a participant in good standing; None if it is."""
        known = view.participant_of(self.node_key)
        if known is None or known.spiffe_id != self.participant:
            return CertificateRefused(
                f"the node key of {self.participant} is not enrolled any more",
                reason=Refusal.UNKNOWN_IDENTITY,
            )
        return None if known.standing is Standing.ACTIVE else _barred(known)


class NodeDirectory:
    """Resolves Flower's nodes to participants. Unknown is no: a node without an enrolled key is nobody."""

    def __init__(
        self, list_nodes: Callable[[], Iterable[NodeInfo]], view: TrustView, *, key_of: KeyOf | None = None
    ) -> None:
        self._list_nodes = list_nodes
        self._view = view
        self._key_of = key_of or key_id_of_pem
        self._keys: dict[NodeId, KeyId] = {}
        self._ignored: set[NodeId] = set()

    def standing(self) -> list[NodeInfo]:
        """The nodes that are online for Flower and whose participant stands well, one each."""
        found: dict[SpiffeId, NodeInfo] = {}
        for node in self._list_nodes():
            try:
                trusted = self._resolve(node)
            except (CertificateRefused, Revoked) as error:
                self._say_once(NodeId(node.node_id), error)
                continue
            found.setdefault(trusted.participant, node)
        return list(found.values())

    def find(self, node_id: NodeId) -> TrustedNode:
        """The participant behind a node. Raises `CertificateRefused` (``unknown-identity``) or `Revoked`."""
        if node_id not in self._keys:
            for node in self._list_nodes():
                if node.node_id == node_id:
                    return self._resolve(node)
            raise CertificateRefused(
                f"expected a node of this federation, node {int(node_id)} is unknown",
                reason=Refusal.UNKNOWN_IDENTITY,
            )
        return self._trusted(node_id, self._keys[node_id])

    def _resolve(self, node: NodeInfo) -> TrustedNode:
        node_id = NodeId(node.node_id)
        if node_id not in self._keys:
            self._keys[node_id] = self._key_of(node)
        return self._trusted(node_id, self._keys[node_id])

    def _trusted(self, node_id: NodeId, key: KeyId) -> TrustedNode:
        known = self._view.participant_of(key)
        if known is None:
            raise CertificateRefused(
                f"node {int(node_id)} has a node key that no participant enrolled",
                reason=Refusal.UNKNOWN_IDENTITY,
                hint="let its site join with a token, and start it with 'fltrust supernode'",
            )
        if known.standing is not Standing.ACTIVE:
            raise _barred(known)
        return TrustedNode(node_id, key, known.spiffe_id)

    def _say_once(self, node_id: NodeId, error: Exception) -> None:
        if node_id not in self._ignored:
            self._ignored.add(node_id)
            _log.warning("leaving out node %d: %s", node_id, error)


def _barred(known: IdentityState) -> Revoked:
    reason = Refusal.HELD if known.standing is Standing.HELD else Refusal.REVOKED
    return Revoked(f"{known.spiffe_id} is {known.standing} as of epoch {known.since}", reason=reason)


def key_id_of_pem(node: NodeInfo) -> KeyId:
    """The key id of a node's public key as Flower gives it, PEM; `CertificateRefused` if it is none."""
    try:
        key = load_pem_public_key(node.public_key)
    except ValueError:
        raise CertificateRefused(
            f"expected a public key for node {node.node_id}, found something else",
            reason=Refusal.UNKNOWN_IDENTITY,
        ) from None
    return KeyId.of_spki(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
