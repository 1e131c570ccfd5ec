"""Verifying a model: one recipe, offline, from one trust file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from fltrust.artifacts.policy import Policy
from fltrust.artifacts.trustfile import TrustFile
from fltrust.identity import Digest


@dataclass(frozen=True, slots=True)
class VerifiedModel:
    """A model whose bytes, signature, evidence and standing hold."""

    path: Path
    signer: str
    issuer: str | None
    signed_at: datetime
    subject: Digest
    statement: Digest
    log_index: int | None
    size: int
    files: int
    rounds: int | None
    participants: tuple[str, ...] | None
    status_at: datetime | None
    warnings: tuple[str, ...]


def verify(
    path: str | Path,
    *,
    trust: TrustFile | bytes | str | Path,
    policy: Policy | str | Path | None = None,
    identity: str | None = None,
    issuer: str | None = None,
    signature: str | Path | None = None,
    lineage: str | Path | None = None,
    status: str | Path | None = None,
    at: datetime | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> VerifiedModel:
    """Return the verified model, or raise the reason why not."""
    raise NotImplementedError
