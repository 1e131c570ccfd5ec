"""The Flower node key: the P-256 key by which a SuperLink knows a node, in the formats Flower takes.

``flower-supernode --auth-supernode-private-key`` reads the private half and
``flwr supernode register`` the ``.pub`` beside it. Flower takes OpenSSH's formats, not encrypted.
"""

from __future__ import annotations

from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from fltrust.errors import Conflict, Malformed
from fltrust.files import write_durably
from fltrust.keys.file import FileSigner, generate, read_private


def create_node_key(path: Path) -> FileSigner:
    """Make a node key and write it durably: `path` (0600, private) and ``<path>.pub`` (0644).

    Refuses to replace a key (`Conflict`): a SuperLink never takes the same node twice,
    so an overwritten node key is a node lost.
    """
    if path.exists():
        raise Conflict(
            f"expected no node key at {path}, found one",
            hint="use it, or remove it and register the new one with the SuperLink",
        )
    signer = generate()
    # The private half last: a crash before it leaves no node key, and the next call makes a whole one.
    write_durably(public_path(path), openssh_public(signer.public_key), mode=0o644)
    write_durably(path, signer.to_openssh(), mode=0o600)
    return signer


def load_node_key(path: Path) -> FileSigner:
    """Read the private half of a node key; refusals as `fltrust.keys.file.load`."""
    data = read_private(path)
    try:
        key = serialization.load_ssh_private_key(data, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise Malformed(
            f"expected an OpenSSH private key without passphrase in {path}, found something else"
        ) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise Malformed(f"expected a node key on P-256 in {path}, found a key of another kind")
    return FileSigner(key)


def public_path(path: Path) -> Path:
    """Where the public half of the node key at `path` lies: ``<path>.pub``."""
    return path.with_name(path.name + ".pub")


def openssh_public(public_key: ec.EllipticCurvePublicKey) -> bytes:
    """Give the key as one ``ecdsa-sha2-nistp256 …`` line."""
    return public_key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH) + b"\n"


def spki_der(public_key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey) -> bytes:
    """Give the SubjectPublicKeyInfo in DER: what `KeyId` hashes and what statements carry."""
    return public_key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
