"""Tensors written as a safetensors file, durably, whole or not at all.

Largest elements first, then by name: so each tensor is aligned, and the same tensors give the same file.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from fltrust.artifacts.tensors import DTYPE_BITS, RawTensor
from fltrust.errors import Malformed
from fltrust.files import write_parts_durably

_ALIGNED = 8
_OURS = frozenset({"C128"})  # what the format has no name for


def save_safetensors(tensors: Iterable[RawTensor], path: Path, *, mode: int = 0o644) -> None:
    """Write `tensors` to `path`, replacing what is there. Raises `Malformed`, or `StorageUnavailable`."""
    ordered = sorted(tensors, key=lambda tensor: (-DTYPE_BITS[tensor.dtype], tensor.name.encode()))
    if len({tensor.name for tensor in ordered}) != len(ordered):
        raise Malformed("expected each tensor's name once, got one twice")
    unknown = next((tensor for tensor in ordered if tensor.dtype in _OURS), None)
    if unknown is not None:
        raise Malformed(
            f"expected a dtype of the safetensors format in {unknown.name!r}, got {unknown.dtype}"
        )
    parts: list[bytes | memoryview] = [_header(ordered), *(tensor.data for tensor in ordered)]
    write_parts_durably(path, parts, mode=mode)


def _header(tensors: list[RawTensor]) -> bytes:
    fields: dict[str, object] = {}
    at = 0
    for tensor in tensors:
        end = at + len(tensor.data)
        fields[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [at, end],
        }
        at = end
    text = json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGNED)
    return len(text).to_bytes(8, "little") + text
