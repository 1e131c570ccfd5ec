"""The roots that a run verifies against, as they change while it runs."""

from __future__ import annotations

import threading
from typing import Protocol

from fltrust.agent.ports import AgentIdentity
from fltrust.identity import TrustDomain
from fltrust.revocation.events import EventKind, TrustEvent
from fltrust.revocation.view import TrustView
from fltrust.updates import Verifier


class IdentitySource(Protocol):
    """Who knows the bundle of the moment: the agent, which follows it."""

    def identity(self) -> AgentIdentity: ...


class LiveVerifier:
    """Gives a `Verifier` for the bundle in force. For many threads.

    The agent is asked again once the feed has told of another bundle, until it has that. What leads to a root
    that it does not have yet is refused: a root is added a minute before anything is issued under it.
    """

    def __init__(self, agent: IdentitySource, view: TrustView) -> None:
        self._agent = agent
        identity = agent.identity()
        bundle = identity.bundle
        self._lock = threading.Lock()
        self._domain, self._sequence, self._wanted = bundle.domain, bundle.sequence, bundle.sequence
        self._foreign, self._told = _sequences(identity), dict[TrustDomain, int]()
        self._verifier = Verifier(bundle, foreign=identity.foreign)
        view.subscribe(self._heed)

    def __call__(self) -> Verifier:
        with self._lock:
            if self._is_behind():
                identity = self._agent.identity()
                foreign = _sequences(identity)
                if identity.bundle.sequence > self._sequence or foreign != self._foreign:
                    self._sequence = max(self._sequence, identity.bundle.sequence)
                    self._foreign = foreign
                    self._verifier = Verifier(identity.bundle, foreign=identity.foreign)
            return self._verifier

    def _is_behind(self) -> bool:
        if self._wanted > self._sequence:
            return True
        return any(sequence > self._foreign.get(domain, -1) for domain, sequence in self._told.items())

    def _heed(self, event: TrustEvent) -> None:
        if event.kind is not EventKind.BUNDLE_CHANGED or event.domain is None:
            return
        with self._lock:
            if event.domain == self._domain:
                self._wanted = max(self._wanted, event.sequence or 0)
            else:
                self._told[event.domain] = max(self._told.get(event.domain, 0), event.sequence or 0)


def _sequences(identity: AgentIdentity) -> dict[TrustDomain, int]:
    return {bundle.domain: bundle.sequence for bundle in identity.foreign}
