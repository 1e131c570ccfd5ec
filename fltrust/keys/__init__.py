"""The `Signer` port and keys in files: private keys stay behind it."""

from __future__ import annotations

from fltrust.keys.file import FileSigner, generate, load, save
from fltrust.keys.openssh import create_node_key, load_node_key, spki_der
from fltrust.keys.signer import Signer
from fltrust.keys.verify import is_p256, verify_signature

__all__ = [
    "FileSigner",
    "Signer",
    "create_node_key",
    "generate",
    "is_p256",
    "load",
    "load_node_key",
    "save",
    "spki_der",
    "verify_signature",
]
