"""Flower's `RecordDict` ↔ our `Content`, and the one record of ours that travels inside it.

The signed statement rides as a `ConfigRecord` under the reserved name ``fltrust``: nothing else
survives the way through SuperLink and SuperNode. The content that a digest speaks of is the
message without it. Tensor bytes are never copied.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from fltrust.artifacts.saving import save_safetensors
from fltrust.artifacts.tensors import RawTensor, raw_of_npy, tensor_set_of
from fltrust.errors import Malformed, Oversized
from fltrust.identity import Digest
from fltrust.updates import MAX_SIGNED_BYTES, Content, Record, RecordKind, Tensor

RESERVED = "fltrust"
"""The record name that apps cannot use."""
_STATEMENT = "statement"
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


def attach(records: RecordDict, signed: bytes) -> RecordDict:
    """A shallow copy of `records` with the statement as its last record; `records` stays as it is."""
    carrying = records.copy()
    carrying[RESERVED] = ConfigRecord({_STATEMENT: signed})
    return carrying


def detach(records: RecordDict) -> tuple[RecordDict, bytes | None]:
    """A shallow copy of `records` without our record, and the statement in it (None where there is none).

    Raises `Malformed` where the reserved name holds something else than one statement, `Oversized`
    where the statement is larger than any can be. Nothing of it is verified.
    """
    bare = records.copy()
    if RESERVED not in bare:
        return bare, None
    record = bare[RESERVED]
    del bare[RESERVED]
    if not isinstance(record, ConfigRecord) or set(record) != {_STATEMENT}:
        raise Malformed(f"expected one statement in the record {RESERVED!r}, found something else")
    signed = record[_STATEMENT]
    if not isinstance(signed, bytes):
        raise Malformed(f"expected a statement in bytes in the record {RESERVED!r}")
    if len(signed) > MAX_SIGNED_BYTES:
        raise Oversized(f"expected a statement of at most {MAX_SIGNED_BYTES} bytes, got {len(signed)}")
    return bare, signed


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
