"""Load what was verified, and nothing else: read once, hash those bytes, parse those bytes.

A file that is verified and then opened again can be another file by then, and a mapped one changes
under the tensors that were made from it. Here its bytes are copied into memory of this process alone
(`fltrust.artifacts.private`), hashed there, and parsed there; the tensors are views on that memory.
Whoever rewrites the file meanwhile causes a refusal, or nothing.

    tensors = load_safetensors("model.safetensors", trust="trust.json",
                               identity="spiffe://hospitals.example/signer/release")

A file in a signed directory is loaded alone: its name and bytes are the signed ones, and nothing is
said about the other files.
"""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from fltrust.artifacts import frameworks
from fltrust.artifacts.frameworks import Framework
from fltrust.artifacts.identity import IdentityRule
from fltrust.artifacts.manifest import Difference, FileState, Manifest, sidecar_paths, tampered
from fltrust.artifacts.private import read_verified
from fltrust.artifacts.recipe import PolicySource, TrustSource, verify_signature
from fltrust.artifacts.safetensors import parse_header
from fltrust.artifacts.walk import SIGNATURE_NAME, SINGLE_FILE
from fltrust.errors import EvidenceMissing


class AdvisoryWarning(UserWarning):
    """A policy in ``advisory`` mode would have refused the model that was loaded."""


def load_safetensors(
    path: str | Path,
    *,
    trust: TrustSource,
    policy: PolicySource = None,
    identity: str | IdentityRule | None = None,
    issuer: str | None = None,
    model: str | Path | None = None,
    signature: str | Path | None = None,
    status: str | Path | None = None,
    at: datetime | None = None,
    framework: Framework = "numpy",
    workers: int | None = None,
) -> dict[str, Any]:
    """Verify a safetensors file and give its tensors by name, as numpy arrays or torch tensors.

    `model` is what was signed: the file itself or a directory that holds it. Unless given, it is the file
    if a signature lies beside it, else the nearest directory above with one inside. Steps 1 to 13 of
    `fltrust.artifacts.recipe` judge the signature, then the bytes are read, once. Raises what
    `fltrust.artifacts.verify` raises, and `Malformed` for a signed file that is no safetensors file.
    """
    file = _SignedFile.find(path, model, signature)
    signed = file.judge(trust, policy, identity, issuer, signature, status, at)
    return load_verified_safetensors(file.path, signed, file.name, framework=framework, workers=workers)


def load_torch(
    path: str | Path,
    *,
    trust: TrustSource,
    policy: PolicySource = None,
    identity: str | IdentityRule | None = None,
    issuer: str | None = None,
    model: str | Path | None = None,
    signature: str | Path | None = None,
    status: str | Path | None = None,
    at: datetime | None = None,
    map_location: Any = "cpu",
    workers: int | None = None,
) -> Any:
    """Verify a file that ``torch.save`` wrote, and load those bytes with ``weights_only=True``, always.

    Such a file is a pickle: the policy must allow it, and what is not plain weights is refused
    (``pickle``), signed or not. Otherwise as `load_safetensors`.
    """
    file = _SignedFile.find(path, model, signature)
    signed = file.judge(trust, policy, identity, issuer, signature, status, at)
    found = read_verified(file.path, signed, file.name, workers=workers)
    return frameworks.load_torch_bytes(found.view, map_location)


def load_verified_safetensors(
    path: Path,
    signed: Manifest,
    name: str = SINGLE_FILE,
    *,
    framework: Framework = "numpy",
    workers: int | None = None,
) -> dict[str, Any]:
    """The tensors of the file `name` of a manifest whose signature was verified; `path` is read once."""
    found = read_verified(path, signed, name, workers=workers)
    header = found.header or parse_header(found.view, file_size=len(found.view))
    return frameworks.tensors_of(found.view, header, framework)


@dataclass(frozen=True, slots=True)
class _SignedFile:
    """A file, and the name that it has in the model it is signed in."""

    path: Path
    model: Path
    name: str

    @classmethod
    def find(cls, path: str | Path, model: str | Path | None, signature: str | Path | None) -> _SignedFile:
        file = Path(os.path.abspath(path))
        if model is None and (signature is not None or sidecar_paths(file).signature.is_file()):
            model = file
        if model is None:
            model = next((folder for folder in file.parents if (folder / SIGNATURE_NAME).is_file()), None)
        if model is None:
            raise EvidenceMissing(
                f"expected a signature beside {path}, or {SIGNATURE_NAME} in a directory above, found none",
                reason="unsigned",
                hint="fltrust sign writes it; signature= names one elsewhere",
            )
        top = Path(os.path.abspath(model))
        if top == file:
            return cls(file, top, SINGLE_FILE)
        if not file.is_relative_to(top):
            raise tampered(top, (Difference(FileState.ADDED, str(path)),))
        return cls(file, top, file.relative_to(top).as_posix())

    def judge(
        self,
        trust: TrustSource,
        policy: PolicySource,
        identity: str | IdentityRule | None,
        issuer: str | None,
        signature: str | Path | None,
        status: str | Path | None,
        at: datetime | None,
    ) -> Manifest:
        verified = verify_signature(
            self.model,
            trust=trust,
            policy=policy,
            identity=identity,
            issuer=issuer,
            signature=signature,
            status=status,
            at=at,
        )
        for refusal in verified.refusals:
            warnings.warn(str(refusal), AdvisoryWarning, stacklevel=3)
        return verified.statement.manifest
