"""Keys that are shared with a client (ACME external account binding, CMP password protection): none is kept.

One master of 32 random bytes lies in the coordinator's folder, encrypted; the key of a credential is
derived from it when it is needed. So the database holds no secret, and whoever reads a backup of it can
enroll nobody. Whoever holds the master can make every such key.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fltrust.errors import Malformed
from fltrust.keys.ed25519 import generate_note_key, save_note_key
from fltrust.keys.file import private_key_from_pem, read_private

MAC_KEYS_FILE = "enrollment.key"
MASTER_BYTES = 32
KEY_BYTES = 32
_LABEL = b"urn:fltrust:enrollment:mac-key:v1"
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")


class MacPurpose(StrEnum):
    """What a key is for: a client's key for one protocol is no key for another."""

    ACME = "acme"
    CMP = "cmp"


@dataclass(frozen=True, slots=True)
class MacCredential:
    """A credential as it is handed out, once: its id is public, its key is not, and is kept nowhere."""

    credential_id: str
    key: bytes
    expires_at: datetime

    def __repr__(self) -> str:
        return f"MacCredential(credential_id={self.credential_id!r}, key=…)"


class MacKeys:
    """Derives keys; HKDF-SHA256 (RFC 5869) with purpose and credential id as its info."""

    __slots__ = ("_master",)

    def __init__(self, master: bytes) -> None:
        if len(master) != MASTER_BYTES:
            raise Malformed(f"expected a master of {MASTER_BYTES} bytes, got {len(master)}")
        self._master = master

    def __repr__(self) -> str:
        return "MacKeys(…)"

    def key_of(self, purpose: MacPurpose, credential_id: str) -> bytes:
        """The 32-byte key of a credential: the same every time, and of this purpose and id alone.

        Any well-formed id has a key: whether there is such a credential is the record's to say, first.
        `Malformed` for an id that is not 1 to 64 letters, digits, ``-`` and ``_``.
        """
        if not _ID.match(credential_id):
            raise Malformed("expected a credential id of 1 to 64 letters, digits, '-' and '_'")
        info = b"\x00".join((_LABEL, purpose.encode(), credential_id.encode()))
        return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=info).derive(self._master)


def open_mac_keys(folder: Path, *, passphrase: bytes) -> MacKeys:
    """Read the master in a coordinator's folder; it is made where there is none.

    Encrypted as the pseudonym key is: 32 random bytes in a frame that the libraries encrypt well, PKCS#8 of
    an Ed25519 key (RFC 8410) that never signs. Refusals as `fltrust.keys.load`'s. One that was lost is
    made anew in silence: what was handed out before then verifies nothing, and nobody gains anything.
    """
    path = folder / MAC_KEYS_FILE
    if not path.exists():
        save_note_key(generate_note_key(), path, passphrase=passphrase)
    key = private_key_from_pem(read_private(path), passphrase=passphrase, where=path)
    if not isinstance(key, Ed25519PrivateKey):
        raise Malformed(f"expected an enrollment key in {path}, found a key of another kind")
    return MacKeys(key.private_bytes_raw())
