"""The store: transactions over one database, all writers in one line."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Row, select, update

from fltrust.errors import Conflict, StorageUnavailable
from fltrust.identity import Epoch, TrustDomain
from fltrust.storage import tables
from fltrust.storage.acme import Acme
from fltrust.storage.engine import WRITES, is_memory, make_engine, parse_url, warn_if_not_durable
from fltrust.storage.errors import translated
from fltrust.storage.feed import Events
from fltrust.storage.foreign import ForeignDomains
from fltrust.storage.holder import FileHold, Hold, SessionHold
from fltrust.storage.lineage import Aggregates, Contributions, Models, Taints
from fltrust.storage.log import Log
from fltrust.storage.operations import Operations
from fltrust.storage.records import Certificates, Enrollments, Tokens
from fltrust.storage.requests import Requests
from fltrust.storage.rounds import Rounds
from fltrust.storage.schema import create, migrate
from fltrust.storage.sightings import Sightings
from fltrust.storage.signatures import Cosignatures, Countersigned, TrustMaterials
from fltrust.storage.status import Statuses


class CommitStep(StrEnum):
    """Where a test can make a commit fail: before it is durable, or after ("persisted, then failed")."""

    BEFORE = "before-commit"
    AFTER = "after-commit"


@dataclass(frozen=True, slots=True)
class Transaction:
    """One transaction: every table behind its port, on one connection, at one moment."""

    tokens: Tokens
    enrollments: Enrollments
    certificates: Certificates
    events: Events
    rounds: Rounds
    tlog: Log
    aggregates: Aggregates
    models: Models
    contributions: Contributions
    taints: Taints
    countersigned: Countersigned
    cosignatures: Cosignatures
    trust_material: TrustMaterials
    statuses: Statuses
    requests: Requests
    operations: Operations
    sightings: Sightings
    foreign: ForeignDomains
    acme: Acme
    connection: Connection

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Run a block that can fail alone: what it did is undone if it raises, the rest stays."""
        before = self.events.mark(), self.tlog.mark()
        with translated("write to the database"):
            nested = self.connection.begin_nested()
            try:
                yield
                nested.commit()
            except BaseException:
                # Where the database undid the whole transaction there is no savepoint left: that raises,
                # as it must, and what raises is `StorageUnavailable`.
                nested.rollback()
                self.events.reset(before[0])
                self.tlog.reset(before[1])
                raise


class Store:
    """A database of fltrust's, held by this process alone until `close`.

    `writing` transactions come one after the other: each begins by locking the single ``head`` row,
    which holds the newest epoch and the end of the chain. So a seal and a revocation have an order,
    and it is the order of their commits.
    """

    def __init__(self, engine: Engine, *, hold: Hold | None, shared: bool) -> None:
        self._engine = engine
        self._hold = hold
        self._holder = secrets.token_hex(16)
        # In this process writers queue here, fairly enough, instead of polling the database's lock.
        self._writers = threading.RLock()
        # A database in memory is one connection: readers queue with the writers.
        self._readers = self._writers if shared else None
        self.on_commit: Callable[[CommitStep], None] | None = None
        """The fault seam, for tests; what it raises reaches the writer."""

    @contextmanager
    def writing(self) -> Iterator[Transaction]:
        """Run a transaction that may change things; durable when the block has ended without an error.

        An error inside undoes everything. Raises `StorageUnavailable` when the database cannot: nothing
        half-written stays. If the error came from the commit itself, whether it took place is unknown:
        read before deciding again.
        """
        with self._writers, translated("write to the database"):
            with self._begin_write() as connection:
                row = connection.execute(select(tables.head).with_for_update()).one()
                if row.holder != self._holder:
                    raise StorageUnavailable(
                        "another coordinator has taken this database over",
                        reason="database-in-use",
                        hint="one coordinator per database: stop this one",
                    )
                yield _transaction(connection, row)
                self._reached(CommitStep.BEFORE)
            self._reached(CommitStep.AFTER)

    @contextmanager
    def reading(self) -> Iterator[Transaction]:
        """Run a transaction that sees one moment and changes nothing; it waits for no writer."""
        if self._readers is not None:
            with self._readers, self._read() as transaction:
                yield transaction
            return
        with self._read() as transaction:
            yield transaction

    @contextmanager
    def _read(self) -> Iterator[Transaction]:
        with translated("read from the database"), self._engine.connect() as connection:
            if connection.dialect.name == "postgresql":
                connection = connection.execution_options(
                    isolation_level="REPEATABLE READ", postgresql_readonly=True
                )
            with connection.begin():
                yield _transaction(connection, connection.execute(select(tables.head)).one())

    def claim(self, domain: TrustDomain) -> None:
        """Say whose state this is, the first time; later another domain raises `Conflict`."""
        with self._writers, translated("claim the database"), self._begin_write() as connection:
            row = connection.execute(select(tables.head).with_for_update()).one()
            if row.domain is not None and row.domain != domain:
                raise Conflict(
                    f"expected the state of {domain}, found that of {row.domain}",
                    hint="use the database that belongs to this CA",
                )
            connection.execute(update(tables.head).values(domain=str(domain)))

    def close(self) -> None:
        """Give the database up. Idempotent."""
        hold, self._hold = self._hold, None
        self._engine.dispose()
        if hold is not None:
            hold.release()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self, *, memory: bool) -> None:
        with translated("open the database"), self._begin_write() as connection:
            if memory:
                create(connection)
            else:
                migrate(connection)
                warn_if_not_durable(connection)
            # Fencing: a coordinator that lost its lock unawares finds another holder in the row.
            connection.execute(update(tables.head).values(holder=self._holder))

    @contextmanager
    def _begin_write(self) -> Iterator[Connection]:
        with self._engine.connect() as plain:
            connection = plain.execution_options(**{WRITES: True})
            with connection.begin():
                yield connection

    def _reached(self, step: CommitStep) -> None:
        if self.on_commit is not None:
            self.on_commit(step)


def open_store(url: str) -> Store:
    """Open the database at `url`, bring its schema up to date and hold it until `close`.

    ``sqlite:////path/state.db`` or a plain path (created 0600 in a folder of 0700), ``sqlite://`` (in
    memory), or ``postgresql+psycopg://…``. Refuses a database that another coordinator holds
    (`Conflict`, ``database-in-use``) and a schema newer than this program (``schema-newer``);
    `StorageUnavailable` when it cannot be opened.
    """
    parsed = parse_url(url)
    memory = is_memory(parsed)
    engine = make_engine(parsed)
    hold: Hold | None = None
    try:
        if parsed.drivername != "sqlite":
            hold = SessionHold(engine)
        elif not memory:
            hold = FileHold(Path(str(parsed.database)))
        store = Store(engine, hold=hold, shared=memory)
        store._open(memory=memory)
    except BaseException:
        engine.dispose()
        if hold is not None:
            hold.release()
        raise
    return store


def _transaction(connection: Connection, head: Row[Any]) -> Transaction:
    return Transaction(
        tokens=Tokens(connection),
        enrollments=Enrollments(connection),
        certificates=Certificates(connection),
        events=Events(connection, head=Epoch(head.epoch)),
        rounds=Rounds(connection),
        tlog=Log(connection, size=head.log_size, peaks=head.log_peaks),
        aggregates=Aggregates(connection),
        models=Models(connection),
        contributions=Contributions(connection),
        taints=Taints(connection),
        countersigned=Countersigned(connection),
        cosignatures=Cosignatures(connection),
        trust_material=TrustMaterials(connection),
        statuses=Statuses(connection),
        requests=Requests(connection),
        operations=Operations(connection),
        sightings=Sightings(connection),
        foreign=ForeignDomains(connection),
        acme=Acme(connection),
        connection=connection,
    )
