"""The log as the coordinator keeps it: durable appends, and what a proof costs as it grows.

Appends are entries of 700 bytes from many threads, each acknowledged after its commit (SQLite, WAL,
synchronous=FULL; with FLTRUST_BENCH_DATABASE, that database too). Proofs are computed from the store as
for an auditor, cold: a new transaction for each. Sizes: a thousand, a hundred thousand and a million entries.
Run it: ``python -m benchmarks.log`` prints JSON.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from fltrust.clock import SystemClock
from fltrust.coordinator.ledger import Ledger
from fltrust.coordinator.logbook import Logbook
from fltrust.coordinator.public_names import PublicNaming
from fltrust.coordinator.sequencer import Sequencer
from fltrust.identity import TrustDomain
from fltrust.keys.ed25519 import generate_note_key
from fltrust.storage import Store, open_store
from fltrust.tlog.checkpoint import sign_checkpoint
from fltrust.tlog.merkle import consistency_proof, inclusion_proof, leaf_hash, verify_inclusion
from fltrust.tlog.note import NoteKey
from fltrust.tlog.ports import NewEntry

DOMAIN = TrustDomain("bench.example")
WRITERS = (1, 16, 64)
SECONDS = 3.0
SIZES = {"1k": 1_000, "100k": 100_000, "1M": 1_000_000}
BATCH = 10_000
QUESTIONS = 200


def measure() -> dict[str, float]:
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        figures |= _appends(f"sqlite:///{folder / 'appends.db'}", "")
        if url := os.environ.get("FLTRUST_BENCH_DATABASE"):
            figures |= _appends(url, "_server")
        figures |= _proofs(f"sqlite:///{folder / 'proofs.db'}")
    figures["inclusion_ratio_1M"] = figures["inclusion_1M_us"] / figures["inclusion_1k_us"]
    figures["checkpoint_ratio_1M"] = figures["checkpoint_1M_us"] / figures["checkpoint_1k_us"]
    return figures


def _appends(url: str, what: str) -> dict[str, float]:
    figures: dict[str, float] = {}
    with open_store(url) as store:
        clock = SystemClock()
        sequencer = Sequencer(Ledger(store, clock, Logbook(DOMAIN, PublicNaming())))
        for writers in WRITERS:
            figures[f"appends{what}_{writers}_writers_per_s"] = _rate(sequencer, writers, clock)
    return figures


def _rate(sequencer: Sequencer, writers: int, clock: SystemClock) -> float:
    done = [0] * writers
    end = clock.monotonic() + SECONDS

    def write(number: int) -> None:
        subject = f"spiffe://{DOMAIN}/participant/site-{number}"
        while clock.monotonic() < end:
            sequencer.append(NewEntry("statement", clock.now(), os.urandom(700), (subject,)))
            done[number] += 1

    threads = [threading.Thread(target=write, args=(n,)) for n in range(writers)]
    began = clock.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(done) / (clock.monotonic() - began)


def _proofs(url: str) -> dict[str, float]:
    figures: dict[str, float] = {}
    key, now, chance = NoteKey(f"{DOMAIN}/log", generate_note_key()), SystemClock().now(), random.Random(1)
    with open_store(url) as store:
        size, loading = 0, 0.0
        for label, wanted in SIZES.items():
            began = time.perf_counter()
            while size < wanted:
                batch = range(size, min(size + BATCH, wanted))
                with store.writing() as tx:
                    tx.tlog.append([NewEntry("statement", now, b"entry %d" % n) for n in batch])
                size = batch.stop
            loading += time.perf_counter() - began
            figures |= _ask(store, label, size, key, chance)
        figures["bulk_load_per_s"] = size / loading
    return figures


def _ask(store: Store, label: str, size: int, key: NoteKey, chance: random.Random) -> dict[str, float]:
    def prove() -> None:
        index = chance.randrange(size)
        with store.reading() as tx:
            head = tx.tlog.head
            proof = inclusion_proof(tx.tlog, index, size=head.size)
        verify_inclusion(proof, leaf=leaf_hash(b"entry %d" % index), index=index, head=head)

    def extend() -> None:
        with store.reading() as tx:
            consistency_proof(tx.tlog, chance.randrange(1, size), size=tx.tlog.head.size)

    def sign() -> None:
        with store.reading() as tx:
            sign_checkpoint(tx.tlog.head, key)

    return {
        f"inclusion_{label}_us": _median(prove),
        f"consistency_{label}_us": _median(extend),
        f"checkpoint_{label}_us": _median(sign),
    }


def _median(ask: Callable[[], None]) -> float:
    """Microseconds."""
    times = []
    for _ in range(QUESTIONS):
        began = time.perf_counter()
        ask()
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1e6


if __name__ == "__main__":
    json.dump(measure(), sys.stdout, indent=2)
    print()
