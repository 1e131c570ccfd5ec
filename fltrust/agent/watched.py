"""The coordinator's feed, as the agent follows it: listening for a no that is about ourselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from fltrust.agent.credentials import CredentialStore
from fltrust.errors import CertificateRefused, Refusal, Revoked
from fltrust.identity import Epoch
from fltrust.revocation.events import FeedItem
from fltrust.revocation.ports import TrustFeed


class WatchedFeed(TrustFeed):
    """Passes the feed on, and tells `on_revoked` when the coordinator refuses us as revoked.

    The refusal goes on to the follower as well, which keeps asking: a hold can be released. A hold is
    not told, nor a refusal of a certificate that we have replaced meanwhile.
    """

    def __init__(
        self,
        feed: TrustFeed,
        store: CredentialStore,
        *,
        on_revoked: Callable[[Revoked], None],
        on_ca_revoked: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_ca_revoked` is told when we are refused because the CA behind our certificate is revoked."""
        self._on_ca_revoked = on_ca_revoked
        self._feed = feed
        self._store = store
        self._on_revoked = on_revoked

    def watch(self, after: Epoch) -> Iterator[FeedItem]:
        return _Items(self._feed.watch(after), self._store, self._on_revoked, self._on_ca_revoked)


class _Items(Iterator[FeedItem]):
    def __init__(
        self,
        items: Iterator[FeedItem],
        store: CredentialStore,
        on_revoked: Callable[[Revoked], None],
        on_ca_revoked: Callable[[], None],
    ) -> None:
        self._on_ca_revoked = on_ca_revoked
        self._items = items
        self._store = store
        self._on_revoked = on_revoked
        self._shown = store.current

    def __next__(self) -> FeedItem:
        try:
            return next(self._items)
        except Revoked as error:
            if error.reason != Refusal.HELD and self._store.current is self._shown:
                self._on_revoked(error)
            raise
        except CertificateRefused as error:
            if error.reason == Refusal.ISSUER_REVOKED and self._store.current is self._shown:
                self._on_ca_revoked()
            raise

    def close(self) -> None:
        close = getattr(self._items, "close", None)
        if close is not None:
            close()
