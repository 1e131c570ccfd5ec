"""Signing a model at the coordinator's desk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fltrust.artifacts.ports import EntryKind, LineageArchive, SigningDesk, StepOfRun
from fltrust.artifacts.trustfile import TrustFile
from fltrust.identity import Digest


@dataclass(frozen=True, slots=True)
class SignedModel:
    """What was written beside the model."""

    path: Path
    signature: Path
    lineage: Path | None
    signer: str
    statement: Digest
    subject: Digest
    log_index: int | None


def sign(
    path: str | Path,
    *,
    desk: SigningDesk,
    lineage: LineageArchive | None = None,
    run: StepOfRun | None = None,
    trust: TrustFile | None = None,
    entry_kind: EntryKind = EntryKind.HASHEDREKORD,
    out: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> SignedModel:
    """Sign a file or a directory; see `docs/reference/artifacts.md`."""
    raise NotImplementedError
