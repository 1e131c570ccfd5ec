"""Contents that cannot be wrong, and digests that copy nothing and start threads only where it pays."""

from __future__ import annotations

import math
import struct
import subprocess
import sys
import threading
import tracemalloc
from enum import IntEnum, StrEnum
from typing import Any

import pytest
from update_world import arrays, content, tensor

from fltrust.errors import Malformed, Oversized
from fltrust.updates import Content, DigestMemo, Record, RecordKind, Tensor, content_digest, digest_content
from fltrust.updates import content as limits
from fltrust.updates import tree as tree_module
from fltrust.updates.tree import CHUNK_BYTES, tree_digests


def config(value: object) -> Content:
    return Content((Record("c", RecordKind.CONFIG, (("k", value),)),))  # type: ignore[arg-type]


def metrics(value: object) -> Content:
    return Content((Record("m", RecordKind.METRICS, (("k", value),)),))  # type: ignore[arg-type]


def test_values_that_look_alike_have_different_digests() -> None:
    quiet, other = (
        struct.unpack(">d", bytes.fromhex(bits))[0] for bits in ("7ff8000000000000", "7ff8000000000001")
    )
    alike = [1, 1.0, True, "1", b"1", [1], [1.0], [True], ["1"], [b"1"], 0, 0.0, -0.0, False, "", b"", []]
    alike += [quiet, other, math.inf, -math.inf, [0.0], [-0.0], [quiet], [other], ["", ""], ["\x00"]]
    digests = {content_digest(config(value)).hex for value in alike}
    assert len(digests) == len(alike)


def test_a_record_of_another_kind_with_the_same_values_has_another_digest() -> None:
    assert content_digest(config(1)) != content_digest(
        Content((Record("c", RecordKind.METRICS, (("k", 1),)),))
    )


def test_subclasses_count_as_the_type_that_travels() -> None:
    class Number(IntEnum):
        ONE = 1

    class Word(StrEnum):
        A = "a"

    assert content_digest(config(Number.ONE)) == content_digest(config(1))
    assert content_digest(config(Word.A)) == content_digest(config("a"))


def test_tuples_and_lists_are_one_and_later_changes_to_a_list_are_not_seen() -> None:
    values = [1, 2]
    held = config(values)
    before = content_digest(held)
    values.append(3)
    assert content_digest(held) == before == content_digest(config((1, 2)))


@pytest.mark.parametrize(
    "value", [None, 1j, {"a": 1}, [1, True], [1, 1.0], [None], [[1]], 2**64, -(2**63) - 1, "\ud800"]
)
def test_a_setting_that_cannot_travel_is_malformed(value: object) -> None:
    with pytest.raises(Malformed):
        config(value)


@pytest.mark.parametrize("value", [True, "text", b"bytes", [True], ["text"]])
def test_metrics_are_numbers(value: object) -> None:
    with pytest.raises(Malformed, match="metrics record"):
        metrics(value)


def test_tensors_stand_in_array_records_and_nothing_else_does() -> None:
    with pytest.raises(Malformed):
        config(tensor([1.0], (1,)))
    with pytest.raises(Malformed):
        Record("a", RecordKind.ARRAYS, (("k", 1),))


def test_names_and_keys_are_unique() -> None:
    with pytest.raises(Malformed, match="twice"):
        Record("c", RecordKind.CONFIG, (("k", 1), ("k", 1)))
    with pytest.raises(Malformed, match="twice"):
        Content((arrays(), arrays()))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Record("n" * (limits.MAX_NAME_BYTES + 1), RecordKind.CONFIG, ()),
        lambda: Record("é" * limits.MAX_NAME_BYTES, RecordKind.CONFIG, ()),
        lambda: Record("c", RecordKind.CONFIG, (("k" * (limits.MAX_NAME_BYTES + 1), 1),)),
        lambda: Record("c", RecordKind.CONFIG, tuple((str(i), 1) for i in range(limits.MAX_ITEMS + 1))),
        lambda: Content(tuple(Record(str(i), RecordKind.CONFIG, ()) for i in range(limits.MAX_RECORDS + 1))),
        lambda: Tensor("f" * (limits.MAX_LABEL_BYTES + 1), (), "raw", b""),
        lambda: Tensor("f", (), "s" * (limits.MAX_LABEL_BYTES + 1), b""),
        lambda: Tensor("f", (1,) * (limits.MAX_DIMENSIONS + 1), "raw", b""),
        lambda: Tensor("f", (2**63,), "raw", b""),
        lambda: config([0] * (limits.MAX_LIST + 1)),
        lambda: config("x" * (limits.MAX_TEXT_BYTES + 1)),
    ],
)
def test_what_exceeds_a_bound_is_oversized(make: object) -> None:
    with pytest.raises(Oversized):
        make()  # type: ignore[operator]


def test_the_tensors_of_all_records_count_together() -> None:
    half = tuple((str(i), Tensor("", (), "", b"")) for i in range(limits.MAX_ITEMS // 2 + 1))
    with pytest.raises(Oversized, match="tensors"):
        Content((Record("a", RecordKind.ARRAYS, half), Record("b", RecordKind.ARRAYS, half)))


@pytest.mark.parametrize(
    ("shape", "data"),
    [
        ((-1,), b""),
        ((True,), b""),
        ([1], b""),
        ((1.0,), b""),
        ((), bytearray(b"x")),
        ((), memoryview(b"abcd")[::2]),
    ],
)
def test_a_tensor_that_is_not_plain_bytes_with_a_shape_is_malformed(shape: object, data: object) -> None:
    with pytest.raises(Malformed):
        Tensor("f", shape, "raw", data)  # type: ignore[arg-type]


def test_a_view_of_any_format_counts_as_its_bytes() -> None:
    plain = Tensor("float32", (4,), "raw", bytes(16))
    floats: Any = memoryview(bytes(16)).cast("f", [2, 2])
    viewed = Tensor("float32", (4,), "raw", floats)
    assert content_digest(Content((arrays(w=plain),))) == content_digest(Content((arrays(w=viewed),)))


def test_any_number_of_workers_gives_the_same_digests() -> None:
    sizes = [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, *[3_000] * 500, 2 * CHUNK_BYTES + 7, 0]
    blobs = [bytes([i % 251]) * size for i, size in enumerate(sizes)]
    alone = [tree_digests([blob], workers=1)[0] for blob in blobs]
    assert all(tree_digests(blobs, workers=workers) == alone for workers in (1, 2, 5, 64, None))


def test_small_contents_start_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a thread pool for a small content")

    monkeypatch.setattr(tree_module, "ThreadPoolExecutor", refuse)
    tree_digests([bytes(1000)] * 1000, workers=8)
    tree_digests([bytes(4 * CHUNK_BYTES)], workers=1)
    with pytest.raises(AssertionError):
        tree_digests([bytes(4 * CHUNK_BYTES)], workers=2)


def test_threads_end_with_the_digest() -> None:
    before = threading.active_count()
    tree_digests([bytes(4 * CHUNK_BYTES)], workers=4)
    assert threading.active_count() == before


def test_no_tensor_is_copied() -> None:
    large = Content((arrays(w=Tensor("uint8", (32 * 2**20,), "raw", bytes(32 * 2**20))),))
    tracemalloc.start()
    try:
        for workers in (1, 2):
            content_digest(large, workers=workers)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_a_memo_spares_bytes_it_has_seen_and_never_trusts_a_view(monkeypatch: pytest.MonkeyPatch) -> None:
    model, memo = content(1.0, 2.0), DigestMemo()
    fresh = digest_content(model)
    assert digest_content(model, memo=memo) == fresh
    hashed: list[int] = []
    leaf = tree_module._leaf

    def counted(chunk: memoryview) -> bytes:
        hashed.append(len(chunk))
        return leaf(chunk)

    monkeypatch.setattr(tree_module, "_leaf", counted)
    assert digest_content(model, memo=memo) == fresh
    assert hashed == []
    buffer = bytearray(b"before")
    viewed = Content((arrays(w=Tensor("uint8", (6,), "raw", memoryview(buffer))),))
    first = digest_content(viewed, memo=memo)
    buffer[:] = b"after!"
    assert digest_content(viewed, memo=memo) != first


def test_the_room_needs_neither_flower_nor_numpy() -> None:
    code = "import sys, fltrust.updates; print(*sys.modules, sep='\\n')"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"flwr", "numpy", "torch", "grpc", "sqlalchemy"}.isdisjoint(run.stdout.split())
