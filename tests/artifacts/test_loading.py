"""Only bytes that were verified are loaded, whatever happens to the file meanwhile."""

from __future__ import annotations

import io
import os
import pickle
import threading
from pathlib import Path

import numpy
import pytest
import torch
from safetensors.torch import load_file, save_file

from fltrust.artifacts import private
from fltrust.artifacts.frameworks import load_torch_bytes
from fltrust.artifacts.loading import load_verified_safetensors
from fltrust.artifacts.manifest import Manifest
from fltrust.artifacts.measuring import build_manifest
from fltrust.artifacts.private import read_verified
from fltrust.errors import ArtifactRefused, Malformed, NotFound, Tampered


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    save_file(
        {
            "half": torch.arange(8, dtype=torch.bfloat16),
            "matrix": torch.arange(6, dtype=torch.float32).reshape(2, 3),
            "scalar": torch.tensor(5, dtype=torch.int64),
            "none": torch.zeros((0, 2)),
            "large": torch.ones(2**21, dtype=torch.float32),
        },
        path,
    )
    return path


SHAPES = {
    "by tensors": {},
    "whole": {"with_tensors": False},
    "by shards": {"with_tensors": False, "shard_bytes": 2**20},
}


@pytest.mark.parametrize("how", SHAPES)
def test_the_tensors_are_those_that_the_format_s_own_reader_gives(file: Path, how: str) -> None:
    signed = build_manifest(file, **SHAPES[how])  # type: ignore[arg-type]

    found = load_verified_safetensors(file, signed, framework="torch")

    expected = load_file(file)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert all(found[name].dtype == expected[name].dtype for name in expected)


def test_arrays_of_numpy_are_aligned_writable_views(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_file({"b": torch.ones(3, dtype=torch.float64), "a": torch.arange(4, dtype=torch.float32)}, path)

    found = load_verified_safetensors(path, build_manifest(path))

    assert found["a"].tolist() == [0.0, 1.0, 2.0, 3.0]
    assert all(array.flags.aligned and array.flags.writeable for array in found.values())
    found["a"][0] = 9


def test_a_dtype_that_numpy_lacks_is_refused_with_a_way_out(file: Path) -> None:
    pytest.importorskip("numpy")
    signed = build_manifest(file)
    try:
        import ml_dtypes  # noqa: F401
    except ImportError:
        with pytest.raises(Malformed) as caught:
            load_verified_safetensors(file, signed)
        assert "torch" in str(caught.value.hint)
    else:
        assert load_verified_safetensors(file, signed)["half"].dtype.name == "bfloat16"


@pytest.mark.parametrize("how", SHAPES)
@pytest.mark.parametrize("at", [0, 9, -1])
def test_a_changed_byte_is_refused(file: Path, how: str, at: int) -> None:
    signed = build_manifest(file, **SHAPES[how])  # type: ignore[arg-type]
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    file.write_bytes(data)

    with pytest.raises(Tampered) as caught:
        load_verified_safetensors(file, signed)

    assert caught.value.reason == "file-changed"


@pytest.mark.parametrize("change", [b"", b"short", None])
def test_a_file_of_another_length_is_refused(file: Path, change: bytes | None) -> None:
    signed = build_manifest(file)
    file.write_bytes(file.read_bytes() + b"!" if change is None else change)

    with pytest.raises(Tampered):
        read_verified(file, signed)


def test_changing_the_file_after_loading_changes_no_tensor(file: Path) -> None:
    found = load_verified_safetensors(file, build_manifest(file), framework="torch")
    with file.open("r+b") as out:
        out.seek(-4, io.SEEK_END)
        out.write(b"\xff" * 4)
    os.truncate(file, 10)

    assert found["matrix"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert bool((found["large"] == 1).all())


@pytest.mark.parametrize("how", SHAPES)
def test_a_file_rewritten_all_the_while_is_refused_or_loaded_as_signed(file: Path, how: str) -> None:
    signed = build_manifest(file, **SHAPES[how])  # type: ignore[arg-type]
    good = file.read_bytes()
    evil = good[: -(2**23)] + bytes(2**23)
    done = threading.Event()

    def attack() -> None:
        with file.open("r+b", buffering=0) as out:
            while not done.is_set():
                for data in (evil, good):
                    out.seek(0)
                    out.write(data)

    attacker = threading.Thread(target=attack)
    attacker.start()
    outcomes = {"refused": 0, "loaded": 0}
    try:
        for _ in range(40):
            try:
                found = load_verified_safetensors(file, signed, framework="torch")
            except Tampered:
                outcomes["refused"] += 1
            else:
                outcomes["loaded"] += 1
                assert bool((found["large"] == 1).all())
    finally:
        done.set()
        attacker.join()

    assert outcomes["refused"] > 0


@pytest.mark.parametrize("how", SHAPES)
def test_a_file_swapped_between_two_reads_of_it_is_never_half_taken(
    file: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    signed = build_manifest(file, **SHAPES[how])  # type: ignore[arg-type]
    original, calls = private.os.pread, []

    def swap(fd: int, count: int, offset: int) -> bytes:
        found = original(fd, count, offset)
        if not calls:
            calls.append(1)
            with file.open("r+b") as out:
                out.seek(-8, io.SEEK_END)
                out.write(b"evilevil")
        return found

    monkeypatch.setattr(private.os, "pread", swap)
    with pytest.raises(Tampered):
        load_verified_safetensors(file, signed)

    assert calls


def test_a_file_in_a_directory_is_held_against_its_own_name(tmp_path: Path) -> None:
    save_file({"w": torch.zeros(2)}, tmp_path / "zeros.safetensors")
    save_file({"w": torch.ones(2)}, tmp_path / "ones.safetensors")
    signed = build_manifest(tmp_path)

    found = load_verified_safetensors(tmp_path / "ones.safetensors", signed, "ones.safetensors")

    assert found["w"].tolist() == [1, 1]
    with pytest.raises(Tampered):
        load_verified_safetensors(tmp_path / "ones.safetensors", signed, "zeros.safetensors")
    with pytest.raises(Tampered) as caught:
        load_verified_safetensors(tmp_path / "ones.safetensors", signed, "twos.safetensors")
    assert caught.value.reason == "file-added"


def test_signed_bytes_that_are_no_safetensors_are_malformed(tmp_path: Path) -> None:
    path = tmp_path / "m.bin"
    w = b'"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}'
    twice = b"{%s,%s}" % (w, w)
    path.write_bytes(len(twice).to_bytes(8, "little") + twice + b"x")

    with pytest.raises(Malformed):
        load_verified_safetensors(path, build_manifest(path))


def test_a_file_through_a_link_is_loaded_for_its_bytes(file: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(file)

    assert "matrix" in load_verified_safetensors(tmp_path / "link", build_manifest(file), framework="torch")


def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path, file: Path) -> None:
    signed = build_manifest(file)
    os.mkfifo(tmp_path / "pipe")

    with pytest.raises(Malformed):
        read_verified(tmp_path / "pipe", signed)
    with pytest.raises(Malformed):
        read_verified(tmp_path, signed)
    with pytest.raises(NotFound):
        read_verified(tmp_path / "nothing", signed)


def test_no_descriptor_is_left_open(file: Path) -> None:
    signed = build_manifest(file)
    before = len(os.listdir("/proc/self/fd"))

    load_verified_safetensors(file, signed, framework="torch")
    with pytest.raises(Tampered):
        read_verified(file, Manifest(()), ".")

    assert len(os.listdir("/proc/self/fd")) == before


# -- torch's own format ------------------------------------------------------------------------------------


class _Payload:
    """What unpickling turns into a folder."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, (str(self.trace),))


def _saved(value: object) -> memoryview:
    out = io.BytesIO()
    torch.save(value, out)
    return memoryview(out.getvalue())


def test_plain_weights_that_torch_saved_are_loaded() -> None:
    found = load_torch_bytes(_saved({"w": torch.arange(3.0), "b": torch.ones(2**20)}), "cpu")

    assert found["w"].tolist() == [0, 1, 2]
    assert bool((found["b"] == 1).all())


@pytest.mark.parametrize("wrap", [_saved, lambda value: memoryview(pickle.dumps(value))])
def test_a_pickle_that_would_run_code_is_refused_though_its_bytes_are_verified(
    tmp_path: Path, wrap: object
) -> None:
    path, trace = tmp_path / "m.pt", tmp_path / "it-ran"
    path.write_bytes(wrap({"w": _Payload(trace)}))  # type: ignore[operator]
    view = read_verified(path, build_manifest(path)).view

    with pytest.raises(ArtifactRefused) as caught:
        load_torch_bytes(view, "cpu")

    assert caught.value.reason == "pickle"
    assert not trace.exists()


@pytest.mark.parametrize("data", [b"", b"junk", b"PK\x03\x04junk"])
def test_what_torch_did_not_write_is_refused(data: bytes) -> None:
    with pytest.raises((Malformed, ArtifactRefused)):
        load_torch_bytes(memoryview(data), "cpu")


def test_numpy_is_enough_to_load(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_file({"w": torch.arange(4, dtype=torch.float32)}, path)

    assert isinstance(load_verified_safetensors(path, build_manifest(path))["w"], numpy.ndarray)
