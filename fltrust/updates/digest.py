"""The canonical digest of a content, and of the model in it.

``fltrust-content-v1`` binds everything in a `Content`: record names, kinds and
order, keys and their order, dtypes, shapes, serialisation types, all bytes, and
metrics and settings with their types (1, 1.0 and true differ; so do 0.0 and
-0.0; a NaN counts with its exact bits). ``fltrust-model-v1`` is the same over the
ARRAYS records alone.

The encoding. Integers are unsigned and big-endian: u8, u32, u64 have 1, 4, 8
bytes. ‖ joins byte strings, and TREE(b) is the 32-byte chunked digest of a byte
string that `fltrust.updates.tree` defines.

    text(s)  = u32(length of s in UTF-8) ‖ s in UTF-8
    digest   = SHA-256(name in ASCII ‖ 0x00 ‖ u32(number of records) ‖ record ‖ record ‖ …)
               name is fltrust-content-v1, or fltrust-model-v1 over the ARRAYS records alone
    record   = u8(kind) ‖ text(name) ‖ u32(number of items) ‖ item ‖ item ‖ …
               kind is 1 for ARRAYS, 2 for METRICS, 3 for CONFIG
    item     = text(key) ‖ value
    value    = 0x01 ‖ text(dtype) ‖ u32(dimensions) ‖ u64 of each ‖ text(stype) ‖ TREE(data)   a tensor
             | 0x07 ‖ u8(T) ‖ u32(number of elements) ‖ body of each                           a list
             | u8(T) ‖ body                                                                     a scalar
    T, body  = 0x02  u8, 1 for true and 0 for false                                             bool
             | 0x03  16 bytes, two's complement                                                 int
             | 0x04  8 bytes, IEEE 754 binary64                                                 float
             | 0x05  text(s)                                                                    text
             | 0x06  TREE(b)                                                                    bytes
               T of an empty list is 0x00, whatever it was meant to hold

Every part has a fixed length or is preceded by its length, so no two contents
share an encoding. Worked examples: ``tests/updates/test_digest_vectors.py``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256

from fltrust.identity import Digest
from fltrust.updates.content import Content, Record, RecordKind, Scalar, Tensor, Value, scalar_type
from fltrust.updates.tree import DigestMemo, tree_digests

CONTENT_ALGORITHM = "fltrust-content-v1"
MODEL_ALGORITHM = "fltrust-model-v1"

_KINDS = {RecordKind.ARRAYS: b"\x01", RecordKind.METRICS: b"\x02", RecordKind.CONFIG: b"\x03"}
_TENSOR, _LIST = b"\x01", b"\x07"
_TAGS: dict[type, bytes] = {bool: b"\x02", int: b"\x03", float: b"\x04", str: b"\x05", bytes: b"\x06"}


@dataclass(frozen=True, slots=True)
class ContentDigests:
    """Both digests of one content."""

    content: Digest
    model: Digest


def digest_content(
    content: Content, *, workers: int | None = None, memo: DigestMemo | None = None
) -> ContentDigests:
    """Both digests in one pass over the bytes.

    Hashes on all usable cores, or on `workers` threads; small contents start none. Tensors
    are read where they lie. `memo` spares the bytes that it has seen before.
    """
    encoder = _Encoder()
    records = [(record.kind, encoder.record(record)) for record in content.records]
    trees = tree_digests(encoder.blobs, workers=workers, memo=memo)
    arrays = [parts for kind, parts in records if kind is RecordKind.ARRAYS]
    return ContentDigests(
        content=_finish(CONTENT_ALGORITHM, [parts for _, parts in records], trees),
        model=_finish(MODEL_ALGORITHM, arrays, trees),
    )


def content_digest(content: Content, *, workers: int | None = None, memo: DigestMemo | None = None) -> Digest:
    """The ``fltrust-content-v1`` digest; see `digest_content` for how it runs."""
    return digest_content(content, workers=workers, memo=memo).content


def model_digest(content: Content, *, workers: int | None = None, memo: DigestMemo | None = None) -> Digest:
    """The ``fltrust-model-v1`` digest: the ARRAYS records alone. Equal for equal models,
    whatever settings travel beside them."""
    return digest_content(Content(content.arrays()), workers=workers, memo=memo).model


# A record's encoding while its byte strings are not hashed yet: a hole is the place of one in `blobs`.
_Parts = list[bytes | int]


class _Encoder:
    """Writes records with holes where the digests of their byte strings will stand."""

    __slots__ = ("blobs",)

    def __init__(self) -> None:
        self.blobs: list[bytes | memoryview] = []

    def record(self, record: Record) -> _Parts:
        parts: _Parts = [_KINDS[record.kind], _text(record.name), _u32(len(record.items))]
        for key, value in record.items:
            parts.append(_text(key))
            self._value(value, parts)
        return parts

    def _value(self, value: Value, parts: _Parts) -> None:
        if isinstance(value, Tensor):
            dims = struct.pack(f">{len(value.shape)}Q", *value.shape)
            parts += (_TENSOR, _text(value.dtype), _u32(len(value.shape)), dims, _text(value.stype))
            parts.append(self._hole(value.data))
        elif isinstance(value, tuple):
            tag = _TAGS[scalar_type(value[0])] if value else b"\x00"
            parts += (_LIST, tag, _u32(len(value)))
            self._bodies(value, parts)
        else:
            parts.append(_TAGS[scalar_type(value)])
            self._bodies((value,), parts)  # type: ignore[arg-type]  # `Record` made lists tuples: a scalar

    def _bodies(self, values: tuple[Scalar, ...], parts: _Parts) -> None:
        """The bodies of scalars that share one type."""
        if not values:
            return
        cls = scalar_type(values[0])
        if cls is bool:
            parts.append(bytes(bool(value) for value in values))
        elif cls is int:
            parts.append(b"".join(int(value).to_bytes(16, "big", signed=True) for value in values))
        elif cls is float:
            parts.append(struct.pack(f">{len(values)}d", *values))
        elif cls is str:
            parts.extend(_text(value) for value in values if isinstance(value, str))
        else:
            parts.extend(self._hole(value) for value in values if isinstance(value, bytes))

    def _hole(self, data: bytes | memoryview) -> int:
        self.blobs.append(data)
        return len(self.blobs) - 1


def _finish(algorithm: str, records: list[_Parts], trees: list[bytes]) -> Digest:
    state = sha256(algorithm.encode("ascii") + b"\x00" + _u32(len(records)))
    for parts in records:
        state.update(b"".join(_filled(parts, trees)))
    return Digest(algorithm, state.digest())


def _filled(parts: _Parts, trees: list[bytes]) -> Iterable[bytes]:
    return (trees[part] if isinstance(part, int) else part for part in parts)


def _text(text: str) -> bytes:
    data = text.encode()
    return _u32(len(data)) + data


def _u32(number: int) -> bytes:
    return number.to_bytes(4, "big")
