"""What a gate is set to, read once from the environment where a process is put together.

| variable | meaning |
|---|---|
| `FLTRUST_TRUST` | the trust file, or a Sigstore ``trusted_root.json``; read anew for each verdict |
| `FLTRUST_POLICY` | a policy (TOML); read anew for each verdict |
| `FLTRUST_IDENTITY`, `FLTRUST_ISSUER` | who must have signed, in place of or beside a policy |
| `FLTRUST_MODE` | ``enforce`` or ``advisory``; else the policy's own mode, else ``enforce`` |
| `FLTRUST_MAX_DOWNLOAD` | bytes that a gate copies to look at one model; 64 GiB |
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from fltrust.artifacts.policy import Mode
from fltrust.errors import Malformed

TRUST_VARIABLE = "FLTRUST_TRUST"
POLICY_VARIABLE = "FLTRUST_POLICY"
IDENTITY_VARIABLE = "FLTRUST_IDENTITY"
ISSUER_VARIABLE = "FLTRUST_ISSUER"
MODE_VARIABLE = "FLTRUST_MODE"
MAX_DOWNLOAD_VARIABLE = "FLTRUST_MAX_DOWNLOAD"

MAX_DOWNLOAD = 64 * 2**30
MAX_FILES = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class GateSettings:
    """What a gate verifies against. `mode` None leaves it to the policy."""

    trust: Path
    policy: Path | None = None
    identity: str | None = None
    issuer: str | None = None
    mode: Mode | None = None
    max_download: int = MAX_DOWNLOAD

    def __post_init__(self) -> None:
        if self.policy is None and self.identity is None:
            raise Malformed(
                "expected to be told who may sign models, got neither a policy nor an identity",
                hint=f"set {POLICY_VARIABLE} or {IDENTITY_VARIABLE}",
            )

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Self:
        """Read the variables; `Malformed` where one is missing or cannot be understood."""
        found = os.environ if environment is None else environment
        trust = found.get(TRUST_VARIABLE)
        if not trust:
            raise Malformed(
                f"expected {TRUST_VARIABLE} to name a trust file, found it unset",
                hint="export one with: fltrust trust export",
            )
        policy, mode = found.get(POLICY_VARIABLE), found.get(MODE_VARIABLE)
        return cls(
            trust=Path(trust),
            policy=Path(policy) if policy else None,
            identity=found.get(IDENTITY_VARIABLE) or None,
            issuer=found.get(ISSUER_VARIABLE) or None,
            mode=_mode(mode) if mode else None,
            max_download=_bytes(found.get(MAX_DOWNLOAD_VARIABLE)),
        )


def is_set(environment: Mapping[str, str] | None = None) -> bool:
    """Say whether this process is asked to gate anything at all."""
    return bool((os.environ if environment is None else environment).get(TRUST_VARIABLE))


def _mode(text: str) -> Mode:
    try:
        return Mode(text)
    except ValueError:
        raise Malformed(f"expected {MODE_VARIABLE} as one of {', '.join(Mode)}, got {text[:40]!r}") from None


def _bytes(text: str | None) -> int:
    if not text:
        return MAX_DOWNLOAD
    if not (text.isascii() and text.isdigit() and len(text) <= 18) or int(text) == 0:
        raise Malformed(f"expected {MAX_DOWNLOAD_VARIABLE} as a number of bytes, got {text[:40]!r}")
    return int(text)
