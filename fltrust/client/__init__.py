"""The coordinator over gRPC, with certificates that reload."""

from __future__ import annotations

from fltrust.client.bootstrap import bundle_of_token, enroll, fetch_bundle
from fltrust.client.calls import ClientSettings
from fltrust.client.channel import open_channel
from fltrust.client.coordinator import CoordinatorClient, Watch
from fltrust.client.follower import TrustFollower
from fltrust.wire.tls import Credentials, TlsMaterial

__all__ = [
    "ClientSettings",
    "CoordinatorClient",
    "Credentials",
    "TlsMaterial",
    "TrustFollower",
    "Watch",
    "bundle_of_token",
    "enroll",
    "fetch_bundle",
    "open_channel",
]
