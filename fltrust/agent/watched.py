"""The coordinator's feed, as the agent follows it: listening for a no that is about ourselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from fltrust.agent.credentials import CredentialStore
from fltrust.errors import Refusal, Revoked
from fltrust.identity import Epoch
from fltrust.revocation.events import FeedItem
from fltrust.revocation.ports import TrustFeed


class WatchedFeed(TrustFeed):
    """Passes the feed on, and tells `on_revoked` when the coordinator refuses us as revoked.

    The refusal goes on to the follower as well, which keeps asking: a hold can be released. A hold is
    not told, nor a refusal of a certificate that we have replaced meanwhile.
    """

    def __init__(
        self, feed: TrustFeed, store: CredentialStore, *, on_revoked: Callable[[Revoked], None]
    ) -> None:
        self._feed = feed
        self._store = store
        self._on_revoked = on_revoked

    def watch(self, after: Epoch) -> Iterator[FeedItem]:
        return _Items(self._feed.watch(after), self._store, self._on_revoked)


class _Items(Iterator[FeedItem]):
    def __init__(
        self, items: Iterator[FeedItem], store: CredentialStore, on_revoked: Callable[[Revoked], None]
    ) -> None:
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

    def close(self) -> None:
        close = getattr(self._items, "close", None)
        if close is not None:
            close()
