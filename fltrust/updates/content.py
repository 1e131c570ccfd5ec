"""What an instruction or an update carries: records of tensors, metrics and settings, in order.

A `Content` is a message's payload without Flower: the flower room maps a
`RecordDict` to it record by record, item by item, in the order it stands there.
A value that exists is well formed and within the bounds below, so the digest
(`fltrust.updates.digest`) never meets anything that it cannot encode.

Tensor bytes are never copied; sequences of scalars are (into tuples), so that
nothing that was checked can change under the digest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

from fltrust.errors import Malformed, Oversized

MAX_RECORDS = 1_024
MAX_ITEMS = 65_536
"""Items of one record, and tensors of one content."""
MAX_NAME_BYTES = 1_024
"""A record's name or an item's key, in UTF-8."""
MAX_LABEL_BYTES = 64
"""A tensor's `dtype` or `stype`, in UTF-8."""
MAX_DIMENSIONS = 64
MAX_LIST = 1_000_000
"""Elements of one list of metrics or settings."""
MAX_TEXT_BYTES = 16 * 2**20
"""One text setting, in UTF-8."""
MAX_CONTENT_BYTES = 64 * 2**30
"""All tensors and byte strings of one content together."""

_INT_MIN, _INT_END = -(2**63), 2**64  # what a signed or an unsigned 64-bit field can carry

Scalar: TypeAlias = int | float | str | bytes | bool


class RecordKind(StrEnum):
    """What a record holds."""

    ARRAYS = "arrays"
    METRICS = "metrics"
    CONFIG = "config"


@dataclass(frozen=True, slots=True)
class Tensor:
    """One serialised array: `stype` names how `data` was written (``numpy.ndarray``: ``np.save``).

    `dtype` and `shape` are the sender's claim; `fltrust.updates.structure` compares them with `data`.
    `data` is held, not copied: a contiguous buffer that nobody writes to while it is digested.
    """

    dtype: str
    shape: tuple[int, ...]
    stype: str
    data: bytes | memoryview = field(repr=False)

    def __post_init__(self) -> None:
        for label in (self.dtype, self.stype):
            _check_text(label, limit=MAX_LABEL_BYTES, what="a tensor's dtype or stype")
        if not isinstance(self.shape, tuple) or not all(type(d) is int and d >= 0 for d in self.shape):
            raise Malformed(f"expected a shape of non-negative integers, got {str(self.shape)[:80]}")
        if len(self.shape) > MAX_DIMENSIONS or any(d >= 2**63 for d in self.shape):
            raise Oversized(f"expected at most {MAX_DIMENSIONS} dimensions below 2^63, got {len(self.shape)}")
        if isinstance(self.data, memoryview):
            if not self.data.c_contiguous:
                raise Malformed("expected a tensor's data as one contiguous buffer")
        elif not isinstance(self.data, bytes):
            raise Malformed(f"expected a tensor's data as bytes, got {type(self.data).__name__}")

    @property
    def view(self) -> memoryview:
        """The data as a flat view of bytes; nothing is copied."""
        return flat_view(self.data)


Value: TypeAlias = Tensor | Scalar | Sequence[int] | Sequence[float] | Sequence[str] | Sequence[bytes]


@dataclass(frozen=True, slots=True)
class Record:
    """A named, ordered mapping of one kind. Keys are unique; values fit the kind.

    ARRAYS hold `Tensor`; METRICS hold ``int``, ``float`` and lists of one of them; CONFIG holds
    ``int``, ``float``, ``str``, ``bytes``, ``bool`` and lists of one of them. Integers are
    those of 64 bits, signed or unsigned. Raises `Malformed` or `Oversized`.
    """

    name: str
    kind: RecordKind
    items: tuple[tuple[str, Value], ...]

    def __post_init__(self) -> None:
        _check_text(self.name, limit=MAX_NAME_BYTES, what="a record's name")
        if len(self.items) > MAX_ITEMS:
            raise Oversized(
                f"expected at most {MAX_ITEMS} items in record {self.name!r}, got {len(self.items)}"
            )
        checked: dict[str, Value] = {}
        for key, value in self.items:
            _check_text(key, limit=MAX_NAME_BYTES, what=f"a key of record {self.name!r}")
            if key in checked:
                raise Malformed(f"expected each key once in record {self.name!r}, got {key!r} twice")
            checked[key] = _check_value(value, kind=self.kind, where=f"{self.name!r}/{key!r}")
        object.__setattr__(self, "items", tuple(checked.items()))

    def tensors(self) -> tuple[tuple[str, Tensor], ...]:
        """The tensors of an ARRAYS record in order; empty for the other kinds."""
        return tuple((key, value) for key, value in self.items if isinstance(value, Tensor))


@dataclass(frozen=True, slots=True)
class Content:
    """An ordered sequence of records with unique names. Raises `Malformed` or `Oversized`."""

    records: tuple[Record, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "records", tuple(self.records))
        if len(self.records) > MAX_RECORDS:
            raise Oversized(f"expected at most {MAX_RECORDS} records, got {len(self.records)}")
        names = [record.name for record in self.records]
        if len(set(names)) != len(names):
            raise Malformed("expected each record name once in a content, got one twice")
        if sum(len(record.items) for record in self.arrays()) > MAX_ITEMS:
            raise Oversized(f"expected at most {MAX_ITEMS} tensors in a content")
        if self.nbytes > MAX_CONTENT_BYTES:
            raise Oversized(f"expected at most {MAX_CONTENT_BYTES} bytes in a content, got {self.nbytes}")

    def arrays(self) -> tuple[Record, ...]:
        """The ARRAYS records, in order."""
        return tuple(record for record in self.records if record.kind is RecordKind.ARRAYS)

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors and byte strings (lists of byte strings included)."""
        return sum(_nbytes(value) for record in self.records for _, value in record.items)


def flat_view(data: bytes | memoryview) -> memoryview:
    """A flat view of bytes over `data`, without a copy."""
    view = memoryview(data)
    return view if view.format == "B" and view.ndim == 1 else view.cast("B")


def _nbytes(value: Value) -> int:
    if isinstance(value, Tensor):
        return value.view.nbytes
    if isinstance(value, bytes):
        return len(value)
    if isinstance(value, tuple) and value and isinstance(value[0], bytes):
        return sum(map(len, value))
    return 0


def _check_text(text: str, *, limit: int, what: str) -> None:
    if not isinstance(text, str):
        raise Malformed(f"expected {what} as text, got {type(text).__name__}")
    if len(text) > limit:
        raise Oversized(f"expected {what} of at most {limit} bytes, got {len(text)} characters")
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise Malformed(f"expected {what} as Unicode text, got lone surrogates") from None
    if size > limit:
        raise Oversized(f"expected {what} of at most {limit} bytes, got {size}")


def _check_value(value: Value, *, kind: RecordKind, where: str) -> Value:
    if kind is RecordKind.ARRAYS or isinstance(value, Tensor):
        if kind is RecordKind.ARRAYS and isinstance(value, Tensor):
            return value
        raise Malformed(f"expected tensors in arrays records alone, got {type(value).__name__} at {where}")
    if not isinstance(value, list | tuple):
        _check_scalar(value, kind=kind, where=where)  # type: ignore[arg-type]  # whatever came is judged there
        return value
    if len(value) > MAX_LIST:
        raise Oversized(f"expected at most {MAX_LIST} elements at {where}, got {len(value)}")
    types = {scalar_type(element) for element in value}
    if len(types) > 1:
        raise Malformed(f"expected a list of one type at {where}, got {', '.join(t.__name__ for t in types)}")
    for element in value:
        _check_scalar(element, kind=kind, where=where)
    return tuple(value)


def _check_scalar(value: Scalar, *, kind: RecordKind, where: str) -> None:
    cls = scalar_type(value)
    if cls not in (int, float) and (kind is RecordKind.METRICS or cls not in (bool, str, bytes)):
        raise Malformed(
            f"expected a value that a {kind} record can hold at {where}, got {type(value).__name__}",
            hint="metrics are int, float or lists of them; settings may be text, bytes and bool as well",
        )
    if cls is int and not _INT_MIN <= int(value) < _INT_END:
        raise Malformed(f"expected an integer of 64 bits at {where}")
    if isinstance(value, str):
        _check_text(value, limit=MAX_TEXT_BYTES, what=f"the text at {where}")


def scalar_type(value: object) -> type:
    """The type a value is encoded as: subclasses (``numpy.float64``, enums) count as what they extend."""
    for cls in (bool, int, float, str, bytes):  # bool first: it is an int as well
        if isinstance(value, cls):
            return cls
    return type(value)
