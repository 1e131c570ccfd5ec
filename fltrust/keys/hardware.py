"""What every key outside of this process has in common: nothing it gives is believed before it verifies."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from fltrust.errors import Conflict, SignatureInvalid, Unavailable
from fltrust.identity import KeyId
from fltrust.keys.openssh import spki_der
from fltrust.keys.verify import is_p256, verify_signature, verify_with

_TRIAL: Final = b"fltrust-key-trial-v1\x00"
"""What a trial signature is over, before 32 random bytes: nothing that anybody else verifies begins so."""


class HardwareSigner:
    """A `Signer` whose private key lies elsewhere; `ask` gets data signed there, in DER. For many threads.

    Every signature is verified before it leaves: one that does not verify raises `Unavailable`
    (``key-unavailable``), as what answered is not the key that was opened.
    """

    __slots__ = ("_ask", "_key_id", "_public_key", "_where")

    def __init__(
        self, public_key: ec.EllipticCurvePublicKey, ask: Callable[[bytes], bytes], *, where: str
    ) -> None:
        if not is_p256(public_key):
            raise Conflict(f"expected a key on P-256 in {where}, found a key of another kind")
        self._public_key = public_key
        self._key_id = KeyId.of_spki(spki_der(public_key))
        self._ask = ask
        self._where = where

    @property
    def public_key(self) -> ec.EllipticCurvePublicKey:
        return self._public_key

    @property
    def key_id(self) -> KeyId:
        return self._key_id

    @property
    def where(self) -> str:
        """Where the key lies, as its URI says it."""
        return self._where

    def sign(self, data: bytes) -> bytes:
        signature = self._ask(data)
        try:
            verify_signature(self._public_key, signature, data)
        except SignatureInvalid:
            raise wrong_answer(self._where) from None
        return signature

    def try_out(self) -> None:
        """Sign 32 random bytes, so that a key which is not there or not usable is found out now."""
        self.sign(_TRIAL + secrets.token_bytes(32))

    def __repr__(self) -> str:
        return f"HardwareSigner({self._where}, key_id={self._key_id!s})"


class HardwareNoteSigner:
    """A `NoteSigner` whose private key lies elsewhere; the same promise as `HardwareSigner`'s."""

    __slots__ = ("_ask", "_key", "_where", "key_id", "spki_der")

    def __init__(self, public_key: Ed25519PublicKey, ask: Callable[[bytes], bytes], *, where: str) -> None:
        self._key = public_key
        self._ask = ask
        self._where = where
        self.spki_der = ed25519_spki(public_key)
        self.key_id = KeyId.of_spki(self.spki_der)

    @property
    def where(self) -> str:
        """Where the key lies, as its URI says it."""
        return self._where

    @property
    def public_key_raw(self) -> bytes:
        return self._key.public_bytes_raw()

    def sign(self, data: bytes) -> bytes:
        signature = self._ask(data)
        try:
            verify_with(self._key, signature, data)
        except SignatureInvalid:
            raise wrong_answer(self._where) from None
        return signature

    def try_out(self) -> None:
        """As `HardwareSigner.try_out`."""
        self.sign(_TRIAL + secrets.token_bytes(32))

    def __repr__(self) -> str:
        return f"HardwareNoteSigner({self._where}, key_id={self.key_id!s})"


def ed25519_spki(key: Ed25519PublicKey) -> bytes:
    """The SubjectPublicKeyInfo of an Ed25519 key in DER (RFC 8410)."""
    return bytes.fromhex("302a300506032b6570032100") + key.public_bytes_raw()


def wrong_answer(where: str) -> Unavailable:
    return Unavailable(
        f"expected a signature that verifies from {where}, got one that does not",
        reason="key-unavailable",
        hint="was the key replaced under the same name? what was signed is thrown away",
    )
