"""What an agent does when the CA behind its certificate changes: it gets the next one, in its own time."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from fltrust.agent.credentials import CredentialStore
from fltrust.revocation.events import EventKind, TrustEvent

NEW_ROOTS_WITHIN = timedelta(seconds=30)
"""Agents spread over this when the bundle has other roots: the old ones are still good."""
NEW_CA_WITHIN = timedelta(seconds=3)
"""As above, when the CA behind the certificate is revoked: nothing is good any more."""


class CaChanges:
    """Listens to the trust feed and hastens renewal; `hasten` takes the time to spread over.

    Old events are replayed at a start: what they say is compared with the certificate and bundle in use.
    """

    def __init__(self, store: CredentialStore, hasten: Callable[[timedelta], None]) -> None:
        self._store = store
        self._hasten = hasten

    def heed(self, event: TrustEvent) -> None:
        """Take one event in; returns at once."""
        current = self._store.current
        if event.domain != current.bundle.domain:
            return
        if event.kind is EventKind.ISSUER_REVOKED and event.issuer in current.certificate.issuers:
            self._hasten(NEW_CA_WITHIN)
        elif event.kind is EventKind.BUNDLE_CHANGED and (event.sequence or 0) > current.bundle.sequence:
            self._hasten(NEW_ROOTS_WITHIN)

    def heed_refusal(self) -> None:
        """The coordinator refused our certificate because its CA is revoked: we were away when it was."""
        self._hasten(NEW_CA_WITHIN)
