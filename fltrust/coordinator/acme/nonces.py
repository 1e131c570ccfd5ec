"""Anti-replay nonces (RFC 8555, section 6.5): each good once, for a while, for this process.

A nonce says itself when it was made, under a MAC: handing them out costs no memory, so that nobody can push
out those of others. What is remembered are those that were used, by requests whose signature was good.
"""

from __future__ import annotations

import hmac
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable
from hashlib import sha256

from fltrust.errors import LimitExceeded, Malformed
from fltrust.protocols.acme.problems import AcmeProblem, ProblemType
from fltrust.strictbase64 import from_base64url, to_base64url

LIFETIME = 600.0
"""Seconds."""
MAX_USED = 100_000
"""Used nonces that are remembered. While there are as many, requests are refused: none is forgotten."""
_TAG = 16
_SIZE = 8 + 12 + _TAG


class Nonces:
    """Makes and takes nonces; safe from many threads."""

    def __init__(
        self, *, monotonic: Callable[[], float], entropy: Callable[[int], bytes] = secrets.token_bytes
    ) -> None:
        self._monotonic = monotonic
        self._entropy = entropy
        self._key = entropy(32)
        self._used: OrderedDict[bytes, float] = OrderedDict()
        self._lock = threading.Lock()

    def make(self) -> str:
        head = int(self._monotonic() * 1000).to_bytes(8, "big") + self._entropy(12)
        return to_base64url(head + self._tag(head))

    def check(self, nonce: str | None) -> None:
        """Return only for a nonce of ours that is fresh and was not used; ``badNonce`` otherwise."""
        data = self._read(nonce)
        with self._lock:
            if data in self._used:
                raise _bad()

    def use(self, nonce: str | None) -> None:
        """Use a nonce up; of two callers one gets through, the other ``badNonce``."""
        data, now = self._read(nonce), self._monotonic()
        with self._lock:
            while self._used and next(iter(self._used.values())) <= now:
                self._used.popitem(last=False)
            if data in self._used:
                raise _bad()
            if len(self._used) >= MAX_USED:
                raise LimitExceeded("expected fewer requests in ten minutes", reason="rate-limited")
            self._used[data] = now + LIFETIME

    def _read(self, nonce: str | None) -> bytes:
        try:
            data = from_base64url(nonce or "", "a nonce")
        except Malformed:
            raise _bad() from None
        head = data[:-_TAG]
        if len(data) != _SIZE or not hmac.compare_digest(self._tag(head), data[-_TAG:]):
            raise _bad()
        age = self._monotonic() - int.from_bytes(head[:8], "big") / 1000
        if not -1.0 <= age < LIFETIME:
            raise _bad()
        return data

    def _tag(self, head: bytes) -> bytes:
        return hmac.digest(self._key, head, sha256)[:_TAG]


def _bad() -> AcmeProblem:
    return AcmeProblem(
        ProblemType.BAD_NONCE, "expected a fresh nonce of this server's, used for the first time"
    )
