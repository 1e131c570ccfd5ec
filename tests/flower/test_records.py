"""Flower's records and ours: the same bytes there and back, and nothing unknown."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st

from fltrust.errors import Malformed, Oversized
from fltrust.flower.records import RESERVED, Carried, attach, detach, to_content
from fltrust.updates import MAX_SIGNED_BYTES, RecordKind, content_digest
from fltrust.updates.second import MAX_SECOND_OF_UPDATE


def _records() -> RecordDict:
    return RecordDict(
        {
            "z-arrays": ArrayRecord(
                {"b": Array(np.arange(6.0).reshape(2, 3)), "a": Array(np.array(1, dtype=np.float32))}
            ),
            "metrics": MetricRecord({"loss": 0.5, "n": [1, 2]}),
            "config": ConfigRecord({"text": "ü", "raw": b"\x00", "on": True, "list": ["x"]}),
        }
    )


def test_a_content_keeps_order_kinds_and_the_very_bytes() -> None:
    records = _records()
    content = to_content(records)
    assert [(r.name, r.kind) for r in content.records] == [
        ("z-arrays", RecordKind.ARRAYS),
        ("metrics", RecordKind.METRICS),
        ("config", RecordKind.CONFIG),
    ]
    (arrays,) = content.arrays()
    assert [key for key, _ in arrays.tensors()] == ["b", "a"]
    assert arrays.tensors()[0][1].data is records["z-arrays"]["b"].data


def test_attaching_copies_no_tensor_and_leaves_the_message_as_it_was() -> None:
    records = _records()
    carrying = attach(records, Carried(b"signed"))
    assert RESERVED not in records
    assert list(carrying) == [*records, RESERVED]
    assert carrying["z-arrays"] is records["z-arrays"]


def test_what_was_attached_is_detached_and_the_content_is_the_same() -> None:
    records = _records()
    bare, carried = detach(attach(records, Carried(b"signed")))
    assert carried == Carried(b"signed")
    assert content_digest(to_content(bare)) == content_digest(to_content(records))
    assert detach(records)[1] is None


@pytest.mark.parametrize(
    "record",
    [
        MetricRecord({"statement": 1}),
        ConfigRecord({}),
        ConfigRecord({"statement": "text"}),
        ConfigRecord({"statement": b"x", "more": 1}),
        ConfigRecord({"second": b"x"}),
        ConfigRecord({"statement": b"x", "second": "text"}),
        ConfigRecord({"statement": b"x", "signatures": "either"}),
        ConfigRecord({"statement": b"x", "signatures": True}),
        ConfigRecord({"statement": b"x", "signatures": ["both"]}),
    ],
)
def test_something_else_under_the_reserved_name_is_refused(record: Any) -> None:
    with pytest.raises(Malformed):
        detach(RecordDict({RESERVED: record}))


def test_a_statement_larger_than_any_can_be_is_refused() -> None:
    with pytest.raises(Oversized):
        detach(attach(RecordDict(), Carried(bytes(MAX_SIGNED_BYTES + 1))))
    with pytest.raises(Oversized):
        detach(attach(RecordDict(), Carried(b"signed", second=bytes(MAX_SECOND_OF_UPDATE + 1))))


def test_what_goes_with_a_second_signature_is_carried_in_the_same_record() -> None:
    asking, answer = Carried(b"s", asks_second=True), Carried(b"s", second=b"twice")
    for carried in (asking, answer):
        assert detach(attach(_records(), carried))[1] == carried
    assert set(attach(_records(), Carried(b"s"))[RESERVED]) == {"statement"}  # as ever, where nobody asks


def test_an_app_cannot_use_the_reserved_name() -> None:
    with pytest.raises(Malformed, match="fltrust"):
        to_content(RecordDict({RESERVED: MetricRecord({"x": 1})}))


def test_a_record_of_an_unknown_kind_is_refused() -> None:
    records = _records()
    records.__dict__["_data"]["strange"] = {"a": 1}
    with pytest.raises(Malformed, match="strange"):
        to_content(records)


def test_an_array_whose_data_is_not_bytes_is_refused() -> None:
    records = _records()
    records["z-arrays"]["b"].data = bytearray(b"mutable")  # type: ignore[assignment]
    with pytest.raises(Malformed):
        to_content(records)


_KEYS = st.text(min_size=1, max_size=8)
_ARRAYS = st.dictionaries(
    _KEYS, st.lists(st.floats(width=32), max_size=4).map(lambda v: Array(np.array(v, dtype=np.float32)))
).map(ArrayRecord)
_METRICS = st.dictionaries(
    _KEYS, st.integers(-(2**63), 2**64 - 1) | st.floats() | st.lists(st.integers(0, 9))
).map(MetricRecord)
_CONFIGS = st.dictionaries(_KEYS, st.text() | st.binary() | st.booleans() | st.lists(st.text())).map(
    ConfigRecord
)


@given(st.dictionaries(_KEYS.filter(lambda k: k != RESERVED), _ARRAYS | _METRICS | _CONFIGS, max_size=4))
def test_whatever_flower_can_hold_is_mapped_whole_and_attaching_does_not_change_it(
    records: dict[str, Any],
) -> None:
    content = to_content(RecordDict(records))
    assert [(r.name, [key for key, _ in r.items]) for r in content.records] == [
        (name, list(record)) for name, record in records.items()
    ]
    bare, _ = detach(attach(RecordDict(records), Carried(b"s")))
    assert content_digest(to_content(bare)) == content_digest(content)
