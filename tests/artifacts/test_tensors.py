"""One set of tensors has one digest, whatever carries it."""

from __future__ import annotations

import io
import json
from hashlib import sha256
from typing import Any

import numpy
import pytest
import torch
from safetensors.numpy import save
from safetensors.torch import save as save_torch

from fltrust.artifacts.safetensors import raw_tensors
from fltrust.artifacts.tensors import (
    DTYPE_BITS,
    NUMPY_DTYPES,
    RawTensor,
    TensorEntry,
    TensorManifest,
    manifest_of,
    raw_of_array,
    raw_of_arrays,
    raw_of_npy,
    tensor_set_of,
)
from fltrust.errors import Malformed, Oversized

ARRAYS: dict[str, numpy.ndarray[Any, Any]] = {
    "matrix": numpy.arange(6, dtype=numpy.float32).reshape(2, 3),
    "scalar": numpy.array(2.5, dtype=numpy.float64),
    "empty": numpy.zeros((0, 3), dtype=numpy.int16),
    "flags": numpy.array([True, False]),
    "half": numpy.array([0.0, -0.0, numpy.nan], dtype=numpy.float16),
}


def _npy(array: numpy.ndarray[Any, Any]) -> bytes:
    out = io.BytesIO()
    numpy.save(out, array)
    return out.getvalue()


def test_the_manifest_is_what_its_documentation_says_byte_by_byte() -> None:
    manifest = manifest_of(raw_of_arrays({"b": numpy.array([1, 2], "<i4"), "a": numpy.array(0.5, "<f4")}))

    b = {"dtype": "I32", "name": "b", "sha256": sha256(b"\1\0\0\0\2\0\0\0").hexdigest(), "shape": [2]}
    a = {"dtype": "F32", "name": "a", "sha256": sha256(b"\0\0\0\x3f").hexdigest(), "shape": []}
    for digest, kind, entries in (
        (manifest.manifest, "urn:fltrust:tensor-manifest:v1", [b, a]),
        (manifest.set, "urn:fltrust:tensor-set:v1", [a, b]),
    ):
        text = json.dumps({"tensors": entries, "type": kind}, separators=(",", ":"))
        assert digest.value == sha256(text.encode()).digest()


def test_arrays_npy_payloads_and_a_safetensors_file_have_one_set() -> None:
    expected = tensor_set_of(raw_of_arrays(ARRAYS))

    assert tensor_set_of([raw_of_npy(name, _npy(array)) for name, array in ARRAYS.items()]) == expected
    assert tensor_set_of(raw_tensors(save(ARRAYS))) == expected
    assert tensor_set_of(raw_of_arrays(dict(reversed(ARRAYS.items())))) == expected


def test_the_order_is_bound_by_the_manifest_and_not_by_the_set() -> None:
    forwards = manifest_of(raw_of_arrays(ARRAYS))
    backwards = manifest_of(raw_of_arrays(dict(reversed(ARRAYS.items()))))

    assert forwards.set == backwards.set
    assert forwards.manifest != backwards.manifest


def test_layout_and_byte_order_in_memory_make_no_difference() -> None:
    matrix = ARRAYS["matrix"]
    expected = raw_of_array("m", matrix)

    sliced = numpy.repeat(matrix, 2, axis=1)[:, ::2]
    for other in (matrix.astype(">f4"), numpy.asfortranarray(matrix), sliced):
        assert bytes(raw_of_array("m", other).data) == bytes(expected.data)
        assert bytes(raw_of_npy("m", _npy(other)).data) == bytes(expected.data)
        assert raw_of_npy("m", _npy(other)).dtype == "F32"


def test_an_npy_payload_in_place_is_not_copied_and_needs_no_numpy() -> None:
    payload = bytearray(_npy(ARRAYS["matrix"]))
    raw = raw_of_npy("m", memoryview(payload))
    payload[-1] ^= 0xFF

    assert raw.data[-1] == payload[-1]


def test_bfloat16_as_torch_stores_it_has_its_own_dtype() -> None:
    (raw,) = raw_tensors(save_torch({"w": torch.tensor([1.0, 2.0], dtype=torch.bfloat16)}))

    assert (raw.dtype, raw.shape, bytes(raw.data)) == ("BF16", (2,), bytes.fromhex("803f0040"))


def test_every_dtype_of_numpy_s_numbers_has_a_name_with_its_width() -> None:
    for name, ours in NUMPY_DTYPES.items():
        if not name.startswith(("bfloat", "float8")):
            assert DTYPE_BITS[ours] == 8 * numpy.dtype(name).itemsize


@pytest.mark.parametrize(
    "change",
    [
        {"name": "w2"},
        {"dtype": "I32"},
        {"shape": (3, 2)},
        {"shape": (6,)},
        {"shape": (1, 2, 3)},
        {"sha256": bytes(32)},
    ],
)
def test_name_dtype_shape_and_data_are_all_bound(change: dict[str, Any]) -> None:
    fields = {"name": "w", "dtype": "F32", "shape": (2, 3), "sha256": bytes(31) + b"1"}
    first = TensorManifest((TensorEntry(**fields),))  # type: ignore[arg-type]
    second = TensorManifest((TensorEntry(**{**fields, **change}),))

    assert first.set != second.set
    assert first.manifest != second.manifest


@pytest.mark.parametrize(
    ("dtype", "shape", "size"),
    [("F32", (2,), 7), ("F4", (3,), 2), ("F128", (1,), 16), ("F32", (-1,), 0), ("F32", (True,), 4)],
)
def test_bytes_that_do_not_fit_dtype_and_shape_are_refused(
    dtype: str, shape: tuple[int, ...], size: int
) -> None:
    with pytest.raises(Malformed):
        RawTensor("w", dtype, shape, memoryview(bytes(size)))


def test_names_are_bounded_unique_and_in_utf8() -> None:
    entry = TensorEntry("w", "U8", (), bytes(32))
    with pytest.raises(Malformed):
        TensorManifest((entry, entry))
    with pytest.raises(Malformed):
        TensorEntry("\ud800", "U8", (), bytes(32))
    with pytest.raises(Oversized):
        TensorEntry("é" * 600, "U8", (), bytes(32))
    with pytest.raises(Oversized):
        TensorEntry("w", "U8", (1,) * 65, bytes(32))


@pytest.mark.parametrize("array", [numpy.array(["text"]), numpy.array([{}]), numpy.array(["2020"], "M8[Y]")])
def test_what_is_no_number_is_refused(array: numpy.ndarray[Any, Any]) -> None:
    with pytest.raises(Malformed):
        raw_of_array("x", array)
