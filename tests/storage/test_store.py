from __future__ import annotations

import resource
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import create_engine, event, inspect, text

from fltrust.enrollment.types import TokenRecord, TokenStatus
from fltrust.errors import Conflict, Malformed, StorageUnavailable
from fltrust.identity import Epoch, KeyId, Name, Role, RunId, Serial, SpiffeId, TrustDomain
from fltrust.revocation.events import EventKind, RevocationReason, TrustEvent
from fltrust.storage import CommitStep, Store, open_store
from fltrust.storage.engine import parse_url
from fltrust.storage.tables import metadata

NOW = datetime(2026, 3, 1, 12, 0, 0, 123_456, tzinfo=UTC)
WHO = SpiffeId.of("hospitals.example", Role.PARTICIPANT, "site-a")


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    with open_store(database_url) as store:
        yield store


def test_events_come_back_as_they_were_written(store: Store) -> None:
    written = TrustEvent(
        epoch=Epoch(1),
        kind=EventKind.REVOKED,
        at=NOW,
        actor=SpiffeId.of("hospitals.example", Role.OPERATOR, "root"),
        subject=WHO,
        identity_wide=True,
        serials=(Serial(1), Serial(2**159 - 1)),
        keys=(KeyId("ab" * 32),),
        node_key=b"\x00\xff",
        run_id=RunId(2**64 - 1),
        reason=RevocationReason.KEY_COMPROMISE,
        compromised_since=NOW - timedelta(days=1),
    )
    with store.writing() as tx:
        tx.events.append(written)
    with store.reading() as tx:
        assert tx.events.read(Epoch(0)) == (written,)
        assert tx.events.about(WHO) == (written,)
        assert tx.events.head == 1


def test_epochs_have_no_gap_and_no_repetition(store: Store) -> None:
    with store.writing() as tx:
        tx.events.append(_event(1))
        for wrong in (1, 3):
            with pytest.raises(Conflict):
                tx.events.append(_event(wrong))
    with store.reading() as tx:
        assert [e.epoch for e in tx.events.read(Epoch(0))] == [1]


def test_an_error_inside_undoes_everything(store: Store) -> None:
    def write() -> None:
        with store.writing() as tx:
            tx.events.append(_event(1))
            tx.tokens.add(_token(), secret_hash=b"h" * 32)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write()
    with store.reading() as tx:
        assert tx.events.head == 0
        assert tx.tokens.all(now=NOW) == ()


def test_what_failed_before_the_commit_is_gone_and_what_failed_after_it_stays(store: Store) -> None:
    for step, head in ((CommitStep.BEFORE, 0), (CommitStep.AFTER, 1)):

        def fail(reached: CommitStep, wanted: CommitStep = step) -> None:
            if reached is wanted:
                raise OSError("crash")

        store.on_commit = fail
        with pytest.raises(OSError, match="crash"), store.writing() as tx:
            tx.events.append(_event(1))
        store.on_commit = None
        with store.reading() as tx:
            assert tx.events.head == head


def test_a_reader_sees_one_moment_while_writers_go_on(store: Store) -> None:
    with store.reading() as before:
        assert before.events.head == 0
        writer = threading.Thread(target=_append, args=(store,))
        writer.start()
        writer.join()
        assert before.events.read(Epoch(0)) == ()
    with store.reading() as after:
        assert [e.epoch for e in after.events.read(Epoch(0))] == [1]


def test_writers_in_many_threads_take_every_epoch_once(store: Store) -> None:
    def write() -> None:
        for _ in range(5):
            with store.writing() as tx:
                tx.events.append(_event(tx.events.head + 1))

    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with store.reading() as tx:
        assert [e.epoch for e in tx.events.read(Epoch(0))] == list(range(1, 41))


def test_a_token_is_spent_once_and_never_after_its_end(store: Store) -> None:
    with store.writing() as tx:
        tx.tokens.add(_token(), secret_hash=b"h" * 32)
        found = tx.tokens.find(b"h" * 32, now=NOW)
        assert found == _token()
        assert not tx.tokens.spend("0" * 16, now=NOW + timedelta(minutes=15))
        assert tx.tokens.spend("0" * 16, now=NOW)
        assert not tx.tokens.spend("0" * 16, now=NOW)
        assert not tx.tokens.cancel("0" * 16, now=NOW)
    with store.reading() as tx:
        assert [t.status for t in tx.tokens.all(now=NOW)] == [TokenStatus.USED]


def test_a_second_coordinator_on_the_same_database_is_refused_until_the_first_is_gone(
    database_url: str,
) -> None:
    first = open_store(database_url)
    with pytest.raises(Conflict, match="in use by another coordinator") as refusal:
        open_store(database_url)
    assert refusal.value.reason == "database-in-use"
    first.close()
    open_store(database_url).close()


def test_a_coordinator_that_lost_its_lock_unawares_cannot_write(database_url: str) -> None:
    first = open_store(database_url)
    assert first._hold is not None
    first._hold.release()  # as when PostgreSQL drops the session, or somebody removes the lock file
    first._hold = None
    with open_store(database_url) as second:
        with pytest.raises(StorageUnavailable, match="taken this database over"), first.writing():
            pytest.fail("wrote without holding the database")
        _append(second)
    first.close()


def test_state_of_another_trust_domain_is_refused(store: Store) -> None:
    store.claim(TrustDomain("hospitals.example"))
    store.claim(TrustDomain("hospitals.example"))
    with pytest.raises(Conflict, match=r"banks\.example"):
        store.claim(TrustDomain("banks.example"))


def test_a_store_opens_again_with_what_was_written(database_url: str) -> None:
    with open_store(database_url) as store:
        _append(store)
    with open_store(database_url) as store, store.reading() as tx:
        assert tx.events.head == 1


def test_migrations_make_exactly_the_tables_that_the_code_knows(database_url: str) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    open_store(database_url).close()
    engine = create_engine(database_url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
        assert set(inspect(connection).get_table_names()) == {*metadata.tables, "alembic_version"}
    engine.dispose()


def test_a_newer_schema_is_refused_and_left_alone(database_url: str) -> None:
    open_store(database_url).close()
    engine = create_engine(database_url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(Conflict) as refusal:
        open_store(database_url)
    assert refusal.value.reason == "schema-newer"
    with engine.connect() as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one() == "9999"
    engine.dispose()


def test_somebody_elses_tables_are_refused(database_url: str) -> None:
    engine = create_engine(database_url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE head (id INTEGER)"))
    engine.dispose()
    if database_url.startswith("sqlite"):
        Path(database_url.removeprefix("sqlite:///")).chmod(0o600)
    with pytest.raises(Conflict) as refusal:
        open_store(database_url)
    assert refusal.value.reason == "schema-foreign"


def test_a_commit_that_the_database_refuses_is_unavailable_and_leaves_nothing(store: Store) -> None:
    """The database itself says no: read-only, as after a failover or a remount."""
    sqlite = store._engine.dialect.name == "sqlite"

    @event.listens_for(store._engine, "begin")
    def read_only(connection) -> None:
        if sqlite:
            connection.exec_driver_sql("PRAGMA query_only=ON")
        else:
            connection.exec_driver_sql("SET TRANSACTION READ ONLY")

    with pytest.raises(StorageUnavailable, match="read") as refusal, store.writing() as tx:
        tx.events.append(_event(1))
    assert refusal.value.reason == "storage-unavailable"
    assert "read-only" in str(refusal.value.hint)
    event.remove(store._engine, "begin", read_only)
    store._engine.dispose()
    with store.reading() as tx:
        assert tx.events.read(Epoch(0)) == ()


def test_a_memory_store_holds_its_state_while_it_is_open() -> None:
    with open_store("sqlite://") as store:
        threads = [threading.Thread(target=_append, args=(store,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with store.reading() as tx:
            assert tx.events.head == 8
    with open_store("sqlite://") as other, other.reading() as tx:
        assert tx.events.head == 0


@pytest.mark.parametrize(
    "url", ["mysql://root:hunter2@h/x", "sqlite+pysqlcipher:///x", "://", "postgresql+asyncpg://h/x"]
)
def test_other_databases_are_refused_without_repeating_a_password(url: str) -> None:
    with pytest.raises(Malformed) as refusal:
        open_store(url)
    assert "hunter2" not in str(refusal.value)


def test_a_plain_postgresql_url_takes_our_driver() -> None:
    assert parse_url("postgresql://h/x").drivername == "postgresql+psycopg"


# --- what only a file can do -------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    return tmp_path


def test_every_file_is_private(folder: Path) -> None:
    with open_store(str(folder / "deep" / "state.db")) as store:
        _append(store)
        names = {path.name: path.stat().st_mode & 0o777 for path in (folder / "deep").iterdir()}
        assert {"state.db", "state.db-wal", "state.db.lock"} <= set(names)
        assert set(names.values()) == {0o600}
        assert (folder / "deep").stat().st_mode & 0o777 == 0o700


def test_a_file_or_folder_that_others_can_read_is_refused(folder: Path) -> None:
    open_store(str(folder / "state.db")).close()
    (folder / "state.db").chmod(0o644)
    with pytest.raises(StorageUnavailable, match="owner only"):
        open_store(str(folder / "state.db"))
    (folder / "state.db").chmod(0o600)
    folder.chmod(0o755)
    with pytest.raises(StorageUnavailable, match="private"):
        open_store(str(folder / "state.db"))


def test_commits_are_synchronous_and_foreign_keys_are_on(folder: Path) -> None:
    with open_store(str(folder / "state.db")) as store, store._engine.connect() as connection:
        for pragma, value in (("journal_mode", "wal"), ("synchronous", 2), ("foreign_keys", 1)):
            assert connection.exec_driver_sql(f"PRAGMA {pragma}").scalar_one() == value


def test_a_full_disk_is_unavailable_and_leaves_the_old_state_whole(folder: Path) -> None:
    with open_store(str(folder / "state.db")) as store:
        _append(store)
        size = (folder / "state.db").stat().st_size
        with _files_no_larger_than(size + 16_384), pytest.raises(StorageUnavailable) as refusal:
            _append_many(store)
        assert refusal.value.hint is not None
        with store.reading() as tx:
            head = tx.events.head
            assert [e.epoch for e in tx.events.read(Epoch(0))] == list(range(1, head + 1))
        _append(store)  # and it goes on once there is space
    assert sqlite3.connect(folder / "state.db").execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_database_that_another_process_locks_is_unavailable(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fltrust.storage.engine.BUSY_TIMEOUT_SECONDS", 0.05)
    with open_store(str(folder / "state.db")) as store:
        other = sqlite3.connect(folder / "state.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageUnavailable, match="locked") as refusal:
            _append(store)
        assert "another process" in str(refusal.value.hint)
        other.execute("ROLLBACK")
        _append(store)
        other.close()


def test_a_file_that_is_no_database_is_unavailable_and_left_alone(folder: Path) -> None:
    path = folder / "state.db"
    path.write_bytes(b"this is a letter to a friend, not a database" * 40)
    path.chmod(0o600)
    with pytest.raises(StorageUnavailable, match="not a database"):
        open_store(str(path))
    assert path.read_bytes().startswith(b"this is a letter")


def test_a_killed_process_gives_the_file_up_and_what_it_acknowledged_is_there(folder: Path) -> None:
    program = (
        "import sys; sys.path[:0] = sys.argv[2:]\n"
        "from test_store import _append\n"
        "from fltrust.storage import open_store\n"
        "store = open_store(sys.argv[1])\n"
        "for n in range(1, 10**6):\n"
        "    _append(store); print(n, flush=True)\n"
    )
    path = folder / "state.db"
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(path), str(Path(__file__).parent)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    acknowledged = 0
    for line in process.stdout:
        acknowledged = int(line)
        if acknowledged >= 20:
            break
    process.kill()
    acknowledged = max([acknowledged, *(int(line) for line in process.stdout.read().split())])
    process.wait()
    with open_store(str(path)) as store, store.reading() as tx:
        epochs = [e.epoch for e in tx.events.read(Epoch(0))]
    assert epochs == list(range(1, len(epochs) + 1))
    assert len(epochs) >= acknowledged


def _append(store: Store, **changes: object) -> None:
    with store.writing() as tx:
        tx.events.append(_event(tx.events.head + 1, **changes))


def _append_many(store: Store) -> None:
    for _ in range(100):
        _append(store, node_key=b"x" * 8_192)


def _event(epoch: int, **changes: object) -> TrustEvent:
    return TrustEvent(Epoch(epoch), EventKind.ENROLLED, NOW, subject=WHO, **changes)  # type: ignore[arg-type]


def _token() -> TokenRecord:
    return TokenRecord(
        token_id="0" * 16,
        role=Role.PARTICIPANT,
        name=Name("site-a"),
        created_at=NOW,
        expires_at=NOW + timedelta(minutes=15),
        created_by=None,
        replace=False,
        status=TokenStatus.PENDING,
    )


@contextmanager
def _files_no_larger_than(limit: int) -> Iterator[None]:
    """A full disk as the kernel gives it to a process: every write past `limit` bytes of a file fails."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
