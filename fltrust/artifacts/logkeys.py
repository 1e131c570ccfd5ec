"""The keys of a transparency log that a trust file names, as those of signed notes."""

from __future__ import annotations

from hmac import compare_digest
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from fltrust.artifacts.trustfile import TrustFile
from fltrust.artifacts.trustroot import TransparencyLog, trusted_root_from
from fltrust.errors import Malformed
from fltrust.tlog.note import KeyType, VerifierKey


def log_keys_in(trust: Path) -> tuple[VerifierKey, ...]:
    """The Ed25519 keys of the logs in a trust file or ``trusted_root.json``, each under its log's name.

    The name is the log's address without its scheme, if its id says so: then it is the origin of its
    checkpoints. A log that signs otherwise (Rekor v1) is left out; `Malformed` if none is left.
    """
    return log_keys_of(TrustFile.read(trust))


def log_keys_of(trust: TrustFile) -> tuple[VerifierKey, ...]:
    """As `log_keys_in`, of a trust file that was read before."""
    root = trusted_root_from(trust.trusted_root)
    keys = tuple(key for log in root.tlogs if (key := _note_key(log)) is not None)
    if not keys:
        raise Malformed("expected a log with an Ed25519 key in the trust file, found none")
    return keys


def _note_key(log: TransparencyLog) -> VerifierKey | None:
    name = log.base_url.partition("://")[2].rstrip("/")
    if not isinstance(log.public_key, Ed25519PublicKey) or not name:
        return None
    key = VerifierKey(name, KeyType.ED25519, log.public_key.public_bytes_raw())
    return key if compare_digest(key.full_id, log.checkpoint_key_id or log.log_id) else None
