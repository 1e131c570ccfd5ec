"""Flower's `RecordDict` ↔ our `Content`, and the one record of ours that travels inside it.

The signed statement rides as a `ConfigRecord` under the reserved name ``fltrust``: nothing else
survives the way through SuperLink and SuperNode. The content that a digest speaks of is the
message without it. Tensor bytes are never copied.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from fltrust.artifacts.saving import save_safetensors
from fltrust.artifacts.tensors import RawTensor, raw_of_npy, tensor_set_of
from fltrust.errors import Malformed, Oversized
from fltrust.identity import Digest
from fltrust.updates import MAX_SIGNED_BYTES, Content, Record, RecordKind, Tensor
from fltrust.updates.second import MAX_SECOND_OF_UPDATE

RESERVED = "fltrust"
"""The record name that apps cannot use."""
_STATEMENT, _SIGNATURES, _SECOND = "statement", "signatures", "second"
_PARTS = {_STATEMENT, _SIGNATURES, _SECOND}
_BOTH = "both"
_NUMPY = "numpy.ndarray"


def to_content(records: RecordDict) -> Content:
    """Map every record, in order, with the same keys and values; tensors keep the very bytes objects.

    Raises `Malformed` for a record of an unknown kind, a value of an unknown type, or a record
    under the reserved name (`detach` it first), and `Oversized` beyond the bounds of `Content`.
    """
    if RESERVED in records:
        raise Malformed(
            f"expected no record named {RESERVED!r} in a message's content, found one",
            hint="that name is fltrust's own; give the app's record another one",
        )
    return Content(tuple(_record(name, record) for name, record in records.items()))


@dataclass(frozen=True, slots=True)
class Carried:
    """What our record holds: a statement, and either side's part in a second signature."""

    statement: bytes
    asks_second: bool = False
    """Of an instruction: the aggregator wants the answer signed twice. Not signed itself: who takes it out
    makes the answer be refused; who puts it in is given a signature over what was signed anyway, or costs a
    site without a second key its answer. Who carries messages can do as much without it."""
    second: bytes | None = None
    """Of an answer: the second signature (`fltrust.updates.second`), where one was asked for."""


def attach(records: RecordDict, carried: Carried) -> RecordDict:
    """A shallow copy of `records` with ours as its last; `records` stays as it is."""
    carrying = records.copy()
    record = ConfigRecord({_STATEMENT: carried.statement})
    if carried.asks_second:
        record[_SIGNATURES] = _BOTH
    if carried.second is not None:
        record[_SECOND] = carried.second
    carrying[RESERVED] = record
    return carrying


def detach(records: RecordDict) -> tuple[RecordDict, Carried | None]:
    """A shallow copy of `records` without our record, and what is in that (None where there is none).

    Raises `Malformed` where the reserved name holds something else than one statement and what may go with
    it, `Oversized` where a part is larger than any can be. Nothing of it is verified.
    """
    bare = records.copy()
    if RESERVED not in bare:
        return bare, None
    record = bare[RESERVED]
    del bare[RESERVED]
    if not isinstance(record, ConfigRecord) or not {_STATEMENT} <= set(record) <= _PARTS:
        raise Malformed(f"expected one statement in the record {RESERVED!r}, found something else")
    asks_second = _SIGNATURES in record
    if asks_second and record[_SIGNATURES] != _BOTH:
        raise Malformed(f"expected {_BOTH!r} signatures to be asked for in the record {RESERVED!r}")
    return bare, Carried(
        statement=_part(record, _STATEMENT, limit=MAX_SIGNED_BYTES),
        asks_second=asks_second,
        second=_part(record, _SECOND, limit=MAX_SECOND_OF_UPDATE) if _SECOND in record else None,
    )


def to_records(content: Content) -> RecordDict:
    """The way back from `to_content`: the same records, in order."""
    records = RecordDict()
    for record in content.records:
        if record.kind is RecordKind.ARRAYS:
            records[record.name] = ArrayRecord(
                {
                    key: Array(dtype=t.dtype, shape=t.shape, stype=t.stype, data=bytes(t.view))
                    for key, t in record.tensors()
                }
            )
        else:
            made = MetricRecord if record.kind is RecordKind.METRICS else ConfigRecord
            values: Any = {k: list(v) if isinstance(v, tuple) else v for k, v in record.items}
            records[record.name] = made(values)
    return records


def tensor_set_of_record(arrays: ArrayRecord) -> Digest:
    """The tensor set (`fltrust.artifacts.tensors`) of a model as Flower holds it: that of the file which
    `save_model` writes."""
    return tensor_set_of(raw_tensors_of(arrays))


def save_model(arrays: ArrayRecord, path: str | Path) -> None:
    """Write a model (``result.arrays``) as a safetensors file, durably.

    Names, dtypes, shapes and values are as they are, so `fltrust sign` finds the round that it comes from.
    """
    save_safetensors(raw_tensors_of(arrays), Path(path))


def raw_tensors_of(arrays: ArrayRecord) -> Iterator[RawTensor]:
    """Each array by its own name. What is no numpy array (trees may be none) counts as its bytes."""
    for name, array in arrays.items():
        if array.stype == _NUMPY:
            yield raw_of_npy(name, array.data)
        else:
            yield RawTensor(name, "U8", (len(array.data),), memoryview(array.data))


def _part(record: ConfigRecord, name: str, *, limit: int) -> bytes:
    value = record[name]
    if not isinstance(value, bytes):
        raise Malformed(f"expected a {name} in bytes in the record {RESERVED!r}")
    if len(value) > limit:
        raise Oversized(f"expected a {name} of at most {limit} bytes, got {len(value)}")
    return value


def _record(name: str, record: object) -> Record:
    if isinstance(record, ArrayRecord):
        return Record(name, RecordKind.ARRAYS, tuple((key, _tensor(array)) for key, array in record.items()))
    if isinstance(record, MetricRecord):
        return Record(name, RecordKind.METRICS, tuple(record.items()))
    if isinstance(record, ConfigRecord):
        return Record(name, RecordKind.CONFIG, tuple(record.items()))
    raise Malformed(
        f"expected arrays, metrics and settings in a message's content, got {type(record).__name__} "
        f"under {str(name)[:80]!r}"
    )


def _tensor(array: Array) -> Tensor:
    return Tensor(array.dtype, array.shape, array.stype, array.data)
