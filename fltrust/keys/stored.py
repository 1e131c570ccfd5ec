"""Where a folder expects a key's file: the key itself, or one line that says where the key lies.

    fltrust-key-v1 pkcs11:token=hospital;object=issuing?module-path=/usr/lib/…

So whoever keeps a CA's, a log's or an agent's folder need not know what kind of key is in it. The line holds
no secret, and the file is as private as a key's: whoever could change it would choose the key that signs.
"""

from __future__ import annotations

from pathlib import Path

from fltrust.errors import Malformed
from fltrust.files import write_durably
from fltrust.keys.ed25519 import FileNoteSigner, NoteSigner, load_note_key, save_note_key
from fltrust.keys.file import FileSigner, from_pem, read_private
from fltrust.keys.file import save as save_file
from fltrust.keys.homes import check_uri, open_key, open_note_key
from fltrust.keys.signer import Signer

MAGIC = b"fltrust-key-v1 "


def load(path: Path, *, passphrase: bytes | None) -> Signer:
    """Open the P-256 key at `path`, or the one that the line in `path` names.

    Refusals as `fltrust.keys.file.load`, and as `open_key` for a key elsewhere, which needs no passphrase.
    """
    return from_stored(read_private(path), passphrase=passphrase, where=path)


def from_stored(data: bytes, *, passphrase: bytes | None, where: Path) -> Signer:
    """What `load` does, with what stands in a file already read."""
    uri = uri_in(data)
    return from_pem(data, passphrase=passphrase, where=where) if uri is None else open_key(uri)


def load_note(path: Path, *, passphrase: bytes | None) -> NoteSigner:
    """As `load`, for an Ed25519 key."""
    uri = uri_in(read_private(path))
    return load_note_key(path, passphrase=passphrase) if uri is None else open_note_key(uri)


def save(signer: Signer, path: Path, *, passphrase: bytes | None) -> None:
    """Write the key durably (0600): itself, encrypted, or for a key elsewhere the line that names it."""
    if isinstance(signer, FileSigner):
        save_file(signer, path, passphrase=passphrase)
    else:
        write_durably(path, reference_to(signer))


def save_note(signer: NoteSigner, path: Path, *, passphrase: bytes | None) -> None:
    """As `save`, for an Ed25519 key."""
    if isinstance(signer, FileNoteSigner):
        save_note_key(signer, path, passphrase=passphrase)
    else:
        write_durably(path, reference_to(signer))


def reference_to(signer: Signer | NoteSigner) -> bytes:
    """The line that names a key which lies elsewhere."""
    where = getattr(signer, "where", None)
    if not isinstance(where, str):
        raise Malformed(f"expected a key with a place of its own, got a {type(signer).__name__}")
    return MAGIC + check_uri(where).encode("ascii") + b"\n"


def uri_in(data: bytes) -> str | None:
    """The URI where `data` is such a line; None where it is something else, such as a key."""
    if not data.startswith(MAGIC):
        return None
    line, newline, rest = data.removeprefix(MAGIC).partition(b"\n")
    if not newline or rest or not line.isascii():
        raise Malformed("expected one line with the URI of a key, found something else")
    return check_uri(line.decode("ascii"))
