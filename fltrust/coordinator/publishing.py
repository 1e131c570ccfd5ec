"""Which checkpoint of the log is public, and who cosigned it. What is published never goes back in size."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from fltrust.artifacts.keeping import Cosignature
from fltrust.clock import Clock
from fltrust.coordinator.counters import Counters
from fltrust.coordinator.ledger import Ledger
from fltrust.coordinator.ports import Transaction
from fltrust.coordinator.settings import WitnessSetting
from fltrust.errors import FltrustError, Malformed
from fltrust.tlog.checkpoint import MAX_WITNESSES, add_signatures, sign_checkpoint
from fltrust.tlog.merkle import Prover, tree_head
from fltrust.tlog.note import NoteKey, NoteSignature, parse_signature
from fltrust.tlog.ports import TreeHead
from fltrust.tlog.tiles import Tile, read_tile
from fltrust.tlog.witness import request_cosignature

_log = logging.getLogger(__name__)

ASK_EVERY = 1.0
"""Seconds between two rounds of asking witnesses, if the log has grown."""
PATIENCE = 30.0
"""Seconds without a cosigned checkpoint after which the newest is published without."""
ASK_TIMEOUT = 5.0
"""Seconds for one witness to answer."""
_AFTER_FAILURE = 10.0


class Publisher:
    """The log as it is served: a checkpoint, and the tiles of its tree and of no larger one.

    Without witnesses the newest checkpoint is public at once. With them, each is public when those asked
    have answered, or could have; a failing witness costs time, never a checkpoint.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        log_key: NoteKey,
        counters: Counters,
        clock: Clock,
        witnesses: Iterable[WitnessSetting] = (),
    ) -> None:
        self._ledger = ledger
        self._log_key = log_key
        self._counters = counters
        self._clock = clock
        self._witnesses = tuple(witnesses)
        if len({w.key.name for w in self._witnesses}) != len(self._witnesses):
            raise Malformed("expected each witness once, got two of one name")
        if len(self._witnesses) > MAX_WITNESSES:
            raise Malformed(f"expected at most {MAX_WITNESSES} witnesses, got {len(self._witnesses)}")
        self._lock = threading.Lock()
        with ledger.reading() as tx:
            # At least what was public before this process: the log only grows.
            self._size = tx.tlog.head.size
            self._note = self._signed(tx, self._size)
        self._published_at = clock.monotonic()
        self._failed_at: dict[str, float] = {}
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def vkey(self) -> str:
        """The log's key as others configure it (C2SP signed-note)."""
        return str(self._log_key.verifier)

    @property
    def size(self) -> int:
        """How many entries the public checkpoint covers."""
        with self._lock:
            return self._size

    def checkpoint(self) -> bytes:
        """The public checkpoint: a signed note, with the cosignatures that were gathered for it."""
        if not self._witnesses:
            with self._ledger.reading() as tx:
                self._publish(tx, tx.tlog.head.size)
        with self._lock:
            return self._note

    def tile(self, path: str) -> bytes:
        """The tile or entry bundle at ``tile/…``; `Malformed` for another path, `NotFound` past the
        public checkpoint."""
        tile = Tile.parse(path)
        with self._ledger.reading() as tx:
            if not self._witnesses:
                self._publish(tx, tx.tlog.head.size)
            with self._lock:
                size = self._size
            return read_tile(tx.tlog, tile, size=size)

    def start(self) -> None:
        """Begin to ask the witnesses, on a thread of its own. Without witnesses this does nothing."""
        if self._witnesses and self._thread is None:
            self._thread = threading.Thread(target=self._run, name="fltrust-witnesses", daemon=True)
            self._thread.start()

    def stop(self, timeout: float = 2 * ASK_TIMEOUT) -> None:
        """Ask nobody any more. Idempotent."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join(timeout)

    def ask_witnesses(self) -> int:
        """Ask every witness to cosign the newest checkpoint, if that is larger than the public one or has
        no cosignature yet; publish it with what comes back. Returns how many cosigned it."""
        with self._ledger.reading() as tx:
            size = tx.tlog.head.size
            known = {item.witness for item in tx.cosignatures.at(size)}
        wanted = [w for w in self._witnesses if w.key.name not in known and self._is_due(w)]
        note = sign_checkpoint(self._head(size), self._log_key)
        if wanted:
            with ThreadPoolExecutor(len(wanted), "fltrust-witness") as pool:
                lines = list(pool.map(lambda w: self._ask(w, note, size), wanted))
            self._keep(size, [(w, line) for w, line in zip(wanted, lines, strict=True) if line is not None])
        with self._ledger.reading() as tx:
            count = len(tx.cosignatures.at(size))
            is_late = self._clock.monotonic() - self._published_at > PATIENCE
            if count or is_late:
                self._publish(tx, size)
        return count

    def _ask(self, witness: WitnessSetting, note: bytes, size: int) -> NoteSignature | None:
        name = witness.key.name
        try:
            with self._ledger.reading() as tx:
                last = tx.cosignatures.newest_of(name)
            line = request_cosignature(
                witness.url,
                note,
                witness=witness.key,
                prove=self._prover(size),
                old=0 if last is None else last.size,
                timeout=ASK_TIMEOUT,
            )
        except FltrustError as error:
            self._counters.add(f"witness.{error.reason}")
            _log.warning("the witness %s did not cosign %d entries: %s", name, size, error)
            self._failed_at[name] = self._clock.monotonic()
            return None
        self._counters.add("witness.cosigned")
        return line

    def _is_due(self, witness: WitnessSetting) -> bool:
        """One that failed is left alone for a while."""
        failed = self._failed_at.get(witness.key.name)
        return failed is None or self._clock.monotonic() - failed >= _AFTER_FAILURE

    def _prover(self, size: int) -> Callable[[int], tuple[bytes, ...]]:
        def prove(old: int) -> tuple[bytes, ...]:
            with self._ledger.reading() as tx:
                return Prover(tx.tlog, size).consistency(old)

        return prove

    def _keep(self, size: int, lines: list[tuple[WitnessSetting, NoteSignature]]) -> None:
        if not lines:
            return
        with self._ledger.writing() as work:
            for witness, line in lines:
                work.tx.cosignatures.add(Cosignature(witness.key.name, size, line.line.rstrip("\n")))

    def _head(self, size: int) -> TreeHead:
        with self._ledger.reading() as tx:
            return tree_head(tx.tlog, size)

    def _publish(self, tx: Transaction, size: int) -> None:
        with self._lock:
            if size < self._size or (size == self._size and not self._witnesses):
                return
            self._note = self._signed(tx, size)
            self._size = size
            self._published_at = self._clock.monotonic()

    def _signed(self, tx: Transaction, size: int) -> bytes:
        note = sign_checkpoint(tree_head(tx.tlog, size), self._log_key)
        names = {witness.key.name for witness in self._witnesses}
        lines = tuple(
            parse_signature(item.line) for item in tx.cosignatures.at(size) if item.witness in names
        )
        return add_signatures(note, lines) if lines else note

    def _run(self) -> None:
        asked = -1
        while not self._closing.wait(ASK_EVERY):
            try:
                with self._ledger.reading() as tx:
                    size = tx.tlog.head.size
                if size != asked or self._size < size:
                    self.ask_witnesses()
                    asked = size
            except Exception:  # whatever broke, the log is served on
                self._counters.add("witness.failed")
                _log.exception("asking the witnesses failed, trying again")
