"""Channels to the coordinator: whose certificate we demand, how large, how patient.

The peer is verified by gRPC's TLS: its chain must lead to a root of our bundle and its certificate
must carry the DNS name of the identity we expect (`SpiffeId.dns_name`). Names are issued by our CA
from its record alone, and only the coordinator's profile gets that name, so this is the SPIFFE ID
check in the form that TLS libraries know; the address that was dialled plays no part.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import grpc

from fltrust.client import hardware_channel
from fltrust.identity import Role, SpiffeId, TrustDomain
from fltrust.pki.bundle import bundle_to_pem
from fltrust.pki.types import TrustBundle
from fltrust.wire.artifacts import MAX_COUNTERSIGN
from fltrust.wire.rounds import MAX_ROUND
from fltrust.wire.tls import TlsMaterial

_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", MAX_ROUND),
    ("grpc.max_send_message_length", MAX_COUNTERSIGN),
    ("grpc.use_local_subchannel_pool", 1),  # a channel with a new certificate never reuses an old connection
    ("grpc.enable_retries", 0),  # what may be sent twice is decided by us, per method
    ("grpc.enable_http_proxy", 0),
    ("grpc.service_config_disable_resolution", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.min_reconnect_backoff_ms", 10_000),  # in truth, what one attempt to connect is given
    # A peer that vanished without a FIN is noticed within 15 s, also by an idle watch.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
)


def coordinator_of(domain: TrustDomain) -> SpiffeId:
    """The identity of a domain's coordinator."""
    return SpiffeId(domain, Role.COORDINATOR, None)


def open_channel(address: str, credentials: TlsMaterial, *, expect: SpiffeId) -> grpc.Channel:
    """Open an mTLS channel to `address` (``host:port``) on which only `expect` can answer."""
    return grpc.secure_channel(address, _channel_credentials(credentials), options=channel_options(expect))


def _channel_credentials(credentials: TlsMaterial) -> grpc.ChannelCredentials:
    roots, signer = bundle_to_pem(credentials.bundle), credentials.hardware_signer
    if signer is not None:
        return hardware_channel.channel_credentials(
            roots_pem=roots, chain_pem=credentials.chain_pem, signer=signer
        )
    return grpc.ssl_channel_credentials(
        root_certificates=roots,
        private_key=credentials.key_pem,
        certificate_chain=credentials.chain_pem,
    )


def open_bootstrap_channel(address: str, bundle: TrustBundle, *, expect: SpiffeId) -> grpc.Channel:
    """Open a TLS channel without a certificate of our own, for a site that has none yet."""
    return grpc.secure_channel(
        address,
        grpc.ssl_channel_credentials(root_certificates=bundle_to_pem(bundle)),
        options=channel_options(expect),
    )


def channel_options(expect: SpiffeId) -> list[tuple[str, int | str]]:
    """What every channel to `expect` is opened with."""
    return [*_OPTIONS, ("grpc.ssl_target_name_override", expect.dns_name)]


class _Lease:
    """A channel, the certificate it shows, and how many calls are on it."""

    def __init__(self, channel: grpc.Channel, material: TlsMaterial) -> None:
        self.channel = channel
        self.material = material
        self.calls = 0
        self.is_retired = False


class ChannelSource:
    """One live channel that follows the credentials: gRPC channels cannot change theirs.

    When the provider gives another certificate, the next call gets a new channel; the old one is
    closed when the last call on it has ended. Safe to use from many threads.
    """

    def __init__(self, address: str, provider: Callable[[], TlsMaterial], *, domain: TrustDomain) -> None:
        self._address = address
        self._provider = provider
        self._expect = coordinator_of(domain)
        self._lock = threading.Lock()
        self._current: _Lease | None = None
        self._is_closed = False

    @contextmanager
    def lease(self) -> Iterator[grpc.Channel]:
        """The channel for one call; it stays open until the block ends."""
        lease = self._take()
        try:
            yield lease.channel
        finally:
            self._give_back(lease)

    def close(self) -> None:
        """Close the channel at once; calls on it end as cancelled."""
        with self._lock:
            self._is_closed = True
            current, self._current = self._current, None
        if current is not None:
            current.channel.close()

    def _take(self) -> _Lease:
        material = self._provider()
        retired: _Lease | None = None
        with self._lock:
            if self._is_closed:
                raise ValueError("expected an open client, this one was closed")
            lease = self._current
            if lease is None or _differ(lease.material, material):
                if lease is not None:
                    lease.is_retired = True
                    retired = lease if lease.calls == 0 else None
                lease = _Lease(open_channel(self._address, material, expect=self._expect), material)
                self._current = lease
            lease.calls += 1
        if retired is not None:
            retired.channel.close()
        return lease

    def _give_back(self, lease: _Lease) -> None:
        with self._lock:
            lease.calls -= 1
            is_last = lease.is_retired and lease.calls == 0
        if is_last:
            lease.channel.close()


def _differ(a: TlsMaterial, b: TlsMaterial) -> bool:
    return a is not b and (a.chain_pem != b.chain_pem or a.bundle != b.bundle)
