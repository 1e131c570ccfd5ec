"""Updates that are kept, so that a round can be made again without one of them. Off unless policy says so.

    <folder>/<run id>/<step>/<position>-<start of the update's digest>.update

An initial model's step (0) holds the arrays that training began with. Each file has a key of its own, which
is sealed to the operator's recovery key (`fltrust.keys.recovery`) and then forgotten: what runs here cannot
read back what it kept. The format of a file:

    magic ‖ u32 length of the head ‖ head ‖ chunk ‖ chunk ‖ …
    head   = canonical JSON: runId, step, round, position, participant, update, content, sealedKey, recipient
    chunk  = AES-256-GCM of at most 16 MiB of the packed content (`fltrust.updates.packing`);
             nonce = 11 bytes of the chunk's number, 1 byte that is 1 in the last chunk alone (STREAM);
             additional data = SHA-256 of everything before the first chunk
    sealedKey binds run, step, participant and update as its context.

Every file of a round is on the disk before the round's folder gets its name; a crash leaves no half of one.
"""

from __future__ import annotations

import base64
import logging
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from fltrust import strictjson
from fltrust.errors import StorageUnavailable
from fltrust.files import make_private_folder, sync_folder
from fltrust.flower.policy import Retention
from fltrust.identity import Digest, RunId
from fltrust.keys.recovery import RecoveryRecipient
from fltrust.updates import Content
from fltrust.updates.packing import pack

_log = logging.getLogger("fltrust.flower")

MAGIC = b"fltrust-retained-v1\x00"
CHUNK = 16 * 2**20
SUFFIX = ".update"
_TAG = 16
_KEY_BYTES = 32
_MAX_HEAD = 2 * 1024
INITIAL = "initial"
"""What stands for the participant of the arrays that training began with."""


@dataclass(frozen=True, slots=True)
class Kept:
    """One content to keep: `update` names the signed statement (of initial arrays, the tensor set), `digest`
    is the content's own."""

    participant: str
    update: Digest
    digest: Digest
    content: Content


class Retainer:
    """Keeps contents by the policy; for one thread at a time.

    Nothing here ends a run: what cannot be kept is told loudly, and left out as a whole round.
    """

    def __init__(self, policy: Retention, run_id: RunId) -> None:
        """Read the recipient's key and make the folder; raises `Malformed` or `StorageUnavailable`."""
        self._policy = policy
        self._recipient = RecoveryRecipient.read(policy.recipient)
        self._run_id = run_id
        make_private_folder(policy.folder)
        self._run = policy.folder / str(int(run_id))

    def keep(self, step: int, round_: int, kept: Sequence[Kept]) -> str | None:
        """Keep one round, whole. Returns why it is not kept, or None.

        1. Older runs are dropped, the oldest first, until the round fits `Retention.max_bytes`.
        2. If it does not fit beside what this run kept already, it is not kept.
        3. Its files are written and made durable under another name, then the folder is renamed.
        """
        needed = sum(map(_file_bytes, kept))
        try:
            if not self._make_room(needed):  # 1, 2
                return f"{needed} bytes do not fit the {self._policy.max_bytes} that are allowed"
            self._write(step, round_, kept)  # 3
        except (OSError, StorageUnavailable) as error:
            return f"it could not be written: {error}"
        return None

    def _make_room(self, needed: int) -> bool:
        limit = self._policy.max_bytes
        if needed + (_size(self._run) if self._run.is_dir() else 0) > limit:
            return False
        runs = sorted(_folders(self._policy.folder), key=lambda run: run.stat().st_mtime_ns)
        used = sum(_size(run) for run in runs)
        for run in runs:
            if used + needed <= limit:
                break
            if run == self._run:
                continue
            used -= _size(run)
            _log.warning("updates kept of run %s are dropped: the bound on them is reached", run.name)
            shutil.rmtree(run)
        return used + needed <= limit

    def _write(self, step: int, round_: int, kept: Sequence[Kept]) -> None:
        make_private_folder(self._run)
        temporary, final = self._run / f".{step}.part", self._run / str(step)
        shutil.rmtree(temporary, ignore_errors=True)  # of a process that died
        temporary.mkdir(mode=0o700)
        try:
            for position, item in enumerate(kept):
                name = f"{position:05d}-{item.update.hex[:16]}{SUFFIX}"
                self._write_file(temporary / name, item, step=step, round_=round_, position=position)
            sync_folder(temporary)
            shutil.rmtree(final, ignore_errors=True)
            temporary.rename(final)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        sync_folder(self._run)
        sync_folder(self._policy.folder)

    def _write_file(self, path: Path, item: Kept, *, step: int, round_: int, position: int) -> None:
        key = secrets.token_bytes(_KEY_BYTES)
        context = binding(self._run_id, step, item.participant, item.update)
        head = strictjson.encode(
            {
                "runId": str(int(self._run_id)),
                "step": step,
                "round": round_,
                "position": position,
                "participant": item.participant,
                "update": str(item.update),
                "content": str(item.digest),
                "sealedKey": base64.b64encode(self._recipient.seal(key, context=context)).decode("ascii"),
                "recipient": self._recipient.key_id,
            }
        )
        start = MAGIC + len(head).to_bytes(4, "big") + head
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(start)
            for chunk in encrypted(pack(item.content), key=key, additional=sha256(start).digest()):
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())


def retainer_of(policy: Retention | None, run_id: RunId) -> Retainer | None:
    return None if policy is None else Retainer(policy, run_id)


def binding(run_id: RunId, step: int, participant: str, update: Digest) -> bytes:
    """What a file's key is sealed for."""
    return b"fltrust-retained-v1\x00" + strictjson.encode(
        {
            "runId": str(int(run_id)),
            "step": step,
            "participant": participant,
            "update": str(update),
        }
    )


def encrypted(parts: Iterable[bytes | memoryview], *, key: bytes, additional: bytes) -> Iterator[bytes]:
    """The chunks of one file; there is at least one, and the last one says so."""
    cipher, number, held = AESGCM(key), 0, b""
    for index, chunk in enumerate(_chunked(parts)):
        if index:  # whether a chunk is the last one is known with the next
            yield cipher.encrypt(nonce(number, is_last=False), held, additional)
            number += 1
        held = chunk
    yield cipher.encrypt(nonce(number, is_last=True), held, additional)


def nonce(number: int, *, is_last: bool) -> bytes:
    return number.to_bytes(11, "big") + (b"\x01" if is_last else b"\x00")


def _chunked(parts: Iterable[bytes | memoryview]) -> Iterator[bytes]:
    """The same bytes in pieces of `CHUNK`; the last one may be shorter."""
    buffer = bytearray()
    for part in parts:
        view = memoryview(part)
        while view:
            taken = view[: CHUNK - len(buffer)]
            buffer += taken
            view = view[len(taken) :]
            if len(buffer) == CHUNK:
                yield bytes(buffer)
                buffer.clear()
    if buffer:
        yield bytes(buffer)


def _file_bytes(item: Kept) -> int:
    """How large the file of this content will be at most."""
    size = sum(memoryview(part).nbytes for part in pack(item.content))
    return size + (size // CHUNK + 1) * _TAG + _MAX_HEAD


def _folders(folder: Path) -> list[Path]:
    """The runs that something is kept of."""
    return [run for run in folder.iterdir() if run.name.isdecimal() and run.is_dir()]


def _size(run: Path) -> int:
    return sum(path.stat().st_size for path in run.rglob(f"*{SUFFIX}"))
