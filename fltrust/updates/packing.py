"""A content as one byte string, and back: for keeping one, not for signing one.

    u32 length of the head (big-endian) ‖ head ‖ blob ‖ blob ‖ …

The head is canonical JSON: the records in order with kind, name and items, where a tensor or a byte string is
the size of the next blob. Integers are decimal strings, floats the 16 hex digits of their binary64. What is
read is checked like every other content (bounds, types, unique names), and nothing is left over.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

from fltrust import strictjson
from fltrust.errors import Malformed
from fltrust.strictjson import Fields
from fltrust.updates.content import (
    MAX_ITEMS,
    MAX_RECORDS,
    Content,
    Record,
    RecordKind,
    Scalar,
    Tensor,
    Value,
    scalar_type,
)

MAX_HEAD = 256 * 2**20
_WHAT = "a packed content"
_INTEGER = re.compile(r"(?:0|-?[1-9][0-9]{0,19})\Z")
_BINARY64 = re.compile(r"[0-9a-f]{16}\Z")
_DIMENSION = re.compile(r"(?:0|[1-9][0-9]{0,18})\Z")


def pack(content: Content) -> Iterator[bytes | memoryview]:
    """The parts of the byte string, in order; tensors are passed on as they lie."""
    blobs: list[bytes | memoryview] = []
    head = strictjson.encode(
        {
            "records": [
                {
                    "name": record.name,
                    "kind": record.kind,
                    "items": [[key, _packed(value, blobs)] for key, value in record.items],
                }
                for record in content.records
            ]
        }
    )
    yield len(head).to_bytes(4, "big") + head
    yield from blobs


def unpack(data: bytes | memoryview) -> Content:
    """Read what `pack` wrote. Tensors are views of `data`. Raises `Malformed` or `Oversized`."""
    view = memoryview(data)
    size = int.from_bytes(view[:4], "big")
    if size > min(len(view) - 4, MAX_HEAD):
        raise Malformed("expected a packed content, got one that ends inside its head")
    fields = Fields(strictjson.decode(bytes(view[4 : 4 + size]), limit=MAX_HEAD, what=_WHAT), _WHAT)
    blobs = _Blobs(view[4 + size :])
    records = tuple(_record(record, blobs) for record in fields.objects("records", limit=MAX_RECORDS))
    fields.done()
    blobs.done()
    return Content(records)


class _Blobs:
    """Hands out the bytes after the head, one blob after the other."""

    __slots__ = ("_left",)

    def __init__(self, left: memoryview) -> None:
        self._left = left

    def take(self, size: object) -> memoryview:
        if type(size) is not int or not 0 <= size <= len(self._left):
            raise Malformed("expected a packed content, got one that ends early")
        blob, self._left = self._left[:size], self._left[size:]
        return blob

    def done(self) -> None:
        if self._left:
            raise Malformed(
                f"expected a packed content to end with its last blob, {len(self._left)} are left"
            )


def _packed(value: Value, blobs: list[bytes | memoryview]) -> dict[str, object]:
    if isinstance(value, Tensor):
        blobs.append(value.view)
        return {
            "tensor": len(value.view),
            "dtype": value.dtype,
            "shape": [str(dim) for dim in value.shape],
            "stype": value.stype,
        }
    if isinstance(value, tuple):
        kind = scalar_type(value[0]).__name__ if value else ""
        return {"list": kind, "values": [_scalar(element, blobs) for element in value]}
    return {"type": scalar_type(value).__name__, "value": _scalar(value, blobs)}  # type: ignore[arg-type]  # a scalar by now


def _scalar(value: Scalar, blobs: list[bytes | memoryview]) -> object:
    cls = scalar_type(value)
    if isinstance(value, bytes):
        blobs.append(value)
        return len(value)
    if cls is int:
        return str(int(value))
    return struct.pack(">d", value).hex() if cls is float else value


def _record(fields: Fields, blobs: _Blobs) -> Record:
    name, kind, items = fields.any("name"), fields.choice("kind", RecordKind), fields.any("items")
    fields.done()
    if not isinstance(name, str) or not isinstance(items, list) or len(items) > MAX_ITEMS:
        raise Malformed("expected a record's name and items in a packed content")
    return Record(name, kind, tuple(_item(item, blobs) for item in items))


def _item(item: object, blobs: _Blobs) -> tuple[str, Value]:
    if not isinstance(item, list) or len(item) != 2 or not isinstance(item[0], str):
        raise Malformed("expected pairs of a key and a value in a packed content")
    value = item[1]
    kind = next((k for k in ("tensor", "list", "type") if isinstance(value, dict) and k in value), "")
    fields = Fields(value, "a packed value")
    found: Value
    if kind == "tensor":
        found = _tensor(fields, blobs)
    elif kind == "list":
        cls, values = fields.text("list", limit=8), fields.any("values")
        if not isinstance(values, list) or bool(cls) != bool(values):
            raise Malformed("expected the elements of a list in a packed content")
        found = tuple(_unpacked(cls, element, blobs) for element in values)  # type: ignore[assignment]  # all of one type
    else:
        found = _unpacked(fields.text("type", limit=8), fields.any("value"), blobs)
    fields.done()
    return item[0], found


def _tensor(fields: Fields, blobs: _Blobs) -> Tensor:
    shape = fields.any("shape")
    if not isinstance(shape, list) or not all(isinstance(d, str) and _DIMENSION.match(d) for d in shape):
        raise Malformed("expected a tensor's shape as decimal strings in a packed content")
    data = blobs.take(fields.any("tensor"))
    dtype, stype = fields.text("dtype", limit=64), fields.text("stype", limit=64)
    return Tensor(dtype, tuple(map(int, shape)), stype, data)


def _unpacked(cls: str, value: object, blobs: _Blobs) -> Scalar:
    if cls == "bool" and isinstance(value, bool):
        return value
    if cls == "str" and isinstance(value, str):
        return value
    if cls == "int" and isinstance(value, str) and _INTEGER.match(value):
        return int(value)
    if cls == "float" and isinstance(value, str) and _BINARY64.match(value):
        found: float = struct.unpack(">d", bytes.fromhex(value))[0]
        return found
    if cls == "bytes":
        return bytes(blobs.take(value))
    raise Malformed(f"expected a value of a known type in a packed content, got {cls[:8]!r}")
