"""One audited entry of the log as it travels: the entry, its place, and the proof that it stands there.

    {"index": "7", "at": "…Z", "kind": "trust-event", "subjects": ["spiffe://…"], "entry": base64,
     "proof": [base64, …], "checkpoint": signed note}

`subjects` are what the coordinator's index finds the entry by, the first few: names as they are, also where
the entry itself has pseudonyms. They, the kind and `at` are the coordinator's words; what the entry says is
proven.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Self

from fltrust import strictjson
from fltrust.clock import to_rfc3339
from fltrust.errors import EvidenceInvalid
from fltrust.strictbase64 import from_base64, to_base64
from fltrust.strictjson import Fields
from fltrust.tlog.checkpoint import CheckpointPolicy, VerifiedCheckpoint
from fltrust.tlog.entries import Entry, kind_of, parse_entry
from fltrust.tlog.merkle import MAX_PROOF, leaf_hash, verify_inclusion
from fltrust.tlog.note import MAX_NOTE
from fltrust.tlog.ports import MAX_ENTRY

MAX_LINE = 4 * MAX_NOTE
MAX_SUBJECTS = 64
_MAX_SUBJECT = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditLine:
    """An entry with its proof. Holding one says nothing about its truth before `verify`."""

    index: int
    at: datetime
    kind: str
    subjects: tuple[str, ...]
    entry: bytes
    proof: tuple[bytes, ...]
    checkpoint: bytes

    def encode(self) -> bytes:
        return strictjson.encode(
            {
                "index": str(self.index),
                "at": to_rfc3339(self.at),
                "kind": self.kind,
                "subjects": list(self.subjects),
                "entry": to_base64(self.entry),
                "proof": [to_base64(item) for item in self.proof],
                "checkpoint": self.checkpoint.decode(),
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read what `encode` writes; `Oversized` before it is parsed, else `Malformed`."""
        fields = Fields(strictjson.decode(data, limit=MAX_LINE, what="an audit line"), "an audit line")
        line = cls(
            index=fields.decimal("index", bits=63),
            at=fields.time("at"),
            kind=fields.text("kind", limit=64),
            subjects=tuple(fields.texts("subjects", limit=MAX_SUBJECTS, each=_MAX_SUBJECT)),
            entry=from_base64(fields.text("entry", limit=2 * MAX_ENTRY), "an entry"),
            proof=tuple(
                from_base64(item, "a hash") for item in fields.texts("proof", limit=MAX_PROOF, each=64)
            ),
            checkpoint=fields.text("checkpoint", limit=MAX_NOTE).encode(),
        )
        fields.done()
        return line

    @property
    def leaf_hash(self) -> bytes:
        return leaf_hash(self.entry)

    def verify(self, policy: CheckpointPolicy) -> tuple[Entry, VerifiedCheckpoint]:
        """What the entry says, and the tree that it is proven to stand in.

        1. The checkpoint is signed by the log (`CheckpointPolicy.verify`).
        2. The proof leads from the entry to its root (`EvidenceInvalid`).
        3. The entry is of a kind known here (`Malformed`), the one that it is said to be.
        """
        checkpoint = policy.verify(self.checkpoint)  # 1.
        verify_inclusion(self.proof, leaf=self.leaf_hash, index=self.index, head=checkpoint.head)  # 2.
        entry = parse_entry(self.entry)  # 3.
        if kind_of(entry) != self.kind:
            raise EvidenceInvalid(
                f"expected entry {self.index} to be a {self.kind}, it is a {kind_of(entry)}",
                reason="log-entry-kind",
            )
        return entry, checkpoint
