"""Under which names participants stand in public: in the log, in lineage and in the status.

Chosen when the log is opened, for good: their SPIFFE IDs, or pseudonyms that only the holder of the
coordinator's key can make, and so open. The key lies in the coordinator's folder, encrypted: 32 random
bytes in a frame that the libraries encrypt well, PKCS#8 of an Ed25519 key (RFC 8410) that never signs.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fltrust.errors import Conflict, Malformed
from fltrust.identity import Role, SpiffeId
from fltrust.keys.ed25519 import generate_note_key, save_note_key
from fltrust.keys.file import private_key_from_pem, read_private
from fltrust.tlog.entries import PublicName, PublicNames

MIN_KEY = 32
"""Bytes of a pseudonym key, at least."""

_HEX_DIGITS = 32
_UNDER_PSEUDONYMS = frozenset({Role.PARTICIPANT, Role.WORKLOAD})


class PublicNaming:
    """Maps names to public names. Without a key, everybody stands in public under the SPIFFE ID.

    With one, a participant is ``pseudonym:`` and the first 128 bits of HMAC-SHA256(key, SPIFFE ID), in hex:
    the same participant has one pseudonym for good, across runs and enrollments, and the workload that its
    agent vouches for, whose name is made of the participant's, has another. Aggregators,
    operators, signers and the coordinator have none: they answer for what they do.
    """

    __slots__ = ("_key",)

    def __init__(self, key: bytes | None = None) -> None:
        if key is not None and len(key) < MIN_KEY:
            raise Malformed(f"expected a pseudonym key of at least {MIN_KEY} bytes, got {len(key)}")
        self._key = key

    @property
    def mode(self) -> PublicNames:
        return PublicNames.SPIFFE if self._key is None else PublicNames.PSEUDONYMS

    def has_pseudonym(self, who: SpiffeId) -> bool:
        return self._key is not None and who.role in _UNDER_PSEUDONYMS

    def of(self, who: SpiffeId) -> PublicName:
        """The name under which `who` stands in public."""
        if self._key is None or who.role not in _UNDER_PSEUDONYMS:
            return PublicName(str(who))
        return PublicName(
            f"pseudonym:{hmac.digest(self._key, str(who).encode(), 'sha256').hex()[:_HEX_DIGITS]}"
        )

    def open(self, name: PublicName, *, among: Iterable[SpiffeId]) -> SpiffeId | None:
        """Who stands behind a public name: found by trying everybody in `among`; None if nobody fits."""
        if not name.is_pseudonym:
            return SpiffeId.parse(name)
        return next((who for who in among if hmac.compare_digest(self.of(who), name)), None)


def make_naming_key(path: Path, *, passphrase: bytes) -> None:
    """Make the key of a new domain's pseudonyms; `Conflict` if there is a file already."""
    if path.exists():
        raise Conflict(f"expected no pseudonym key at {path}, found one", reason="already-initialised")
    save_note_key(generate_note_key(), path, passphrase=passphrase)


def load_naming(path: Path, *, passphrase: bytes) -> PublicNaming:
    """Read the key of a domain's pseudonyms. Refusals as `fltrust.keys.load`'s.

    It is never made anew: another key would give everybody another name.
    """
    key = private_key_from_pem(read_private(path), passphrase=passphrase, where=path)
    if not isinstance(key, Ed25519PrivateKey):
        raise Malformed(f"expected a pseudonym key in {path}, found a key of another kind")
    return PublicNaming(key.private_bytes_raw())
