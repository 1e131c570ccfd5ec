"""Bounds on what one caller, and all callers together, can take. Used from the server's loop alone."""

from __future__ import annotations

import ipaddress
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from fltrust.errors import LimitExceeded


@dataclass(slots=True)
class _Bucket:
    level: float
    at: float


class RateLimiter:
    """Token buckets by key. Memory is bounded: the keys that were quiet longest are forgotten."""

    def __init__(
        self, *, rate: float, burst: float, monotonic: Callable[[], float], max_keys: int = 20_000
    ) -> None:
        self._rate = rate
        self._burst = burst
        self._monotonic = monotonic
        self._max_keys = max_keys
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def take(self, key: str) -> None:
        """Count one call of `key`; `LimitExceeded` (``rate-limited``) when its bucket is empty."""
        now = self._monotonic()
        bucket = self._buckets.pop(key, None) or _Bucket(self._burst, now)
        bucket.level = min(self._burst, bucket.level + (now - bucket.at) * self._rate)
        bucket.at = now
        self._buckets[key] = bucket
        if len(self._buckets) > self._max_keys:
            self._buckets.popitem(last=False)
        if bucket.level < 1.0:
            raise LimitExceeded(
                f"expected at most {self._rate:g} calls per second from {key}, got more",
                reason="rate-limited",
                hint=f"try again in {(1.0 - bucket.level) / self._rate:.2g} s",
            )
        bucket.level -= 1.0


class Slots:
    """How many are open at once, in all and by key."""

    def __init__(self, what: str, *, total: int, per_key: int) -> None:
        self._what = what
        self._total = total
        self._per_key = per_key
        self._open: Counter[str] = Counter()
        self._count = 0

    @property
    def count(self) -> int:
        return self._count

    @contextmanager
    def hold(self, key: str) -> Iterator[None]:
        """Hold one slot for the block; `LimitExceeded` (``too-many-…``) if there is none left."""
        if self._count >= self._total or self._open[key] >= self._per_key:
            bound = self._per_key if self._open[key] >= self._per_key else self._total
            raise LimitExceeded(
                f"expected at most {bound} {self._what} open at once, got another from {key}",
                reason=f"too-many-{self._what}",
            )
        self._count += 1
        self._open[key] += 1
        try:
            yield
        finally:
            self._count -= 1
            self._open[key] -= 1
            if not self._open[key]:
                del self._open[key]


def address_key(peer: str) -> str:
    """Name the source of a connection for rate limits: an IPv4 address, or the /64 of an IPv6 one.

    `peer` is gRPC's form: ``ipv4:1.2.3.4:5``, ``ipv6:[::1]:5`` (or with ``%5B``), else taken whole.
    """
    kind, _, rest = peer.partition(":")
    if kind not in ("ipv4", "ipv6"):
        return peer[:100]
    return host_key(rest.rpartition(":")[0].replace("%5B", "[").replace("%5D", "]").strip("[]"))


def host_key(host: str) -> str:
    """As `address_key`, of a bare address."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host[:100]
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)
