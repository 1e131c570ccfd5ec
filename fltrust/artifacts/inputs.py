"""What an aggregate is made of, as its provenance names it: the app, models, updates, and the sealed round.

Each writes itself as one resource descriptor (or parameter) of an in-toto statement, and reads it back.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from fltrust.artifacts.ports import Contribution
from fltrust.errors import Malformed
from fltrust.identity import Digest, Epoch, Role, RunId, SpiffeId, TrustDomain
from fltrust.strictjson import Fields
from fltrust.tlog.stated import PublicName
from fltrust.updates.digest import MODEL_ALGORITHM
from fltrust.updates.intoto import SHA256, check_count, check_digest

_EXAMPLES = re.compile(r"(?:0|[1-9][0-9]{0,19})(?:\.[0-9]{1,20})?\Z")
_PRINTABLE = re.compile(r"[\x21-\x7e]{0,128}\Z")
_NUMBER = re.compile(r"[0-9]{1,20}\Z")


def check_public_name(name: str) -> None:
    """Raise `Malformed` unless this is a participant's SPIFFE ID or a pseudonym."""
    if not PublicName(name).is_pseudonym and SpiffeId.parse(name).role is not Role.PARTICIPANT:
        raise Malformed(f"expected a participant's name, got {name[:80]!r}")


def examples_text(weight: object) -> str | None:
    """A reply's weight as provenance states it; None for what is no number of examples."""
    if isinstance(weight, bool) or not isinstance(weight, int | float):
        return None
    text = str(weight) if isinstance(weight, int) else f"{weight:.6f}".rstrip("0").rstrip(".")
    return text if _EXAMPLES.match(text) else None


def place_text(kind: str, domain: TrustDomain, run_id: RunId, step: int) -> str:
    """The name of an aggregate: ``<kind>/<domain>/<run>/<step>``."""
    return f"{kind}/{domain}/{int(run_id)}/{step}"


def parse_place(name: str, kind: str) -> tuple[TrustDomain, RunId, int]:
    """Read what `place_text` writes; leading zeros pass here and fail at the statement's byte form."""
    parts = name.split("/")
    if len(parts) != 4 or parts[0] != kind or not all(_NUMBER.match(part) for part in parts[2:]):
        raise Malformed(f"expected '{kind}/<domain>/<run>/<step>' in provenance, got {name[:80]!r}")
    return TrustDomain(parts[1]), RunId(int(parts[2])), int(parts[3])


def digests_fields(tensors: Digest, model: Digest) -> dict[str, str]:
    """The two digests of a model, as a DigestSet."""
    return {SHA256: tensors.hex, MODEL_ALGORITHM: model.hex}


def digests_from(fields: Fields) -> tuple[Digest, Digest]:
    """Read what `digests_fields` writes: tensor set, model."""
    tensors, model = fields.text(SHA256, limit=64), fields.text(MODEL_ALGORITHM, limit=64)
    fields.done()
    return Digest.parse(f"{SHA256}:{tensors}"), Digest.parse(f"{MODEL_ALGORITHM}:{model}")


@dataclass(frozen=True, slots=True)
class AppVersion:
    """The Flower app that ran: what Flower says of its FAB. `fab_hash` is Flower's own, a SHA-256 in hex."""

    fab_id: str
    fab_version: str
    fab_hash: str

    def __post_init__(self) -> None:
        for text in (self.fab_id, self.fab_version, self.fab_hash):
            if not _PRINTABLE.match(text):
                raise Malformed(f"expected an app's name in at most 128 printable characters: {text[:80]!r}")

    def to_fields(self) -> dict[str, object]:
        return {"fabId": self.fab_id, "fabVersion": self.fab_version, "fabHash": self.fab_hash}

    @classmethod
    def from_fields(cls, fields: Fields) -> Self:
        app = cls(*(fields.text(name, limit=128) for name in ("fabId", "fabVersion", "fabHash")))
        fields.done()
        return app


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInput:
    """An earlier aggregate: its place in its run, its digests, and where its provenance stands in the log."""

    run_id: RunId
    step: int
    tensors: Digest
    model: Digest
    log_index: int

    def __post_init__(self) -> None:
        check_count(self.step, "step")
        check_digest(self.tensors, SHA256, "tensors")
        check_digest(self.model, MODEL_ALGORITHM, "model")
        _check_index(self.log_index)

    def to_fields(self, kind: str, domain: TrustDomain) -> dict[str, object]:
        return {
            "name": place_text(kind, domain, self.run_id, self.step),
            "digest": digests_fields(self.tensors, self.model),
            "annotations": {"logIndex": str(self.log_index)},
        }

    @classmethod
    def from_fields(cls, name: str, kind: str, fields: Fields) -> Self:
        _, run_id, step = parse_place(name, kind)
        tensors, model = digests_from(fields.object("digest"))
        index = fields.object("annotations").decimal("logIndex", bits=63)
        return cls(run_id=run_id, step=step, tensors=tensors, model=model, log_index=index)


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateInput:
    """One admitted update. `examples` is the weight it counted with, as a decimal number; None if unknown."""

    public_name: str
    update: Digest
    certificate: Digest
    examples: str | None = None

    def __post_init__(self) -> None:
        check_public_name(self.public_name)
        check_digest(self.update, SHA256, "update")
        check_digest(self.certificate, SHA256, "certificate")
        if self.examples is not None and not _EXAMPLES.match(self.examples):
            raise Malformed(f"expected a decimal number of examples, got {self.examples[:40]!r}")

    @classmethod
    def of(cls, contribution: Contribution, *, examples: str | None = None) -> Self:
        """An admitted update as the coordinator states it."""
        return cls(
            public_name=contribution.public_name,
            update=contribution.update,
            certificate=contribution.certificate,
            examples=examples,
        )

    def to_fields(self, kind: str) -> dict[str, object]:
        return {
            "name": f"{kind}/{self.public_name}",
            "digest": {SHA256: self.update.hex},
            "annotations": {"certificate": str(self.certificate), "examples": self.examples},
        }

    @classmethod
    def from_fields(cls, public_name: str, fields: Fields) -> Self:
        digest, notes = fields.object("digest"), fields.object("annotations")
        examples = notes.any("examples")
        if examples is not None and not isinstance(examples, str):
            raise Malformed("expected the number of examples as a decimal string in provenance")
        return cls(
            public_name=public_name,
            update=Digest.parse(f"{SHA256}:{digest.text(SHA256, limit=64)}"),
            certificate=notes.digest("certificate"),
            examples=examples,
        )


@dataclass(frozen=True, slots=True)
class SealedIn:
    """The sealed round that admitted the updates: SHA-256 of its receipt's payload, and place in the log."""

    epoch: Epoch
    receipt: Digest
    log_index: int

    def __post_init__(self) -> None:
        check_digest(self.receipt, SHA256, "receipt")
        _check_index(self.log_index)

    def to_fields(self) -> dict[str, object]:
        return {
            "epoch": str(int(self.epoch)),
            "receipt": str(self.receipt),
            "logIndex": str(self.log_index),
        }

    @classmethod
    def from_fields(cls, fields: Fields) -> Self:
        epoch, index = fields.decimal("epoch", bits=63), fields.decimal("logIndex", bits=63)
        return cls(Epoch(epoch), fields.digest("receipt"), index)


def _check_index(index: int) -> None:
    if not 0 <= index < 2**63:
        raise Malformed(f"expected a position in the log, got {index}")
