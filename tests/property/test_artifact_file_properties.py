"""Whatever bytes come as a header, a statement or a model: one reading, or a refusal of ours."""

from __future__ import annotations

import json
import string
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps
from safetensors import SafetensorError
from safetensors.numpy import load, save

from fltrust import strictjson
from fltrust.artifacts import measuring
from fltrust.artifacts.manifest import FileEntry, Manifest
from fltrust.artifacts.measuring import build_manifest, verify_files
from fltrust.artifacts.oms import ModelStatement, parse_statement
from fltrust.artifacts.safetensors import parse_header, raw_tensors
from fltrust.artifacts.tensors import (
    NUMPY_DTYPES,
    TensorEntry,
    TensorManifest,
    raw_of_array,
    raw_of_arrays,
    tensor_set_of,
)
from fltrust.artifacts.walk import is_safe_name, name_order
from fltrust.errors import InvalidInput, Refused, Tampered

DTYPES = [name for name in NUMPY_DTYPES if not name.startswith(("bfloat", "float8", "complex128"))]
names = st.text(st.characters(exclude_categories=["Cs"]), max_size=12).filter(lambda n: n != "__metadata__")
arrays = st.sampled_from(DTYPES).flatmap(
    lambda dtype: nps.arrays(dtype, nps.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
)
tensor_sets = st.dictionaries(names, arrays, max_size=5)


# -- safetensors -------------------------------------------------------------------------------------------


@given(tensor_sets, st.dictionaries(names, names, max_size=3))
def test_what_the_format_s_own_writer_writes_is_read_to_the_same_tensors(
    tensors: dict[str, numpy.ndarray[Any, Any]], metadata: dict[str, str]
) -> None:
    data = save(tensors, metadata=metadata or None)

    found = {raw.name: raw for raw in raw_tensors(data)}

    assert found.keys() == tensors.keys()
    for name, array in tensors.items():
        assert (found[name].dtype, found[name].shape) == (NUMPY_DTYPES[str(array.dtype)], array.shape)
        assert bytes(found[name].data) == array.tobytes()
    assert tensor_set_of(found.values()) == tensor_set_of(raw_of_arrays(tensors))


def _reads(data: bytes) -> bool:
    try:
        raw_tensors(data)
    except InvalidInput:
        return False
    return True


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    _reads(data)


def _holes(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path]
    if isinstance(value, dict):
        for key in value:
            found += _holes(value[key], (*path, key))
    elif isinstance(value, list):
        for place, item in enumerate(value):
            found += _holes(item, (*path, place))
    return found


_values = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 40) | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


_TENSORS = [("U8", [2], 2), ("F16", [], 2), ("F4", [2], 1), ("I32", [0], 0), ("F64", [1], 8)]


@st.composite
def nearly_files(draw: st.DrawFn) -> bytes:
    """A file of a few small tensors in which, mostly, one value is another."""
    header: dict[str, Any] = {}
    end = 0
    for name in draw(st.lists(st.sampled_from("abc"), max_size=3, unique=True)):
        dtype, shape = draw(
            st.sampled_from([("U8", [2]), ("F16", []), ("F4", [2]), ("I32", [0]), ("F64", [1])])
        )
        size = {"U8": 2, "F16": 2, "F4": 1, "I32": 0, "F64": 8}[dtype]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    if draw(st.booleans()):
        header["__metadata__"] = {"format": "pt"}
    holes = [hole for hole in _holes(header) if hole]
    if holes and draw(st.integers(0, 3)):
        *way, last = draw(st.sampled_from(holes))
        inner = header
        for step in way:
            inner = inner[step]
        inner[last] = draw(st.integers(0, 9) | _values)
    text = json.dumps(header).encode() + draw(st.sampled_from([b"", b" ", b"\n", b"\0"]))
    return len(text).to_bytes(8, "little") + text + bytes(end + draw(st.sampled_from([0, 0, 0, 1])))


@settings(max_examples=400)
@given(nearly_files())
def test_whatever_we_read_the_format_s_own_reader_reads_as_well(data: bytes) -> None:
    if not _reads(data):
        return
    tensors = raw_tensors(data)
    try:
        found = load(data)
    except (SafetensorError, KeyError, TypeError):
        assert "F4" in {raw.dtype for raw in tensors}  # which numpy lacks
    else:
        assert {name: array.tobytes() for name, array in found.items()} == {
            raw.name: bytes(raw.data) for raw in tensors
        }


@given(tensor_sets.filter(lambda found: any(array.nbytes for array in found.values())), st.data())
def test_header_and_tensors_cover_every_byte(
    tensors: dict[str, numpy.ndarray[Any, Any]], data: st.DataObject
) -> None:
    good = save(tensors)
    start = parse_header(good, file_size=len(good)).size
    at = data.draw(st.integers(start, len(good) - 1))
    evil = bytearray(good)
    evil[at] ^= data.draw(st.integers(1, 255))

    before = [bytes(raw.data) for raw in raw_tensors(good)]
    assert [bytes(raw.data) for raw in raw_tensors(bytes(evil))] != before


# -- tensors -----------------------------------------------------------------------------------------------


@given(arrays)
def test_layout_and_byte_order_make_no_difference(array: numpy.ndarray[Any, Any]) -> None:
    other = array.astype(array.dtype.newbyteorder(">"), order="F")

    assert bytes(raw_of_array("x", other).data) == bytes(raw_of_array("x", array).data)
    assert raw_of_array("x", other).shape == array.shape


entries = st.builds(
    lambda name, shape, digest: TensorEntry(name, "U8", tuple(shape), digest),
    names,
    st.lists(st.integers(0, 9), max_size=3),
    st.binary(min_size=32, max_size=32),
)


@given(st.lists(entries, max_size=4, unique_by=lambda e: e.name), st.randoms(use_true_random=False))
def test_the_set_is_the_same_for_every_order_and_differs_for_every_other_set(
    found: list[TensorEntry], random: Any
) -> None:
    manifest = TensorManifest(tuple(found))
    shuffled = list(found)
    random.shuffle(shuffled)

    assert TensorManifest(tuple(shuffled)).set == manifest.set
    assert (TensorManifest(tuple(shuffled)).manifest == manifest.manifest) == (shuffled == found)
    if found:
        assert TensorManifest(tuple(found[1:])).set != manifest.set


# -- statements --------------------------------------------------------------------------------------------

_parts = st.text(st.sampled_from(string.ascii_lowercase + "é.-_ "), min_size=1, max_size=6)
_paths = st.lists(_parts, min_size=1, max_size=3).map("/".join).filter(is_safe_name)


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    paths = sorted(draw(st.sets(_paths, min_size=1, max_size=6)), key=name_order)
    shard = draw(st.sampled_from([None, 4]))
    files = []
    for path in paths:
        size = draw(st.integers(0, 13))
        count = 1 if shard is None else -(-size // shard)
        files.append(
            FileEntry(path, tuple(draw(st.binary(min_size=32, max_size=32)) for _ in range(count)), size)
        )
    return Manifest(tuple(files), (), {}, shard)


def _encoded(manifest: Manifest) -> bytes:
    try:
        manifest.check_names_stay_apart()
        return ModelStatement("model", manifest).encode()
    except InvalidInput:
        assume(False)
        raise AssertionError from None


@given(manifests())
def test_a_statement_is_read_back_as_it_was_written(manifest: Manifest) -> None:
    payload = _encoded(manifest)

    found = parse_statement(payload)

    assert found.manifest == manifest
    assert found.encode() == payload


@settings(max_examples=300)
@given(manifests(), st.data())
def test_a_statement_with_a_byte_changed_is_refused_or_says_something_else(
    manifest: Manifest, data: st.DataObject
) -> None:
    payload = _encoded(manifest)
    at = data.draw(st.integers(0, len(payload) - 1))
    how = data.draw(st.sampled_from(["flip", "drop", "double"]))
    changed = {
        "flip": payload[:at] + bytes([payload[at] ^ data.draw(st.integers(1, 255))]) + payload[at + 1 :],
        "drop": payload[:at] + payload[at + 1 :],
        "double": payload[: at + 1] + payload[at:],
    }[how]
    assume(changed != payload)

    try:
        found = parse_statement(changed)
    except (InvalidInput, Refused):
        return
    assert found != parse_statement(payload)


@settings(max_examples=300)
@given(manifests(), _values, st.data())
def test_any_value_in_any_place_of_a_statement_is_refused_or_read(
    manifest: Manifest, value: Any, data: st.DataObject
) -> None:
    statement = json.loads(_encoded(manifest))
    *way, last = data.draw(st.sampled_from([hole for hole in _holes(statement) if hole]))
    inner = statement
    for step in way:
        inner = inner[step]
    inner[last] = value
    try:
        payload = strictjson.encode(statement)
    except ValueError:  # NaN
        payload = json.dumps(statement).encode()
    with suppress(InvalidInput, Refused):
        parse_statement(payload)


# -- models on disk ----------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(_parts.filter(is_safe_name), st.binary(max_size=20), min_size=1, max_size=4), st.data()
)
def test_a_model_verifies_exactly_as_long_as_it_is_the_signed_one(
    files: dict[str, bytes], data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder)
        for name, content in files.items():
            (top / name).write_bytes(content)
        try:
            signed = build_manifest(top, with_tensors=False)
        except Refused:
            return
        verify_files(top, signed)
        name = data.draw(st.sampled_from(sorted(files)))
        content = data.draw(st.binary(max_size=20))
        (top / name).write_bytes(content)
        if content == files[name]:
            verify_files(top, signed)
        else:
            with pytest.raises(Tampered):
                verify_files(top, signed)


@settings(max_examples=40, deadline=None)
@given(tensor_sets.filter(bool), st.data())
def test_no_changed_byte_of_a_safetensors_file_passes_when_it_is_verified_by_tensors(
    tensors: dict[str, numpy.ndarray[Any, Any]], data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(measuring, "BY_TENSORS_FROM_BYTES", 0)
        path = Path(folder) / "m.safetensors"
        good = save(tensors)
        path.write_bytes(good)
        signed = build_manifest(path)
        verify_files(path, signed)
        at = data.draw(st.integers(0, len(good) - 1))
        path.write_bytes(good[:at] + bytes([good[at] ^ data.draw(st.integers(1, 255))]) + good[at + 1 :])

        with pytest.raises(Tampered):
            verify_files(path, signed)
