"""Hashing a model to sign it, and holding it against what was signed."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import numpy
import pytest
from safetensors.numpy import save_file

from fltrust.artifacts import measuring
from fltrust.artifacts.hashing import READ_BYTES
from fltrust.artifacts.manifest import Difference, FileState, Manifest, compare
from fltrust.artifacts.measuring import build_manifest, verify_files
from fltrust.artifacts.walk import Listing
from fltrust.errors import ArtifactRefused, InvalidInput, Malformed, Tampered


@pytest.fixture
def model(tmp_path: Path) -> Path:
    top = tmp_path / "model"
    (top / "sub").mkdir(parents=True)
    (top / "empty").mkdir()
    (top / "config.json").write_bytes(b"{}")
    (top / "sub" / "large.bin").write_bytes(bytes(range(256)) * 20_000)
    save_file(_arrays(), top / "small.safetensors")
    return top


@pytest.fixture
def by_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small safetensors files are verified as large ones are."""
    monkeypatch.setattr(measuring, "BY_TENSORS_FROM_BYTES", 0)


def _arrays() -> dict[str, numpy.ndarray]:
    return {
        "weight": numpy.arange(6, dtype=numpy.float32).reshape(2, 3),
        "bias": numpy.ones(3, dtype=numpy.float64),
        "steps": numpy.array(7, dtype=numpy.int64),
        "nothing": numpy.zeros((0, 4), dtype=numpy.int8),
    }


def _reason(path: Path, signed: Manifest, **options: object) -> tuple[str, str]:
    with pytest.raises(Tampered) as caught:
        verify_files(path, signed, **options)  # type: ignore[arg-type]
    return caught.value.reason, caught.value.message


def test_each_file_has_the_sha256_of_its_bytes(model: Path) -> None:
    manifest = build_manifest(model)

    assert {entry.name: entry.sha256 for entry in manifest.files} == {
        name: sha256((model / name).read_bytes()).digest()
        for name in ("config.json", "small.safetensors", "sub/large.bin")
    }
    assert [entry.size for entry in manifest.files] == [
        (model / entry.name).stat().st_size for entry in manifest.files
    ]
    assert manifest.empty_directories == ("empty",)


def test_one_thread_and_many_give_the_same_manifest(model: Path) -> None:
    assert build_manifest(model, workers=1) == build_manifest(model, workers=4)


def test_shards_are_hashed_each_by_itself(model: Path) -> None:
    manifest = build_manifest(model, shard_bytes=READ_BYTES)

    data = (model / "sub" / "large.bin").read_bytes()
    assert manifest.files[-1].digests == tuple(
        sha256(data[at : at + READ_BYTES]).digest() for at in range(0, len(data), READ_BYTES)
    )
    verify_files(model, manifest)
    (model / "sub" / "large.bin").write_bytes(data[:-1] + b"\x00")
    assert _reason(model, manifest)[0] == "file-changed"


def test_a_safetensors_file_is_hashed_by_header_and_tensors_too(model: Path) -> None:
    found = build_manifest(model).tensors["small.safetensors"]

    data = (model / "small.safetensors").read_bytes()
    head = data[: 8 + int.from_bytes(data[:8], "little")]
    assert found.header == sha256(head).digest()
    assert {entry.name: entry.sha256 for entry in found.tensors.tensors} == {
        name: sha256(array.tobytes()).digest() for name, array in _arrays().items()
    }


def test_tensors_are_left_out_when_asked(model: Path) -> None:
    assert build_manifest(model, with_tensors=False).tensors == {}


def test_a_file_that_only_claims_to_be_safetensors_is_refused_by_name(model: Path) -> None:
    (model / "pointer.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00")

    with pytest.raises(InvalidInput) as caught:
        build_manifest(model)

    assert "pointer.safetensors" in caught.value.message
    build_manifest(model, with_tensors=False)


def test_an_untouched_model_is_the_signed_one(model: Path, by_tensors: None) -> None:
    verify_files(model, build_manifest(model))
    verify_files(model / "small.safetensors", build_manifest(model / "small.safetensors"))


def test_the_sidecars_may_come_and_go(model: Path) -> None:
    signed = build_manifest(model)
    (model / "model.sig").write_bytes(b"{}")
    (model / "model.lineage.jsonl").write_bytes(b"{}")

    verify_files(model, signed)


Change = Callable[[Path], object]
CHANGES: dict[str, tuple[Change, str, str]] = {
    "a byte": (lambda m: (m / "config.json").write_bytes(b"{ "), "file-changed", "config.json"),
    "a length": (lambda m: (m / "config.json").write_bytes(b"{} "), "file-changed", "config.json"),
    "a file more": (lambda m: (m / "extra.py").write_bytes(b""), "file-added", "extra.py"),
    "a file less": (lambda m: (m / "config.json").unlink(), "file-missing", "config.json"),
    "another name": (lambda m: (m / "config.json").rename(m / "c.json"), "file-missing", "c.json"),
    "a directory more": (lambda m: (m / "void").mkdir(), "file-added", "void/"),
    "a directory less": (lambda m: (m / "empty").rmdir(), "file-missing", "empty/"),
    "a file in the empty one": (lambda m: (m / "empty" / "x").write_bytes(b""), "file-missing", "empty/x"),
    "git": (lambda m: (m / ".gitattributes").write_bytes(b""), "file-added", ".gitattributes"),
    "a repository": (lambda m: (m / ".git").mkdir(), "git-directory", ".git"),
    "a link": (lambda m: (m / "l").symlink_to("config.json"), "symlink", "l"),
    "a pipe": (lambda m: os.mkfifo(m / "p"), "special-file", "p"),
    "another case": (lambda m: (m / "CONFIG.json").write_bytes(b""), "name-collision", "CONFIG.json"),
    "an odd name": (lambda m: (m / "new\nline").write_bytes(b""), "name", "line"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_any_difference_is_refused_with_its_reason_and_its_name(model: Path, change: str) -> None:
    signed = build_manifest(model)
    apply, reason, name = CHANGES[change]
    apply(model)

    found, message = _reason(model, signed)

    assert found == reason
    assert name in message


def test_what_the_caller_ignores_is_not_compared(model: Path) -> None:
    signed = build_manifest(model)
    (model / "cache").mkdir()
    (model / "cache" / "x").write_bytes(b"")

    assert _reason(model, signed)[0] == "file-added"
    verify_files(model, signed, ignore=["cache"])


def test_every_byte_of_a_safetensors_file_counts_when_it_is_verified_by_tensors(
    model: Path, by_tensors: None
) -> None:
    file = model / "small.safetensors"
    signed = build_manifest(file)
    data = file.read_bytes()

    for at in range(len(data)):
        file.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        assert _reason(file, signed)[0] == "file-changed"


def test_the_whole_file_s_digest_is_not_needed_where_tensors_are_signed(
    model: Path, by_tensors: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = model / "small.safetensors"
    signed = build_manifest(file)
    read = []
    original = measuring.hash_file_piece

    def counting(fd: int, offset: int, size: int, **options: object) -> bytes | None:
        read.append(size)
        return original(fd, offset, size, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(measuring, "hash_file_piece", counting)
    verify_files(file, signed)

    assert sum(read) == sum(array.nbytes for array in _arrays().values())


def test_signed_tensors_that_the_signed_header_does_not_name_are_malformed(
    model: Path, tmp_path: Path, by_tensors: None
) -> None:
    arrays = {"other": numpy.arange(6, dtype=numpy.float32)}
    save_file(arrays, tmp_path / "other.safetensors")
    file = model / "small.safetensors"
    signed, other = build_manifest(file), build_manifest(tmp_path / "other.safetensors")
    mixed = type(signed.tensors["."])(signed.tensors["."].header, other.tensors["."].tensors)

    with pytest.raises(Malformed):
        verify_files(file, Manifest(signed.files, (), {".": mixed}))


def test_progress_tells_all_bytes_and_ends_at_the_total(model: Path) -> None:
    told: list[tuple[int, int]] = []

    manifest = build_manifest(
        model, with_tensors=False, progress=lambda done, total: told.append((done, total))
    )

    assert told[-1] == (manifest.total_bytes, manifest.total_bytes)
    assert [done for done, _ in told] == sorted({done for done, _ in told})


def test_a_file_that_changes_while_it_is_hashed_is_refused(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signed = build_manifest(model)
    large = model / "sub" / "large.bin"

    def rewrite(done: int, total: int) -> None:
        if done:
            with large.open("r+b") as file:
                file.write(b"!")
            os.utime(large, ns=(1, 1))

    with pytest.raises(ArtifactRefused) as signing:
        build_manifest(model, progress=rewrite)
    with pytest.raises(ArtifactRefused) as verifying:
        verify_files(model, signed, progress=rewrite)

    for caught in (signing, verifying):
        assert caught.value.reason == "changed-while-hashing"
        assert not isinstance(caught.value, Tampered)


def test_a_file_that_shrinks_while_it_is_hashed_is_refused(model: Path) -> None:
    large = model / "sub" / "large.bin"

    def shrink(done: int, total: int) -> None:
        os.truncate(large, 1)

    with pytest.raises(ArtifactRefused) as caught:
        build_manifest(model, progress=shrink)

    assert caught.value.reason == "changed-while-hashing"


def test_a_file_that_appears_while_others_are_hashed_is_refused(model: Path) -> None:
    def add(done: int, total: int) -> None:
        (model / "sub" / "late").write_bytes(b"")

    with pytest.raises(ArtifactRefused) as caught:
        build_manifest(model, progress=add)

    assert caught.value.reason == "changed-while-hashing"


def test_a_refusal_in_one_thread_ends_all_of_them(model: Path) -> None:
    for place in range(40):
        (model / f"{place}.bin").write_bytes(bytes(300_000))
    before = threading.active_count()

    def fail(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_manifest(model, progress=fail, workers=4)

    assert threading.active_count() == before


def test_no_descriptor_is_left_open(model: Path) -> None:
    signed = build_manifest(model)
    before = len(os.listdir("/proc/self/fd"))

    build_manifest(model)
    verify_files(model, signed)
    (model / "config.json").write_bytes(b"??")
    _reason(model, signed)

    assert len(os.listdir("/proc/self/fd")) == before


def test_shards_want_names_without_a_colon_and_a_size_worth_it(model: Path) -> None:
    with pytest.raises(Malformed):
        build_manifest(model, shard_bytes=1)
    (model / "a:b").write_bytes(b"")
    with pytest.raises(ArtifactRefused) as caught:
        build_manifest(model, shard_bytes=READ_BYTES)
    assert caught.value.reason == "name"


def test_comparing_two_manifests_names_what_is_missing_then_added_then_changed(model: Path) -> None:
    signed = build_manifest(model)
    (model / "config.json").write_bytes(b"[]")
    (model / "sub" / "large.bin").rename(model / "sub" / "renamed.bin")

    assert compare(build_manifest(model), signed) == (
        Difference(FileState.MISSING, "sub/large.bin"),
        Difference(FileState.ADDED, "sub/renamed.bin"),
        Difference(FileState.CHANGED, "config.json"),
    )
    assert compare(signed, signed) == ()


def test_a_manifest_s_digest_binds_names_sizes_and_empty_directories(model: Path) -> None:
    digests = {build_manifest(model).digest}
    (model / "config.json").rename(model / "renamed.json")
    digests.add(build_manifest(model).digest)
    (model / "void").mkdir()
    digests.add(build_manifest(model).digest)

    assert len(digests) == 3


@pytest.mark.slow
def test_many_thousand_files_are_hashed_and_verified_in_order(tmp_path: Path) -> None:
    for folder in range(10):
        (tmp_path / f"{folder}").mkdir()
        for place in range(1_000):
            (tmp_path / f"{folder}" / f"{place:03}").touch()

    manifest = build_manifest(tmp_path)
    verify_files(tmp_path, manifest)

    assert len(manifest.files) == 10_000
    with Listing(tmp_path) as listing:
        assert [file.name for file in listing.files] == [entry.name for entry in manifest.files]
