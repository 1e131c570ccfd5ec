"""Another domain's coordinator, followed by ours: its feed, as far as it shows us."""

from __future__ import annotations

from collections.abc import Callable

from fltrust.client.coordinator import CoordinatorClient
from fltrust.client.follower import TrustFollower
from fltrust.enrollment.foreign import ForeignDomain
from fltrust.revocation.view import TrustView
from fltrust.wire.tls import TlsMaterial


class ForeignLink:
    """Puts the feed of a foreign coordinator into a view until `stop`; begins at once."""

    def __init__(self, record: ForeignDomain, material: Callable[[], TlsMaterial], view: TrustView) -> None:
        self._client = CoordinatorClient(record.address, material, record.domain)
        self._follower = TrustFollower(self._client, view)
        self._follower.start()

    def stop(self) -> None:
        self._follower.stop()
        self._client.close()
