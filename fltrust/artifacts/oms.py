"""The statement that a model's signature signs: OMS v1.0 (OpenSSF Model Signing), with ours beside it.

An in-toto Statement v1 with predicate ``https://model_signing/signature/v1.0``: ``resources`` and
``serialization`` are what any OMS verifier reads; it passes over the key ``fltrust``, where sizes,
empty directories, tensors and the link to the lineage stand.
"""

from __future__ import annotations

from dataclasses import dataclass

from fltrust.artifacts.manifest import Manifest
from fltrust.identity import Digest, RunId

PREDICATE_TYPE = "https://model_signing/signature/v1.0"
MAX_STATEMENT_BYTES = 96 * 2**20
"""Of the statement's JSON: 250,000 files, or 200,000 tensors."""


@dataclass(frozen=True, slots=True)
class LineageLink:
    """The aggregate that a model claims to be, and where its provenance stands."""

    aggregate: Digest
    """Canonical tensor set (`fltrust.artifacts.tensors`)."""
    run_id: RunId
    step: int
    log_index: int
    bundle: Digest
    """SHA-256 of the newest line of the lineage file, without its newline."""
    count: int
    """Lines of the lineage file."""


@dataclass(frozen=True, slots=True)
class ModelStatement:
    """What is signed about a model. `name` informs only: it is not bound to where the model lies."""

    name: str
    manifest: Manifest
    ignored: tuple[str, ...] = ()
    """What the signer left out; stock verifiers leave it out too, ours does not."""
    lineage: LineageLink | None = None
    is_ours: bool = True
    """False: signed by another tool, without the ``fltrust`` part; sizes and tensors are not known."""

    @property
    def subject(self) -> Digest:
        """OMS's root: SHA-256 over the files' digests, in order. It does not bind names."""
        raise NotImplementedError

    def encode(self) -> bytes:
        """The statement's one byte form."""
        raise NotImplementedError


def parse_statement(payload: bytes) -> ModelStatement:
    """Read what `encode` or another OMS v1.0 signer wrote.

    With a ``fltrust`` part: strictly, in its one byte form. Without: ``files`` serialization with
    SHA-256. Raises `StatementRefused` for another predicate, `Malformed` or `Oversized`.
    """
    raise NotImplementedError
