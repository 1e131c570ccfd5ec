"""The safetensors format, read strictly: one file has one meaning, and every byte of it is accounted for.

    u64 little-endian: length of the header ‖ header: JSON, padded with spaces ‖ data

The header maps each name to ``{"dtype", "shape", "data_offsets": [begin, end)}`` and may hold
``__metadata__``, text to text. Accepted is what the format's own reader accepts, and less: a key that
stands twice, an unknown field, and a number that is no plain integer are refused too. The tensors
fill the data without a hole, an overlap or a byte more, so the digest of the header and those of the
tensors cover the file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NoReturn

from fltrust.artifacts.tensors import (
    DTYPE_BITS,
    MAX_TENSORS,
    RawTensor,
    check_name,
    span_bytes,
)
from fltrust.errors import Malformed, Oversized
from fltrust.strictjson import without_duplicates
from fltrust.updates.content import flat_view

SUFFIX = ".safetensors"
MAX_HEADER_BYTES = 100_000_000
"""The format's own bound."""
_MAX_VALUES = 20 * MAX_TENSORS  # in memory each takes many times the bytes that it has in JSON
LENGTH_BYTES = 8

_METADATA = "__metadata__"
_FIELDS = {"dtype", "shape", "data_offsets"}


@dataclass(frozen=True, slots=True)
class TensorSpan:
    """Where a tensor lies; `offset` counts from the start of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Header:
    """A header that was checked against the size of its file.

    `tensors` are in the order of their data; those of no bytes, at the same place, by name.
    """

    tensors: tuple[TensorSpan, ...]
    size: int
    """Bytes before the data: the length field and the header."""
    metadata: Mapping[str, str] = field(default_factory=dict)


def header_bytes(prefix: bytes | memoryview, *, file_size: int) -> int:
    """How many bytes to read for `parse_header`, told by the first 8. Raises `Malformed` or `Oversized`."""
    if file_size < LENGTH_BYTES or len(prefix) < LENGTH_BYTES:
        raise Malformed(f"expected a safetensors file of at least {LENGTH_BYTES} bytes, got {file_size}")
    size = int.from_bytes(prefix[:LENGTH_BYTES], "little")
    if size > MAX_HEADER_BYTES:
        raise Oversized(f"expected a safetensors header of at most {MAX_HEADER_BYTES} bytes, got {size}")
    if size > file_size - LENGTH_BYTES:
        raise Malformed(f"expected a safetensors header of {size} bytes, got a file of {file_size}")
    return LENGTH_BYTES + size


def parse_header(head: bytes | memoryview, *, file_size: int) -> Header:
    """Read a header from the first `header_bytes` of a file of `file_size` bytes.

    1. The length is within the file and the bound.
    2. The header is one JSON object in UTF-8 that starts the header; nothing but spaces follows it.
    3. Each key stands once; ``__metadata__`` holds text; a tensor has its three fields and no other.
    4. Dtype and shape are known and take as many bytes as the offsets span.
    5. In the order of their offsets, the tensors follow each other from 0 to the end of the file.

    Raises `Malformed` or `Oversized`.
    """
    size = header_bytes(head, file_size=file_size)  # 1
    if len(head) < size:
        raise Malformed(f"expected a safetensors header of {size} bytes, got {len(head)}")
    document = _json(bytes(head[LENGTH_BYTES:size]))  # 2, 3
    metadata = _metadata(document.pop(_METADATA, {}))
    if len(document) > MAX_TENSORS:
        raise Oversized(f"expected at most {MAX_TENSORS} tensors, got {len(document)}")
    spans = sorted(
        (_span(name, value, data_start=size) for name, value in document.items()),  # 4
        key=lambda span: (span.offset, span.size, span.name.encode()),
    )
    _check_contiguous(spans, start=size, end=file_size)  # 5
    return Header(tuple(spans), size, metadata)


def raw_tensors(data: bytes | memoryview) -> tuple[RawTensor, ...]:
    """The tensors of a whole file in memory, as views on it."""
    view = flat_view(data)
    header = parse_header(view, file_size=len(view))
    return tuple(
        RawTensor(t.name, t.dtype, t.shape, view[t.offset : t.offset + t.size]) for t in header.tensors
    )


def _json(text: bytes) -> dict[str, object]:
    if not text.startswith(b"{"):
        raise Malformed("expected a safetensors header to start with '{'")
    if sum(map(text.count, (b",", b"[", b"{"))) > _MAX_VALUES:
        raise Oversized(f"expected a safetensors header of at most {_MAX_VALUES} values, got more")
    try:
        value = json.JSONDecoder(
            object_pairs_hook=without_duplicates,
            parse_int=_plain_integer,
            parse_float=_no_number,
            parse_constant=_no_number,
        ).decode(text.rstrip(b" ").decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise Malformed(f"expected a safetensors header in JSON: {str(error)[:120]}") from None
    if not isinstance(value, dict) or text.rstrip(b" ")[-1:] != b"}":
        raise Malformed("expected a safetensors header to be one JSON object, padded with spaces")
    return value


def _plain_integer(text: str) -> int:
    if text.startswith("-") or len(text) > 20:
        _no_number(text)
    return int(text)


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"a number that is no plain integer: {text[:20]}")


def _metadata(value: object) -> Mapping[str, str]:
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise Malformed("expected __metadata__ of a safetensors header to map text to text")
    return value


def _span(name: str, value: object, *, data_start: int) -> TensorSpan:
    check_name(name)
    if not isinstance(value, dict) or value.keys() != _FIELDS:
        raise Malformed(f"expected {', '.join(sorted(_FIELDS))} for tensor {name[:80]!r}, got other fields")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS or dtype == "C128":
        raise Malformed(f"expected a known dtype for tensor {name[:80]!r}, got {str(dtype)[:20]!r}")
    if not isinstance(shape, list) or not isinstance(offsets, list) or len(offsets) != 2:
        raise Malformed(f"expected a shape and two offsets for tensor {name[:80]!r}")
    if not all(type(offset) is int for offset in offsets):
        raise Malformed(f"expected integers as offsets of tensor {name[:80]!r}")
    size, (begin, end) = span_bytes(dtype, shape, name=name), offsets
    if end - begin != size:
        raise Malformed(f"expected {size} bytes for tensor {name[:80]!r}, got offsets {begin} to {end}")
    return TensorSpan(name, dtype, tuple(shape), data_start + begin, size)


def _check_contiguous(spans: list[TensorSpan], *, start: int, end: int) -> None:
    ends = [start, *(span.offset + span.size for span in spans)]
    for span, expected in zip(spans, ends, strict=False):
        if span.offset != expected:
            kind = "hole" if span.offset > expected else "overlap"
            raise Malformed(f"expected tensors to follow each other, got a {kind} before {span.name[:80]!r}")
    if ends[-1] != end:
        raise Malformed(f"expected the data to end at byte {ends[-1]}, got a file of {end}")
