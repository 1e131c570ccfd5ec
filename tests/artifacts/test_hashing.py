"""Work on all cores: every result in its place, the first failure ends it."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import pytest

from fltrust.artifacts.hashing import (
    PARALLEL_FROM_BYTES,
    READ_BYTES,
    Meter,
    Stopped,
    hash_file_piece,
    hash_views,
    read_and_hash,
    run_largest_first,
)


@pytest.mark.parametrize("workers", [1, 3, None])
def test_digests_come_in_the_order_of_what_was_hashed(workers: int | None) -> None:
    blobs = [bytes([place]) * size for place, size in enumerate((0, 5_000_000, 1, 3_000_000, 7))]

    assert hash_views(blobs, workers=workers) == [sha256(blob).digest() for blob in blobs]


def test_views_of_any_element_type_are_hashed_as_their_bytes() -> None:
    view = memoryview(bytes(range(16))).cast("I")

    assert hash_views([view]) == [sha256(bytes(range(16))).digest()]


def test_each_thread_has_its_own_tools_and_gives_them_back() -> None:
    made, closed = [], []

    @contextmanager
    def tools() -> Iterator[object]:
        own = object()
        made.append(own)
        yield own
        closed.append(own)

    sizes = [PARALLEL_FROM_BYTES] * 8
    run_largest_first(lambda job, _: job, list(range(8)), sizes, tools=tools, meter=Meter(), workers=3)

    assert 1 <= len(made) <= 3
    assert set(made) == set(closed)


def test_a_failure_is_raised_and_what_is_left_is_not_begun() -> None:
    begun = []

    def work(job: int, own: object) -> None:
        begun.append(job)
        raise IndexError(job)

    @contextmanager
    def tools() -> Iterator[None]:
        yield None

    with pytest.raises(IndexError):
        run_largest_first(
            work, list(range(100)), [PARALLEL_FROM_BYTES] * 100, tools=tools, meter=Meter(), workers=2
        )

    assert len(begun) <= 2


def test_the_others_stop_within_a_read_when_one_fails(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(bytes(3 * READ_BYTES))
    fd = os.open(tmp_path / "f", os.O_RDONLY)
    meter, begun, ended = Meter(), threading.Event(), []

    def work(job: int, buffer: memoryview) -> None:
        if job == 0:
            begun.wait(10)
            raise KeyError(job)
        begun.set()
        try:
            for _ in range(100_000):
                hash_file_piece(fd, 0, READ_BYTES, buffer=buffer, meter=meter)
        except Stopped:
            ended.append(job)
            raise

    @contextmanager
    def tools() -> Iterator[memoryview]:
        yield memoryview(bytearray(READ_BYTES))

    with pytest.raises(KeyError):
        run_largest_first(work, [0, 1], [PARALLEL_FROM_BYTES] * 2, tools=tools, meter=meter, workers=2)
    os.close(fd)

    assert ended == [1]


@pytest.mark.parametrize("size", [0, 1, READ_BYTES - 1, READ_BYTES, 3 * READ_BYTES + 5])
def test_a_piece_of_a_file_has_the_digest_of_those_bytes(tmp_path: Path, size: int) -> None:
    data = os.urandom(size + 20)
    (tmp_path / "f").write_bytes(data)
    fd = os.open(tmp_path / "f", os.O_RDONLY)
    buffer, meter = memoryview(bytearray(READ_BYTES)), Meter()
    memory = memoryview(bytearray(size))

    assert hash_file_piece(fd, 10, size, buffer=buffer, meter=meter) == sha256(data[10 : 10 + size]).digest()
    assert read_and_hash(fd, 10, memory, meter=meter) == sha256(data[10 : 10 + size]).digest()
    assert memory == data[10 : 10 + size]
    assert hash_file_piece(fd, 21, size, buffer=buffer, meter=meter) is None or size == 0
    assert read_and_hash(fd, 21, memory, meter=meter) is None or size == 0
    os.close(fd)
