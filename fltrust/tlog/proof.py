"""A proof in one file (C2SP tlog-proof): that an entry is in a log, for whoever knows the log's key."""

from __future__ import annotations

from dataclasses import dataclass

from fltrust.errors import Malformed, NotFound, Oversized
from fltrust.strictbase64 import from_base64, to_base64
from fltrust.tlog.checkpoint import CheckpointPolicy, VerifiedCheckpoint, parse_size
from fltrust.tlog.merkle import HASH_BYTES, MAX_PROOF, inclusion_proof, verify_inclusion
from fltrust.tlog.note import MAX_NOTE
from fltrust.tlog.reader import Fetch, TileReader
from fltrust.tlog.tiles import CHECKPOINT_PATH

SUFFIX = ".tlog-proof"
MAX_TLOG_PROOF = MAX_NOTE + 128 * 1024

_FIRST_LINE = "c2sp.org/tlog-proof@v1"
_MAX_EXTRA = 65_535


@dataclass(frozen=True, slots=True)
class TlogProof:
    """Entry number, inclusion proof and signed checkpoint. `extra` is authenticated by nothing."""

    index: int
    path: tuple[bytes, ...]
    checkpoint: bytes
    extra: bytes | None = None

    def encode(self) -> bytes:
        lines = [_FIRST_LINE]
        if self.extra is not None:
            lines.append(f"extra {to_base64(self.extra)}")
        lines.append(f"index {self.index}")
        lines.extend(to_base64(item) for item in self.path)
        return ("\n".join(lines) + "\n\n").encode() + self.checkpoint

    @classmethod
    def parse(cls, data: bytes) -> TlogProof:
        """Read a proof; the checkpoint in it is taken as it is, for `verify` to judge."""
        if len(data) > MAX_TLOG_PROOF:
            raise Oversized(f"expected a proof of at most {MAX_TLOG_PROOF} bytes, got {len(data)}")
        head, separator, checkpoint = data.partition(b"\n\n")
        try:
            first, *lines = head.decode("ascii").split("\n")
        except UnicodeDecodeError:
            raise Malformed("expected a proof in ASCII up to its checkpoint, got something else") from None
        if first != _FIRST_LINE or not separator:
            raise Malformed(f"expected a proof that begins with {_FIRST_LINE!r}, got {first[:80]!r}")
        extra = None
        if lines and lines[0].startswith("extra "):
            extra = from_base64(lines.pop(0).removeprefix("extra "), "the extra data of a proof")
        if not lines or not lines[0].startswith("index ") or len(lines) > MAX_PROOF + 1:
            raise Malformed("expected an entry number and its inclusion proof, got something else")
        if extra is not None and len(extra) > _MAX_EXTRA:
            raise Oversized(f"expected at most {_MAX_EXTRA} bytes of extra data, got {len(extra)}")
        index = parse_size(lines.pop(0).removeprefix("index "))
        path = tuple(from_base64(line, "a hash of an inclusion proof") for line in lines)
        if any(len(item) != HASH_BYTES for item in path):
            raise Malformed(f"expected hashes of {HASH_BYTES} bytes in an inclusion proof")
        return cls(index, path, checkpoint, extra)

    @classmethod
    def of(cls, index: int, *, fetch: Fetch, policy: CheckpointPolicy) -> tuple[TlogProof, bytes]:
        """Make the proof of an entry from a log's tiles; the entry's bytes, beside it.

        The checkpoint is verified, and every tile against it. `NotFound` for an entry past the end.
        """
        note = fetch(CHECKPOINT_PATH)
        head = policy.verify(note).head
        if not 0 <= index < head.size:
            raise NotFound(f"expected an entry from 0 to {head.size - 1} of the log, got {index}")
        reader = TileReader(fetch, head)
        path = inclusion_proof(reader, index, size=head.size)
        ((_, entry),) = reader.entries(index, index + 1)
        return cls(index, tuple(path), note), entry

    def verify(self, *, leaf: bytes, policy: CheckpointPolicy) -> VerifiedCheckpoint:
        """Check that the entry with leaf hash `leaf` is in the log; the checkpoint that says so.

        Raises what `CheckpointPolicy.verify` and `verify_inclusion` raise.
        """
        checkpoint = policy.verify(self.checkpoint)
        verify_inclusion(self.path, leaf=leaf, index=self.index, head=checkpoint.head)
        return checkpoint
