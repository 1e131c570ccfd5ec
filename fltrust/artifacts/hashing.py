"""SHA-256 on all cores, in bounded memory: of memory, and of pieces of files.

One digest is one sequential pass, so the work is spread by piece, the largest first. ``hashlib``
releases the interpreter lock, so threads do it. Files are read with ``preadv`` into one buffer per
thread and never mapped: a mapped file that shrinks ends the process.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, nullcontext
from hashlib import sha256
from threading import Lock
from typing import TypeVar

from fltrust.updates.content import flat_view

READ_BYTES = 2**20
"""What one thread reads at a time; with the number of threads, the memory that hashing takes."""
PARALLEL_FROM_BYTES = 2**22
"""Below this altogether, starting threads costs more than it gives."""

_MOST_WORKERS = 16  # memory bandwidth ends the gain before that
_SAME_SIZE_BYTES = 2**18  # pieces that differ by less stay in their order: files of one directory together

Progress = Callable[[int, int], None]
"""Told the bytes hashed so far and those to hash in all; from any thread, one call at a time."""

_Job = TypeVar("_Job")
_Tools = TypeVar("_Tools")
_Result = TypeVar("_Result")


def usable_cores() -> int:
    """The cores this process may run on, at most 16."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(usable, _MOST_WORKERS)


def run_largest_first(
    work: Callable[[_Job, _Tools], _Result],
    jobs: Sequence[_Job],
    sizes: Sequence[int],
    *,
    tools: Callable[[], AbstractContextManager[_Tools]],
    meter: Meter,
    workers: int | None = None,
) -> list[_Result]:
    """``work(job, tools)`` for each job, in order; on all cores when there is enough to do.

    Each thread makes its own `tools`. The first exception, an interrupt among them, is raised; it stops
    `meter`, which ends the work of the others within a read.
    """
    wanted = min(usable_cores() if workers is None else workers, len(jobs))
    if wanted <= 1 or sum(sizes) < PARALLEL_FROM_BYTES:
        with tools() as own:
            return [work(job, own) for job in jobs]
    queue = deque(sorted(range(len(jobs)), key=lambda place: -(sizes[place] // _SAME_SIZE_BYTES)))
    done: dict[int, _Result] = {}

    def drain() -> None:
        try:
            with tools() as own:
                while True:
                    try:
                        place = queue.popleft()
                    except IndexError:
                        return
                    done[place] = work(jobs[place], own)
        except BaseException:
            meter.stop()
            queue.clear()
            raise

    with ThreadPoolExecutor(wanted, "fltrust-hash") as pool:
        futures = [pool.submit(drain) for _ in range(wanted)]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            queue.clear()
            if not all(future.done() for future in futures):
                meter.stop()
    failures = [error for future in futures if (error := future.exception()) is not None]
    if failures:
        raise next((error for error in failures if not isinstance(error, Stopped)), failures[0])
    return [done[place] for place in range(len(jobs))]


class Stopped(Exception):
    """Another thread failed, or the caller was interrupted: this one's work is not needed."""


class Meter:
    """Adds up what all threads have hashed, and tells it; ends them where one of them failed."""

    __slots__ = ("_done", "_lock", "_progress", "_stopped", "_total")

    def __init__(self, progress: Progress | None = None, total: int = 0) -> None:
        self._progress, self._total = progress, total
        self._done, self._lock, self._stopped = 0, Lock(), False

    def stop(self) -> None:
        self._stopped = True

    def add(self, count: int) -> None:
        if self._stopped:
            raise Stopped
        if self._progress is not None:
            with self._lock:
                self._done += count
                self._progress(self._done, self._total)


def hash_views(views: Sequence[bytes | memoryview], *, workers: int | None = None) -> list[bytes]:
    """The SHA-256 of each, in order; nothing is copied."""
    flat = [flat_view(view) for view in views]
    return run_largest_first(
        lambda view, _: sha256(view).digest(),
        flat,
        [len(view) for view in flat],
        tools=nullcontext,
        meter=Meter(),
        workers=workers,
    )


def hash_file_piece(fd: int, offset: int, size: int, *, buffer: memoryview, meter: Meter) -> bytes | None:
    """The SHA-256 of `size` bytes of an open file; None if it ends before that."""
    state = sha256()
    end = offset + size
    while offset < end:
        count = os.preadv(fd, [buffer[: end - offset]], offset)
        if count == 0:
            return None
        state.update(buffer[:count])
        offset += count
        meter.add(count)
    return state.digest()


def read_and_hash(fd: int, offset: int, into: memoryview, *, meter: Meter) -> bytes | None:
    """Fill memory from an open file, and give the SHA-256 of what stands there then; None if the file
    ends before that."""
    state = sha256()
    for at in range(0, len(into), READ_BYTES):
        chunk = into[at : at + READ_BYTES]
        if not read_fully(fd, offset + at, chunk):
            return None
        state.update(chunk)
        meter.add(len(chunk))
    return state.digest()


def read_fully(fd: int, offset: int, into: memoryview) -> bool:
    """Fill memory from an open file; False if the file ends before that."""
    done = 0
    while done < len(into):
        count = os.preadv(fd, [into[done:]], offset + done)
        if count == 0:
            return False
        done += count
    return True
