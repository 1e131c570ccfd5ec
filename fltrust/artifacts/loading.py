"""Load what was verified, and nothing else: read once, hash those bytes, parse those bytes.

The file is read into memory of this process, so nobody who rewrites it meanwhile can change what was
verified; the tensors are views on that memory.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from fltrust.artifacts.oms import ModelStatement

Framework = Literal["numpy", "torch"]


def read_verified(path: Path, statement: ModelStatement, *, workers: int | None = None) -> memoryview:
    """The bytes of one signed file. Raises `Tampered` unless they are the signed ones.

    `path` is the model itself, or a file in it; only that file is read.
    """
    raise NotImplementedError


def load_verified_safetensors(
    path: Path, statement: ModelStatement, *, framework: Framework = "numpy", workers: int | None = None
) -> dict[str, Any]:
    """Tensors by name, as numpy arrays or torch tensors, of a file that a verified statement covers."""
    raise NotImplementedError
