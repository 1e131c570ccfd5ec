"""The `Signer` port and keys in files: private keys stay behind it."""

from __future__ import annotations

from fltrust.keys.ed25519 import FileNoteSigner, NoteSigner, generate_note_key, load_note_key, save_note_key
from fltrust.keys.file import FileSigner, generate, load, save
from fltrust.keys.openssh import create_node_key, load_node_key, spki_der
from fltrust.keys.signer import Signer
from fltrust.keys.verify import PublicKey, is_p256, is_public_key, verify_signature, verify_with

__all__ = [
    "FileNoteSigner",
    "FileSigner",
    "NoteSigner",
    "PublicKey",
    "Signer",
    "create_node_key",
    "generate",
    "generate_note_key",
    "is_p256",
    "is_public_key",
    "load",
    "load_node_key",
    "load_note_key",
    "save",
    "save_note_key",
    "spki_der",
    "verify_signature",
    "verify_with",
]
