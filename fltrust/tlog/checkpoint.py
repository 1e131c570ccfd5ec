"""Checkpoints (C2SP tlog-checkpoint) and witnesses' cosignatures (C2SP tlog-cosignature, v1).

<origin>
<tree size>
<root hash in base64>
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType

from fltrust.errors import EvidenceInvalid, EvidenceMissing, Malformed, SignatureInvalid
from fltrust.keys.ed25519 import NoteSigner
from fltrust.strictbase64 import from_base64, to_base64
from fltrust.tlog.merkle import EMPTY_ROOT, HASH_BYTES, MAX_SIZE
from fltrust.tlog.note import (
    KeyType,
    Note,
    NoteKey,
    NoteSignature,
    VerifierKey,
    parse_note,
    sign_note,
    verify_note,
)
from fltrust.tlog.ports import TreeHead

MAX_WITNESSES = 32

_NUMBER = re.compile(r"(?:0|[1-9][0-9]{0,18})\Z")
_MAX_LINES = 16
_TIME_BYTES, _SIGNATURE_BYTES = 8, 64
_LAST_SECOND = 253_402_300_799  # of the year 9999


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a log says of itself: its origin, and its tree head. Extension lines are kept, not understood."""

    origin: str
    head: TreeHead
    extensions: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        root = to_base64(self.head.root)
        return "\n".join((self.origin, str(self.head.size), root, *self.extensions, ""))

    @classmethod
    def parse(cls, text: str) -> Checkpoint:
        """Read the text of a note as a checkpoint; `Malformed` for any other text."""
        lines = text.split("\n")
        if not 4 <= len(lines) <= _MAX_LINES or lines[-1] != "" or "" in lines[:-1]:
            raise Malformed("expected a checkpoint: origin, tree size and root hash, one on each line")
        origin, size, root, *extensions = lines[:-1]
        head = TreeHead(parse_size(size), from_base64(root, "the root hash of a checkpoint"))
        if len(head.root) != HASH_BYTES:
            raise Malformed(f"expected a root hash of {HASH_BYTES} bytes, got {len(head.root)}")
        if head.size == 0 and head.root != EMPTY_ROOT:
            raise Malformed("expected the root of an empty tree to be SHA-256 of nothing, got another")
        return cls(origin, head, tuple(extensions))


@dataclass(frozen=True, slots=True)
class VerifiedCheckpoint:
    """A checkpoint whose signatures were verified. `note` is the whole signed note, as it came."""

    checkpoint: Checkpoint
    note: bytes
    cosigned: Mapping[str, datetime] = field(default_factory=lambda: MappingProxyType({}))
    """Known witnesses that cosigned it, and when, by name."""

    @property
    def origin(self) -> str:
        return self.checkpoint.origin

    @property
    def head(self) -> TreeHead:
        return self.checkpoint.head


@dataclass(frozen=True, slots=True)
class CheckpointPolicy:
    """Who must have signed a checkpoint: the log, and `quorum` of the witnesses.

    `log` are the keys of one log, one of which must have signed; they share its name, which is the origin
    of its checkpoints. Witnesses cosign (0x04), and are told apart by their public keys.
    """

    log: tuple[VerifierKey, ...]
    witnesses: tuple[VerifierKey, ...] = ()
    quorum: int = 0

    def __post_init__(self) -> None:
        if not self.log or len({key.name for key in self.log}) != 1:
            raise Malformed("expected one or more keys of one log, all with its name")
        if any(key.key_type is not KeyType.ED25519 for key in self.log):
            raise Malformed("expected the log's keys to be Ed25519 (0x01)", hint="0x04 is a witness's key")
        if any(key.key_type is not KeyType.COSIGNATURE for key in self.witnesses):
            raise Malformed("expected the witnesses' keys to be cosignature/v1 (0x04), got another type")
        keys = {key.public_key for key in self.witnesses}
        names = {key.name for key in self.witnesses}
        if len(self.witnesses) > MAX_WITNESSES or not len(keys) == len(names) == len(self.witnesses):
            raise Malformed(f"expected at most {MAX_WITNESSES} witnesses, each with its own name and key")
        if keys & {key.public_key for key in self.log}:
            raise Malformed("expected the witnesses to be others than the log, got its own key as a witness")
        if not 0 <= self.quorum <= len(self.witnesses):
            raise Malformed(f"expected a quorum of 0 to {len(self.witnesses)} witnesses, got {self.quorum}")

    @classmethod
    def of(cls, *vkeys: str, witnesses: tuple[str, ...] = (), quorum: int | None = None) -> CheckpointPolicy:
        """Take keys as vkeys; left out, the quorum is all of the witnesses."""
        return cls(
            tuple(map(VerifierKey.parse, vkeys)),
            tuple(map(VerifierKey.parse, witnesses)),
            len(witnesses) if quorum is None else quorum,
        )

    @property
    def origin(self) -> str:
        return self.log[0].name

    def verify(self, note: bytes) -> VerifiedCheckpoint:
        """Believe a checkpoint, or say why not. Pure: the same note gives the same answer.

        1. The note parses, within its bounds (`Oversized`, `Malformed`).
        2. One of the log's keys signed it, and no signature by one of them is bad (`SignatureInvalid`).
        3. Its text is a checkpoint of this origin (`Malformed`, `EvidenceInvalid`).
        4. No cosignature by a known witness is bad (`SignatureInvalid`), and `quorum` witnesses cosigned
           (`EvidenceMissing`, ``witnesses``). Signatures by unknown keys are ignored.
        """
        parsed = parse_note(note)  # 1.
        verify_note(parsed, self.log)  # 2.
        checkpoint = Checkpoint.parse(parsed.text)  # 3.
        if checkpoint.origin != self.origin:
            raise EvidenceInvalid(
                f"expected a checkpoint of the log {self.origin}, got one of {checkpoint.origin[:200]!r}"
            )
        cosigned = verify_cosignatures(parsed, self.witnesses)  # 4.
        if len(cosigned) < self.quorum:
            raise EvidenceMissing(
                f"expected cosignatures of {self.quorum} of {len(self.witnesses)} witnesses on the "
                f"checkpoint of {self.origin} at size {checkpoint.head.size}, found {len(cosigned)}",
                reason="witnesses",
            )
        return VerifiedCheckpoint(checkpoint, note, MappingProxyType(cosigned))


def sign_checkpoint(head: TreeHead, key: NoteKey) -> bytes:
    """A checkpoint of the tree, signed: a note. The origin is the key's name.

    A log must not sign two checkpoints of which one tree does not extend the other.
    """
    return sign_note(Checkpoint(key.name, head).text, (key,))


@dataclass(frozen=True, slots=True)
class CosignerKey:
    """A witness's name and Ed25519 key: one key for one name, and never one that signs a log."""

    name: str
    signer: NoteSigner

    @property
    def verifier(self) -> VerifierKey:
        return VerifierKey(self.name, KeyType.COSIGNATURE, self.signer.public_key_raw)

    def cosign(self, checkpoint: Checkpoint, *, at: datetime) -> NoteSignature:
        """State that this was, as of `at` (whole seconds), the largest consistent tree that was seen."""
        seconds = int(at.timestamp())
        signature = self.signer.sign(_cosigned(checkpoint.text, seconds))
        return NoteSignature(
            self.name, self.verifier.key_id, seconds.to_bytes(_TIME_BYTES, "big") + signature
        )


def verify_cosignatures(note: Note, witnesses: tuple[VerifierKey, ...]) -> dict[str, datetime]:
    """Check every cosignature by a known witness: who cosigned, and when last.

    Raises `SignatureInvalid` if one does not verify. One witness counts once, however often it signed.
    """
    found: dict[str, datetime] = {}
    for witness in witnesses:
        for signature in note.by(witness):
            at = _verify_cosignature(note.text, signature, witness)
            found[witness.name] = max(at, found.get(witness.name, at))
    return found


def add_signatures(note: bytes, lines: tuple[NoteSignature, ...]) -> bytes:
    """The note with more signature lines at its end; those that it has already are not doubled."""
    parsed = parse_note(note)
    new = tuple(line for line in lines if line not in parsed.signatures)
    return Note(parsed.text, parsed.signatures + new).encode()


def parse_size(text: str) -> int:
    """A tree size or entry number in ASCII decimal, without leading zeroes."""
    if not _NUMBER.match(text) or int(text) > MAX_SIZE:
        raise Malformed(f"expected a number from 0 to 2^63-1 in decimal, got {text[:40]!r}")
    return int(text)


def _verify_cosignature(text: str, line: NoteSignature, witness: VerifierKey) -> datetime:
    if len(line.signature) != _TIME_BYTES + _SIGNATURE_BYTES:
        raise SignatureInvalid(f"expected a cosignature of 72 bytes by {witness.name}, got another length")
    seconds = int.from_bytes(line.signature[:_TIME_BYTES], "big")
    if seconds > _LAST_SECOND:
        raise SignatureInvalid(f"expected a cosignature by {witness.name} with a time before the year 10000")
    witness.verify(line.signature[_TIME_BYTES:], _cosigned(text, seconds))
    return datetime.fromtimestamp(seconds, UTC)


def _cosigned(text: str, seconds: int) -> bytes:
    return f"cosignature/v1\ntime {seconds}\n{text}".encode()
