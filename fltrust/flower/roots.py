"""The roots that a run verifies against, as they change while it runs."""

from __future__ import annotations

import threading
from typing import Protocol

from fltrust.agent.ports import AgentIdentity
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
        bundle = agent.identity().bundle
        self._lock = threading.Lock()
        self._domain, self._sequence, self._wanted = bundle.domain, bundle.sequence, bundle.sequence
        self._verifier = Verifier(bundle)
        view.subscribe(self._heed)

    def __call__(self) -> Verifier:
        with self._lock:
            if self._wanted > self._sequence:
                bundle = self._agent.identity().bundle
                if bundle.sequence > self._sequence:
                    self._sequence, self._verifier = bundle.sequence, Verifier(bundle)
            return self._verifier

    def _heed(self, event: TrustEvent) -> None:
        if event.kind is EventKind.BUNDLE_CHANGED and event.domain == self._domain:
            with self._lock:
                self._wanted = max(self._wanted, event.sequence or 0)
