"""A witness (C2SP tlog-witness): cosigns a log's checkpoints as long as each extends the one before.

The request to ``add-checkpoint`` is text:

    old <size>
    <consistency proof, one hash in base64 on each line>

    <checkpoint, signed>
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from threading import Lock
from typing import Protocol

from fltrust.clock import Clock
from fltrust.errors import (
    Conflict,
    EvidenceInvalid,
    FltrustError,
    InvalidInput,
    Malformed,
    Oversized,
    Unavailable,
)
from fltrust.files import make_private_folder, read_bounded, write_durably
from fltrust.strictbase64 import from_base64, to_base64
from fltrust.tlog.checkpoint import Checkpoint, CheckpointPolicy, CosignerKey, parse_size, verify_cosignatures
from fltrust.tlog.fetching import TIMEOUT, HttpClient
from fltrust.tlog.merkle import EMPTY_HEAD, HASH_BYTES, MAX_PROOF, verify_consistency
from fltrust.tlog.note import (
    MAX_NOTE,
    Note,
    NoteSignature,
    VerifierKey,
    parse_note,
    parse_signature,
)
from fltrust.tlog.ports import TreeHead

ADD_CHECKPOINT = "add-checkpoint"
MAX_REQUEST = MAX_NOTE + 4096
SIZE_TYPE = "text/x.tlog.size"

_TEXT = "text/plain; charset=utf-8"
_MAX_ANSWER = 64 * 1024


@dataclass(frozen=True, slots=True)
class AddCheckpoint:
    """What a log asks: `proof` leads from its tree of `old` entries to that of the checkpoint."""

    old: int
    proof: tuple[bytes, ...]
    note: bytes

    def encode(self) -> bytes:
        lines = [f"old {self.old}", *(to_base64(item) for item in self.proof)]
        return ("\n".join(lines) + "\n\n").encode() + self.note

    @classmethod
    def parse(cls, data: bytes) -> AddCheckpoint:
        if len(data) > MAX_REQUEST:
            raise Oversized(f"expected a request of at most {MAX_REQUEST} bytes, got {len(data)}")
        head, separator, note = data.partition(b"\n\n")
        try:
            first, *lines = head.decode("ascii").split("\n")
        except UnicodeDecodeError:
            raise Malformed("expected a request in ASCII up to its checkpoint, got something else") from None
        if not separator or not first.startswith("old ") or len(lines) > MAX_PROOF:
            raise Malformed("expected 'old <size>', at most 63 hashes, an empty line, and a checkpoint")
        proof = tuple(from_base64(line, "a hash of a consistency proof") for line in lines)
        if any(len(item) != HASH_BYTES for item in proof):
            raise Malformed(f"expected hashes of {HASH_BYTES} bytes in a consistency proof")
        return cls(parse_size(first.removeprefix("old ")), proof, note)


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back over HTTP."""

    status: int
    body: bytes
    content_type: str = _TEXT


class WitnessStore(Protocol):
    """What a witness remembers of each log."""

    def latest(self, origin: str) -> TreeHead:
        """The newest tree that was recorded; the empty one if none was."""
        ...

    def record(self, origin: str, note: bytes) -> None:
        """Keep a verified checkpoint as the latest. Durable when it returns; only then may the cosignature
        go out."""
        ...


class Witness:
    """Answers ``add-checkpoint``; safe to call from many threads.

    A witness does not read entries: it says that it saw one history, the same one as everybody who
    demands its cosignature.
    """

    def __init__(
        self, key: CosignerKey, logs: tuple[CheckpointPolicy, ...], *, store: WitnessStore, clock: Clock
    ) -> None:
        self._key = key
        self._logs: Mapping[str, CheckpointPolicy] = {log.origin: CheckpointPolicy(log.log) for log in logs}
        if len(self._logs) != len(logs):
            raise Malformed("expected each log once, got two with the same name")
        self._store = store
        self._clock = clock
        self._lock = Lock()  # between looking at the latest tree and recording the next

    def add_checkpoint(self, body: bytes) -> Answer:
        """Cosign a checkpoint, or say why not, with the status that the specification names.

        1. 400: the request does not parse.            4. 400: the old size is past the checkpoint's.
        2. 404: its origin is not one of our logs.      5. 409, with our size: the old size is not the latest.
        3. 403: no key of that log signed it, or one's  6. 409: another root at the same size.
           signature is bad.                            7. 422: the proof does not hold.
        8. The new tree is recorded, durably; then it is cosigned.
        """
        try:
            request = AddCheckpoint.parse(body)  # 1.
            checkpoint = Checkpoint.parse(parse_note(request.note).text)
        except InvalidInput as error:
            return _refuse(400, error)
        log = self._logs.get(checkpoint.origin)
        if log is None:  # 2.
            return Answer(404, b"unknown log\n")
        try:
            log.verify(request.note)  # 3.
        except FltrustError as error:
            return _refuse(403, error)
        if request.old > checkpoint.head.size:  # 4.
            return Answer(400, b"the old size is larger than the checkpoint's\n")
        with self._lock:
            return self._cosign(request, checkpoint)

    def _cosign(self, request: AddCheckpoint, checkpoint: Checkpoint) -> Answer:
        latest, head = self._store.latest(checkpoint.origin), checkpoint.head
        if request.old != latest.size:  # 5.
            return Answer(409, f"{latest.size}\n".encode(), SIZE_TYPE)
        if head.size == latest.size and head.root != latest.root:  # 6.
            return Answer(409, f"{latest.size}\n".encode(), SIZE_TYPE)
        try:
            verify_consistency(request.proof, old=latest, new=head)  # 7.
        except EvidenceInvalid as error:
            return _refuse(422, error)
        self._store.record(checkpoint.origin, request.note)  # 8.
        return Answer(200, self._key.cosign(checkpoint, at=self._clock.now()).line.encode())


class FolderStore:
    """A `WitnessStore` in a private folder: one file for each log, its newest signed checkpoint.

    The folder is locked while the store is open: two witnesses with one memory each would cosign two pasts.
    """

    def __init__(self, folder: Path) -> None:
        make_private_folder(folder)
        self._folder = folder
        self._lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise Conflict(
                f"another witness is running on {folder}",
                hint="stop it first, or give this one its own folder",
            ) from None

    def latest(self, origin: str) -> TreeHead:
        path = self._path(origin)
        if not path.exists():
            return EMPTY_HEAD
        checkpoint = Checkpoint.parse(parse_note(read_bounded(path, limit=MAX_NOTE)).text)
        if checkpoint.origin != origin:
            raise Malformed(f"expected a checkpoint of {origin} in {path}, found another log's")
        return checkpoint.head

    def record(self, origin: str, note: bytes) -> None:
        write_durably(self._path(origin), note)

    def close(self) -> None:
        os.close(self._lock)

    def _path(self, origin: str) -> Path:
        return self._folder / f"{sha256(origin.encode()).hexdigest()}.checkpoint"


Prove = Callable[[int], tuple[bytes, ...]]
"""Gives the consistency proof from the tree of that size to the checkpoint's."""


def request_cosignature(
    url: str,
    note: bytes,
    *,
    witness: VerifierKey,
    prove: Prove,
    old: int = 0,
    ca_file: Path | None = None,
    timeout: float = TIMEOUT,
) -> NoteSignature:
    """Ask the witness below `url` to cosign a signed checkpoint; its signature line, verified.

    `old` is the size that it cosigned last, as far as is known; if it says another, it is asked once more
    from there. Raises `Unavailable` if it does not answer, `Conflict` (``witness-refused``) if it has seen a
    larger tree or refuses, `SignatureInvalid` if what comes back does not verify, `Malformed` if it is none
    of the witness's.
    """
    client = HttpClient(url, ca_file=ca_file, timeout=timeout)
    try:
        status, kind, body = _ask(client, old, note, prove)
        if status == 409 and kind == SIZE_TYPE:
            theirs = parse_size(_text(body).removesuffix("\n"))
            ours = Checkpoint.parse(parse_note(note).text).head.size
            if theirs > ours or theirs == old:
                raise Conflict(
                    f"the witness {witness.name} has seen {theirs} entries, and does not cosign {ours} "
                    f"after {old}",
                    reason="witness-refused",
                )
            status, kind, body = _ask(client, theirs, note, prove)
    finally:
        client.close()
    if status >= 500:
        raise Unavailable(f"the witness {witness.name} at {url} answered with HTTP status {status}")
    if status != 200:
        raise Conflict(
            f"the witness {witness.name} did not cosign: HTTP status {status}, {_text(body)[:200].strip()!r}",
            reason="witness-refused",
            hint="does it know this log's key? a status of 422 means that it saw another history",
        )
    return _pick(body, note, witness)


def _ask(client: HttpClient, old: int, note: bytes, prove: Prove) -> tuple[int, str, bytes]:
    body = AddCheckpoint(old, prove(old), note).encode()
    return client.request("POST", ADD_CHECKPOINT, limit=_MAX_ANSWER, body=body)


def _pick(body: bytes, note: bytes, witness: VerifierKey) -> NoteSignature:
    lines = [parse_signature(line) for line in _text(body).removesuffix("\n").split("\n")]
    cosigned = Note(parse_note(note).text, tuple(lines))
    if not verify_cosignatures(cosigned, (witness,)):
        raise Malformed(f"expected a cosignature by {witness.name}, got none of that key")
    return cosigned.by(witness)[0]


def _refuse(status: int, error: FltrustError) -> Answer:
    return Answer(status, f"{error.message}\n".encode())


def _text(body: bytes) -> str:
    return body.decode("utf-8", "replace")
