"""What Python's `ssl` leaves out: a key that is in no file in the clear, and the chain that a peer showed."""

from __future__ import annotations

import _ssl
import secrets
import ssl
import tempfile
from collections.abc import Callable
from typing import Any

from fltrust.keys.file import FileSigner


def load_pair(context: ssl.SSLContext, signer: FileSigner, chain_pem: bytes) -> None:
    """Give `context` a key and its chain.

    Python's `ssl` takes a key from a file alone: it gets one that is encrypted with a passphrase of this
    moment, so that nothing usable touches the disk.
    """
    passphrase = secrets.token_hex(32).encode("ascii")
    with tempfile.NamedTemporaryFile(prefix="fltrust-", suffix=".pem") as file:  # 0600
        file.write(signer.to_pem(passphrase) + chain_pem)
        file.flush()
        context.load_cert_chain(file.name, password=passphrase)


def presented_chain(connection: ssl.SSLSocket | ssl.SSLObject) -> tuple[bytes, ...]:
    """Give the chain that the peer showed, leaf first, in DER; empty if it showed none.

    What it proves, `verify_certificate` says.
    """
    if connection.getpeercert(binary_form=True) is None:
        return ()
    public: Callable[[], list[bytes]] | None = getattr(connection, "get_unverified_chain", None)  # 3.13
    if public is not None:
        return tuple(public())
    inner: Any = connection._sslobj  # type: ignore[union-attr]  # private before 3.13, and not in the stubs
    return tuple(part.public_bytes(_ssl.ENCODING_DER) for part in inner.get_unverified_chain() or ())
