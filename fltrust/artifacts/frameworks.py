"""Verified bytes as numpy arrays or torch tensors, without a copy. Imports either only when asked for."""

from __future__ import annotations

import io
import sys
from importlib import import_module
from pickle import UnpicklingError
from typing import Any, BinaryIO, Literal, cast

from fltrust.artifacts.safetensors import Header
from fltrust.artifacts.tensors import NUMPY_DTYPES
from fltrust.errors import ArtifactRefused, Malformed

Framework = Literal["numpy", "torch"]

_NAMES = {ours: name for name, ours in NUMPY_DTYPES.items()}
_FROM_ML_DTYPES = ("bfloat16", "float8")


def tensors_of(view: memoryview, header: Header, framework: Framework) -> dict[str, Any]:
    """The tensors of a safetensors file by name, in the order of their data: writable views on `view`.

    Raises `Malformed` for a dtype that the framework has no name for.
    """
    if sys.byteorder != "little":
        raise Malformed("expected a little-endian machine: safetensors data is used where it lies")
    make = _torch_tensor if framework == "torch" else _numpy_array
    return {
        span.name: make(view[span.offset : span.offset + span.size], _NAMES.get(span.dtype), span.shape)
        for span in header.tensors
    }


def load_torch_bytes(view: memoryview, map_location: Any) -> Any:
    """What ``torch.save`` wrote, read with ``weights_only=True``. Raises `ArtifactRefused` (``pickle``) for
    anything but plain weights, and `Malformed` for what torch did not write."""
    import torch

    try:
        return torch.load(cast(BinaryIO, _Reader(view)), map_location=map_location, weights_only=True)
    except UnpicklingError:
        raise ArtifactRefused(
            "expected plain weights in a file written by torch.save, found what can run code",
            reason="pickle",
            hint="save the state_dict alone, or better a safetensors file",
        ) from None
    except MemoryError:
        raise
    except Exception as error:  # its readers fail in many ways on what is not theirs
        raise Malformed(f"expected a file written by torch.save: {str(error)[:200]}") from None


def _numpy_array(data: memoryview, name: str | None, shape: tuple[int, ...]) -> Any:
    import numpy

    if name is not None and name.startswith(_FROM_ML_DTYPES):
        try:
            ml_dtypes = import_module("ml_dtypes")
        except ImportError:
            raise Malformed(
                f"expected a dtype that numpy knows, got {name}",
                hint='framework="torch", or install ml_dtypes',
            ) from None
        return numpy.frombuffer(data, getattr(ml_dtypes, name)).reshape(shape)
    if name is None:
        raise _unknown("numpy")
    return numpy.frombuffer(data, name).reshape(shape)


def _torch_tensor(data: memoryview, name: str | None, shape: tuple[int, ...]) -> Any:
    import torch

    dtype = getattr(torch, name, None) if name is not None else None
    if dtype is None:
        raise _unknown("torch")
    if not data:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(data, dtype=dtype).reshape(shape)


def _unknown(framework: str) -> Malformed:
    return Malformed(f"expected dtypes that {framework} has, got one of less than a byte or unknown to it")


class _Reader(io.RawIOBase):
    """A view as a file: ``io.BytesIO`` would copy all of it."""

    def __init__(self, view: memoryview) -> None:
        self._view, self._at = view, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: len(self._view)}[whence]
        if base + offset < 0:
            raise ValueError("expected a position in the file, got one before it")
        self._at = base + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        into = memoryview(buffer).cast("B")
        found = self._view[self._at : self._at + len(into)]
        into[: len(found)] = found
        self._at += len(found)
        return len(found)
