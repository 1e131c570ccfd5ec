"""Safetensors files as we write them, read by the format's own library."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from fltrust.artifacts.measuring import build_manifest
from fltrust.artifacts.saving import save_safetensors
from fltrust.artifacts.tensors import raw_of_arrays, tensor_set_of
from fltrust.errors import Malformed, StorageUnavailable

ARRAYS = {
    "b": np.arange(6, dtype=np.float32).reshape(2, 3),
    "a": np.array(7, dtype=np.int64),
    "ö": np.zeros((0, 4), dtype=np.float16),
    "flag": np.array([True, False, True]),
    "turned": np.arange(6, dtype=np.float64).reshape(2, 3).T,
}


def test_the_format_s_own_library_reads_the_same_tensors(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_safetensors(raw_of_arrays(ARRAYS), path)
    found = load_file(path)
    assert set(found) == set(ARRAYS)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape


def test_the_file_has_the_tensor_set_of_the_arrays(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_safetensors(raw_of_arrays(ARRAYS), path)
    (file,) = build_manifest(path).tensors.values()
    assert file.tensors.set == tensor_set_of(raw_of_arrays(ARRAYS))


def test_the_same_tensors_in_any_order_give_the_same_bytes(tmp_path: Path) -> None:
    one, two = tmp_path / "1", tmp_path / "2"
    save_safetensors(raw_of_arrays(ARRAYS), one)
    save_safetensors(reversed(raw_of_arrays(ARRAYS)), two)
    assert one.read_bytes() == two.read_bytes()


def test_a_name_twice_or_a_dtype_without_a_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Malformed):
        save_safetensors(raw_of_arrays(ARRAYS) * 2, tmp_path / "m")
    with pytest.raises(Malformed):
        save_safetensors(raw_of_arrays({"c": np.zeros(1, dtype=np.complex128)}), tmp_path / "m")
    assert os.listdir(tmp_path) == []


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(StorageUnavailable):
        save_safetensors(raw_of_arrays(ARRAYS), tmp_path / "none" / "m")
