"""Keys that count what they sign, whatever stands behind them."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

from fltrust.identity import KeyId
from fltrust.keys.ed25519 import NoteSigner
from fltrust.keys.homes import KeyHome, home_of
from fltrust.keys.signer import Signer


@dataclass(frozen=True, slots=True)
class KeyUse:
    """How often a key signed since somebody last asked (`since_last`) and since it was opened (`total`).

    `failed` of the signatures asked for since last did not come: an HSM that is gone, a permission withdrawn.
    """

    name: str
    key_id: KeyId
    home: KeyHome
    since_last: int
    total: int
    failed: int


class KeyCounter:
    """Counts one key's signatures; safe to use from many threads."""

    def __init__(self, name: str, key_id: KeyId, home: KeyHome) -> None:
        self.name = name
        self.key_id = key_id
        self.home = home
        self._lock = threading.Lock()
        self._total = self._failed = self._told_total = self._told_failed = 0

    def count(self, *, failed: bool) -> None:
        with self._lock:
            if failed:
                self._failed += 1
            else:
                self._total += 1

    @property
    def total(self) -> int:
        """Signatures given since the key was opened."""
        return self._total

    def look(self) -> KeyUse:
        """What `told` has not been told of yet."""
        with self._lock:
            return KeyUse(
                self.name,
                self.key_id,
                self.home,
                self._total - self._told_total,
                self._total,
                self._failed - self._told_failed,
            )

    def told(self, use: KeyUse) -> None:
        """Take `use` as reported: durable somewhere else. What came since stays to be told."""
        with self._lock:
            self._told_total += use.since_last
            self._told_failed += use.failed


class CountedSigner:
    """A `Signer` that counts."""

    __slots__ = ("_signer", "counter")

    def __init__(self, signer: Signer, *, name: str) -> None:
        self._signer = signer
        self.counter = KeyCounter(name, signer.key_id, home_of_signer(signer))

    @property
    def public_key(self) -> EllipticCurvePublicKey:
        return self._signer.public_key

    @property
    def key_id(self) -> KeyId:
        return self._signer.key_id

    def sign(self, data: bytes) -> bytes:
        return _counted(self.counter, self._signer, data)

    def __repr__(self) -> str:
        return f"CountedSigner({self.counter.name}, {self._signer!r})"


class CountedNoteSigner:
    """A `NoteSigner` that counts."""

    __slots__ = ("_signer", "counter")

    def __init__(self, signer: NoteSigner, *, name: str) -> None:
        self._signer = signer
        self.counter = KeyCounter(name, signer.key_id, home_of_signer(signer))

    @property
    def public_key_raw(self) -> bytes:
        return self._signer.public_key_raw

    @property
    def spki_der(self) -> bytes:
        return self._signer.spki_der

    @property
    def key_id(self) -> KeyId:
        return self._signer.key_id

    def sign(self, data: bytes) -> bytes:
        return _counted(self.counter, self._signer, data)

    def __repr__(self) -> str:
        return f"CountedNoteSigner({self.counter.name}, {self._signer!r})"


def home_of_signer(signer: Signer | NoteSigner) -> KeyHome:
    """Where the key lies: in a file (in this process's memory, while it is used), or where its URI says."""
    where = getattr(signer, "where", None)
    return home_of(where) if isinstance(where, str) else KeyHome.FILE


def _counted(counter: KeyCounter, signer: Signer | NoteSigner, data: bytes) -> bytes:
    try:
        signature = signer.sign(data)
    except BaseException:
        counter.count(failed=True)
        raise
    counter.count(failed=False)
    return signature
