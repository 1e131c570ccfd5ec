"""Retained updates, opened with the recovery key: for a replay, where no training app runs."""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from fltrust import strictjson
from fltrust.errors import EvidenceMissing, Malformed, StorageUnavailable, Tampered
from fltrust.flower.retention import CHUNK, MAGIC, SUFFIX, binding, nonce
from fltrust.identity import Digest, RunId
from fltrust.keys.recovery import RecoveryKey
from fltrust.strictjson import Fields
from fltrust.updates import Content, content_digest
from fltrust.updates.packing import unpack

_MAX_HEAD = 4 * 1024
_TAG = 16


@dataclass(frozen=True, slots=True)
class RetainedUpdate:
    """One kept content, decrypted, and what it was kept as. Its digest was checked; who signed it was not."""

    round: int
    participant: str
    update: Digest
    digest: Digest
    content: Content


def open_round(folder: Path, run_id: RunId, step: int, *, key: RecoveryKey) -> Iterator[RetainedUpdate]:
    """The contents kept of one step, in the order in which the strategy got them, one at a time.

    1. Each file's head is of this run and step, and its key was sealed to `key` for just this content.
    2. Every chunk decrypts, in order, and the last one is the last.
    3. The content has the digest that the head names.

    `EvidenceMissing` where nothing is kept of the step; `Tampered` where a file is not as it was written;
    `Refused` (``recovery-key``) for another key.
    """
    path = folder / str(int(run_id)) / str(step)
    try:
        files = sorted(found for found in path.iterdir() if found.suffix == SUFFIX)
    except OSError:
        files = []
    if not files:
        raise EvidenceMissing(
            f"expected updates kept of step {step} of run {int(run_id)} in {folder}, found none",
            reason="not-retained",
            hint="retention is off by default (TrustPolicy(retention=…)), and bounded",
        )
    for file in files:
        yield _opened(file, run_id, step, key)


def _opened(path: Path, run_id: RunId, step: int, key: RecoveryKey) -> RetainedUpdate:
    try:
        with path.open("rb") as file:
            start, fields = _head(file, path)
            place = (fields.decimal("runId", bits=64), fields.number("step"))
            if place != (run_id, step):  # 1
                raise _tampered(path, "it was kept of another round")
            round_, _ = fields.number("round"), fields.number("position")
            participant, update = fields.text("participant", limit=512), fields.digest("update")
            digest, sealed = fields.digest("content"), _base64(fields.text("sealedKey", limit=1024), path)
            fields.key_id("recipient")
            fields.done()
            secret = key.open(sealed, context=binding(run_id, step, participant, update))
            packed = _decrypted(file, path, secret=secret, additional=sha256(start).digest())  # 2
    except OSError as error:
        raise StorageUnavailable(f"could not read {path}: {error.strerror or error}") from error
    content = unpack(packed)
    if not hmac.compare_digest(content_digest(content).value, digest.value):  # 3
        raise _tampered(path, "its content has another digest")
    return RetainedUpdate(round_, participant, update, digest, content)


def _head(file: BinaryIO, path: Path) -> tuple[bytes, Fields]:
    start = file.read(len(MAGIC) + 4)
    size = int.from_bytes(start[len(MAGIC) :], "big")
    if start[: len(MAGIC)] != MAGIC or not 0 < size <= _MAX_HEAD:
        raise Malformed(f"expected a retained update of version 1 in {path}, found something else")
    head = file.read(size)
    value = strictjson.decode(head, limit=_MAX_HEAD, what="a retained update's head")
    return start + head, Fields(value, "a retained update's head")


def _decrypted(file: BinaryIO, path: Path, *, secret: bytes, additional: bytes) -> bytes:
    cipher, plain, number = AESGCM(secret), bytearray(), 0
    chunk = file.read(CHUNK + _TAG)
    while True:
        following = file.read(CHUNK + _TAG) if len(chunk) == CHUNK + _TAG else b""
        try:
            plain += cipher.decrypt(nonce(number, is_last=not following), chunk, additional)
        except (InvalidTag, ValueError):
            raise _tampered(path, "it does not decrypt") from None
        if not following:
            return bytes(plain)
        chunk, number = following, number + 1


def _base64(text: str, path: Path) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise _tampered(path, "its sealed key is no base64") from None


def _tampered(path: Path, why: str) -> Tampered:
    return Tampered(f"expected {path} as it was kept, {why}", reason="retained-changed")
