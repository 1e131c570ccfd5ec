"""The canonical tensor manifest: what a set of tensors is, whatever file or record carries it.

Each tensor is an entry of name, dtype, shape and SHA-256 of its data: little-endian, C order,
without padding. Two digests are made from the entries:

    manifest = SHA-256 of {"tensors":[entry, …],"type":"urn:fltrust:tensor-manifest:v1"}   in data order
    set      = SHA-256 of {"tensors":[entry, …],"type":"urn:fltrust:tensor-set:v1"}        by name
    entry    = {"dtype":"F32","name":"layer.weight","sha256":"9f86…","shape":[2,3]}

both in the canonical JSON of `fltrust.strictjson`; names are sorted by their UTF-8 bytes. `manifest`
binds the order in the file; `set` survives serialising again, and an aggregate in memory has the same
one as the safetensors file that it is saved to: it is the link between a file and the round it came from.

Dtypes have the names of the safetensors format; ``C128``, which that format lacks, is ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any

from fltrust import strictjson
from fltrust.artifacts.hashing import hash_views
from fltrust.errors import Malformed, Oversized
from fltrust.identity import Digest
from fltrust.strictjson import Fields
from fltrust.updates.content import MAX_DIMENSIONS, flat_view
from fltrust.updates.npy import read_header

if TYPE_CHECKING:
    from numpy.typing import NDArray

MANIFEST_TYPE = "urn:fltrust:tensor-manifest:v1"
SET_TYPE = "urn:fltrust:tensor-set:v1"

MAX_TENSORS = 200_000
MAX_NAME_BYTES = 1_024
MAX_BYTES = 2**53 - 1
"""Of one tensor, and for one dimension: what every JSON reader keeps exactly."""

DTYPE_BITS = {
    "BOOL": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "C64": 64,
    "F64": 64,
    "I64": 64,
    "U64": 64,
    "C128": 128,
}
"""Bits of one element. Types of less than a byte fill whole bytes together, or are refused."""

NUMPY_DTYPES = {
    "bool": "BOOL",
    "uint8": "U8",
    "int8": "I8",
    "int16": "I16",
    "uint16": "U16",
    "float16": "F16",
    "bfloat16": "BF16",
    "int32": "I32",
    "uint32": "U32",
    "float32": "F32",
    "complex64": "C64",
    "float64": "F64",
    "int64": "I64",
    "uint64": "U64",
    "complex128": "C128",
    "float8_e5m2": "F8_E5M2",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e8m0fnu": "F8_E8M0",
    "float8_e4m3fnuz": "F8_E4M3FNUZ",
    "float8_e5m2fnuz": "F8_E5M2FNUZ",
}
"""``str(array.dtype)`` (with ml_dtypes's), and torch's names without ``torch.``, to safetensors's."""


@dataclass(frozen=True, slots=True)
class RawTensor:
    """A tensor as bytes: `data` is little-endian, in C order, and as long as dtype and shape say."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: memoryview = field(repr=False)

    def __post_init__(self) -> None:
        wanted = span_bytes(self.dtype, self.shape, name=self.name)
        if len(self.data) != wanted:
            raise Malformed(
                f"expected {wanted} bytes of {self.dtype} for tensor {self.name[:80]!r}, got {len(self.data)}"
            )


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One tensor as the manifest states it."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    sha256: bytes

    def __post_init__(self) -> None:
        span_bytes(self.dtype, self.shape, name=self.name)
        if len(self.sha256) != 32:
            raise Malformed(f"expected a SHA-256 for tensor {self.name[:80]!r}, got {len(self.sha256)} bytes")

    def to_json(self) -> dict[str, object]:
        return {
            "name": self.name,
            "dtype": self.dtype,
            "shape": list(self.shape),
            "sha256": self.sha256.hex(),
        }

    @classmethod
    def from_json(cls, fields: Fields) -> TensorEntry:
        name, dtype = fields.text("name", limit=MAX_NAME_BYTES), fields.text("dtype", limit=16)
        shape, digest = fields.any("shape"), Digest.parse("sha256:" + fields.text("sha256", limit=64))
        fields.done()
        if not isinstance(shape, list):
            raise Malformed(f"expected a shape as a list for tensor {name[:80]!r}")
        return cls(name, dtype, tuple(shape), digest.value)


@dataclass(frozen=True, slots=True)
class TensorManifest:
    """Entries with unique names, in the order of the data. Raises `Malformed` or `Oversized`."""

    tensors: tuple[TensorEntry, ...]

    def __post_init__(self) -> None:
        if len(self.tensors) > MAX_TENSORS:
            raise Oversized(f"expected at most {MAX_TENSORS} tensors, got {len(self.tensors)}")
        if len({entry.name for entry in self.tensors}) != len(self.tensors):
            raise Malformed("expected each tensor's name once, got one twice")

    @property
    def manifest(self) -> Digest:
        """Binds every entry and their order."""
        return _digest(MANIFEST_TYPE, self.tensors)

    @property
    def set(self) -> Digest:
        """Binds every entry; the same however the tensors are ordered or stored."""
        return _digest(SET_TYPE, sorted(self.tensors, key=lambda entry: entry.name.encode()))


def manifest_of(tensors: Iterable[RawTensor], *, workers: int | None = None) -> TensorManifest:
    """The manifest of tensors in memory, hashed on all cores; nothing is copied."""
    raw = tuple(tensors)
    digests = hash_views([tensor.data for tensor in raw], workers=workers)
    return TensorManifest(
        tuple(TensorEntry(t.name, t.dtype, t.shape, digest) for t, digest in zip(raw, digests, strict=True))
    )


def tensor_set_of(tensors: Iterable[RawTensor], *, workers: int | None = None) -> Digest:
    """The set digest of tensors in memory: what provenance names an aggregate by."""
    return manifest_of(tensors, workers=workers).set


def raw_of_npy(name: str, payload: bytes | memoryview) -> RawTensor:
    """A tensor as ``np.save`` wrote it, without numpy unless it lies in another order.

    Raises `Malformed` or `Oversized` for what `fltrust.updates.npy` refuses.
    """
    view = flat_view(payload)
    header = read_header(view)
    dtype = NUMPY_DTYPES[header.dtype.lstrip("<>|")] if not header.big_endian else None
    if dtype is None or (header.is_fortran and len(header.shape) > 1):
        import io

        import numpy

        return raw_of_array(name, numpy.load(io.BytesIO(view), allow_pickle=False))
    return RawTensor(name, dtype, header.shape, view[header.offset :])


def raw_of_array(name: str, array: NDArray[Any]) -> RawTensor:
    """A numpy array of any byte order and layout; copied only where it is not little-endian C order."""
    import numpy

    little = array.astype(array.dtype.newbyteorder("<"), order="C", copy=False)
    dtype = NUMPY_DTYPES.get(little.dtype.name)
    if dtype is None:
        raise Malformed(f"expected numbers or booleans in tensor {name[:80]!r}, got {array.dtype}")
    flat = numpy.ascontiguousarray(little).reshape(-1).view(numpy.uint8)
    return RawTensor(name, dtype, tuple(array.shape), flat.data)


def raw_of_arrays(arrays: Mapping[str, NDArray[Any]]) -> list[RawTensor]:
    return [raw_of_array(name, array) for name, array in arrays.items()]


def span_bytes(dtype: str, shape: Sequence[int], *, name: str) -> int:
    """The bytes that a tensor takes; `Malformed` or `Oversized` where name, dtype or shape cannot be."""
    check_name(name)
    bits = DTYPE_BITS.get(dtype)
    if bits is None:
        raise Malformed(f"expected a known dtype for tensor {name[:80]!r}, got {dtype[:20]!r}")
    if len(shape) > MAX_DIMENSIONS:
        raise Oversized(f"expected at most {MAX_DIMENSIONS} dimensions, got {len(shape)} in {name[:80]!r}")
    if not all(type(dim) is int and 0 <= dim <= MAX_BYTES for dim in shape):
        raise Malformed(f"expected a shape of integers from 0 to 2^53-1 for tensor {name[:80]!r}")
    count = prod(shape) * bits
    if count % 8:
        raise Malformed(f"expected whole bytes for tensor {name[:80]!r}, got {count} bits")
    if count // 8 > MAX_BYTES:
        raise Oversized(f"expected less than 2^53 bytes for tensor {name[:80]!r}")
    return count // 8


def check_name(name: str) -> None:
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise Malformed("expected tensor names in UTF-8, got half of a surrogate pair") from None
    if size > MAX_NAME_BYTES:
        raise Oversized(f"expected at most {MAX_NAME_BYTES} bytes in a tensor's name, got {size}")


def _digest(kind: str, entries: Iterable[TensorEntry]) -> Digest:
    return Digest.sha256_of(
        strictjson.encode({"type": kind, "tensors": [entry.to_json() for entry in entries]})
    )
