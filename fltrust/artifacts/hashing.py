"""SHA-256 on all cores, in bounded memory: of memory, and of pieces of files.

One digest is one sequential pass, so the work is spread by piece, the largest first. ``hashlib``
releases the interpreter lock, so threads do it. Files are read with ``preadv`` into one buffer per
thread and never mapped: a mapped file that shrinks ends the process.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from typing import TypeVar

from fltrust.updates.content import flat_view

READ_BYTES = 2**20
"""What one thread reads at a time; with the number of threads, the memory that hashing takes."""
PARALLEL_FROM_BYTES = 2**22
"""Below this altogether, starting threads costs more than it gives."""

_MOST_WORKERS = 16  # memory bandwidth ends the gain before that

Progress = Callable[[int, int], None]
"""Told the bytes hashed so far and those to hash in all; from any thread, one call at a time."""

_Job = TypeVar("_Job")
_Result = TypeVar("_Result")


def usable_cores() -> int:
    """The cores this process may run on, at most 16."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(usable, _MOST_WORKERS)


def run_largest_first(
    work: Callable[[_Job, memoryview], _Result],
    jobs: Sequence[_Job],
    sizes: Sequence[int],
    *,
    workers: int | None = None,
) -> list[_Result]:
    """``work(job, buffer)`` for each job, in order; on all cores when there is enough to do.

    `buffer` is the thread's own, of `READ_BYTES`. The first exception ends the work and is raised.
    """
    wanted = usable_cores() if workers is None else workers
    if wanted <= 1 or len(jobs) <= 1 or sum(sizes) < PARALLEL_FROM_BYTES:
        buffer = memoryview(bytearray(READ_BYTES))
        return [work(job, buffer) for job in jobs]
    queue = deque(sorted(range(len(jobs)), key=lambda place: -sizes[place]))
    done: dict[int, _Result] = {}

    def drain() -> None:
        buffer = memoryview(bytearray(READ_BYTES))
        try:
            while True:
                place = queue.popleft()
                done[place] = work(jobs[place], buffer)
        except IndexError:
            return
        except BaseException:
            queue.clear()
            raise

    with ThreadPoolExecutor(min(wanted, len(jobs)), "fltrust-hash") as pool:
        for future in [pool.submit(drain) for _ in range(min(wanted, len(jobs)))]:
            future.result()
    return [done[place] for place in range(len(jobs))]


def hash_views(views: Sequence[bytes | memoryview], *, workers: int | None = None) -> list[bytes]:
    """The SHA-256 of each, in order; nothing is copied."""
    flat = [flat_view(view) for view in views]
    return run_largest_first(
        lambda view, _: sha256(view).digest(), flat, [len(view) for view in flat], workers=workers
    )
