"""Packed contents: the same content back, whatever it holds; and nothing else is read as one."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from fltrust.errors import FltrustError
from fltrust.updates import Content, Record, RecordKind, Tensor, content_digest
from fltrust.updates.packing import pack, unpack

keys = st.text(st.characters(codec="utf-8"), max_size=8)
integers = st.integers(-(2**63), 2**64 - 1)
floats = st.floats()
texts = st.text(st.characters(codec="utf-8"), max_size=8)
blobs = st.binary(max_size=8)
tensors = st.builds(
    Tensor,
    dtype=st.sampled_from(["float32", "int64", ""]),
    shape=st.lists(st.integers(0, 2**62), max_size=3).map(tuple),
    stype=st.sampled_from(["numpy.ndarray", "other"]),
    data=st.binary(max_size=40),
)
numbers = st.one_of(integers, floats, st.lists(integers, max_size=3), st.lists(floats, max_size=3))
settings_ = st.one_of(
    numbers,
    texts,
    blobs,
    st.booleans(),
    *(st.lists(each, max_size=3) for each in (texts, blobs, st.booleans())),
)
VALUES = {RecordKind.ARRAYS: tensors, RecordKind.METRICS: numbers, RecordKind.CONFIG: settings_}


@st.composite
def contents(draw: st.DrawFn) -> Content:
    names = draw(st.lists(keys, max_size=4, unique=True))
    records = []
    for name in names:
        kind = draw(st.sampled_from(list(RecordKind)))
        items: dict[str, Any] = draw(st.dictionaries(keys, VALUES[kind], max_size=4))
        records.append(Record(name, kind, tuple(items.items())))
    return Content(tuple(records))


def packed(content: Content) -> bytes:
    return b"".join(bytes(part) for part in pack(content))


@given(contents())
def test_a_content_comes_back_as_it_was(content: Content) -> None:
    assert content_digest(unpack(packed(content))) == content_digest(content)


@given(contents(), st.data())
def test_a_flipped_bit_is_refused_or_another_content(content: Content, data: st.DataObject) -> None:
    changed = bytearray(packed(content))
    bit = data.draw(st.integers(0, len(changed) * 8 - 1))
    changed[bit // 8] ^= 1 << bit % 8
    try:
        found = unpack(bytes(changed))
    except FltrustError:
        return
    assert content_digest(found) != content_digest(content)


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_with_our_errors_or_are_a_content(data: bytes) -> None:
    try:
        found = unpack(data)
    except FltrustError:
        return
    assert packed(found) == data
