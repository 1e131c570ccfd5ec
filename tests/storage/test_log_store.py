from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import pytest
from sqlalchemy import inspect, text

from fltrust.errors import Malformed, NotFound, Oversized, StorageUnavailable
from fltrust.identity import Epoch, Role, RunId, SpiffeId
from fltrust.revocation.events import EventKind, TrustEvent
from fltrust.rounds.types import RoundStatus
from fltrust.storage import Store, Transaction, open_store
from fltrust.storage.engine import make_engine, parse_url
from fltrust.tlog.merkle import inclusion_proof, leaf_hash, tree_head, verify_inclusion
from fltrust.tlog.ports import MAX_ENTRY, NewEntry

NOW = datetime(2026, 3, 1, 12, 0, 0, 123_456, tzinfo=UTC)
WHO = SpiffeId.of("hospitals.example", Role.PARTICIPANT, "site-a")


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    with open_store(database_url) as store:
        yield store


def entry(number: int, *subjects: str, kind: str = "statement", at: datetime = NOW) -> NewEntry:
    return NewEntry(kind, at, b"entry %d" % number, subjects)


def test_an_empty_log_has_the_empty_root(store: Store) -> None:
    with store.reading() as tx:
        assert (tx.tlog.head.size, tx.tlog.head.root) == (0, sha256(b"").digest())
        assert tx.tlog.read(0, 10) == ()


def test_entries_take_the_next_places_and_come_back_as_they_were_written(store: Store) -> None:
    with store.writing() as tx:
        first = tx.tlog.append((entry(0, str(WHO)), entry(1)))
    with store.writing() as tx:
        second = tx.tlog.append((entry(2, "run:1", str(WHO), str(WHO)),))
        assert tx.tlog.append(()) == ()
        assert tx.tlog.head.size == 3
    assert [logged.index for logged in (*first, *second)] == [0, 1, 2]
    with store.reading() as tx:
        assert [e.data for e in tx.tlog.read(0, 100)] == [b"entry 0", b"entry 1", b"entry 2"]
        assert [e.index for e in tx.tlog.read(1, 2)] == [1]
        (found,) = tx.tlog.find(after=1)
        assert (found.kind, found.at, found.subjects) == ("statement", NOW, ("run:1", str(WHO)))


def test_entries_are_found_by_subject_kind_and_time(store: Store) -> None:
    with store.writing() as tx:
        tx.tlog.append(
            [
                entry(n, "even" if n % 2 == 0 else "odd", kind=f"k{n % 3}", at=NOW + timedelta(seconds=n))
                for n in range(12)
            ]
        )

    def found(**query: object) -> list[int]:
        with store.reading() as tx:
            return [e.index for e in tx.tlog.find(**query)]  # type: ignore[arg-type]

    assert found() == list(range(12))
    assert found(subject="odd") == [1, 3, 5, 7, 9, 11]
    assert found(subject="odd", after=5, limit=2) == [7, 9]
    assert found(kinds=("k0", "k1"), subject="even") == [0, 4, 6, 10]
    assert found(since=NOW + timedelta(seconds=3), until=NOW + timedelta(seconds=6)) == [3, 4, 5]
    assert found(subject="nobody") == found(kinds=("none",)) == []


def test_subjects_come_back_however_many_entries_are_found(store: Store) -> None:
    with store.writing() as tx:
        tx.tlog.append([entry(n, f"subject-{n}") for n in range(1_100)])
    with store.reading() as tx:
        assert [e.subjects for e in tx.tlog.find(limit=2_000)] == [(f"subject-{n}",) for n in range(1_100)]


@pytest.mark.parametrize("sizes", [(1,) * 5, (255, 1, 1), (256, 300, 44), (700,)])
def test_whatever_the_batches_the_hashes_are_those_of_the_tree(store: Store, sizes: tuple[int, ...]) -> None:
    number = 0
    for size in sizes:
        with store.writing() as tx:
            tx.tlog.append([entry(n) for n in range(number, number + size)])
            head = tx.tlog.head
        number += size
    leaves = [leaf_hash(b"entry %d" % n) for n in range(number)]
    with store.reading() as tx:
        assert list(tx.tlog.hashes(0, 0, number)) == leaves
        full = number // 256
        tiles = [_mth(leaves[256 * i : 256 * i + 256]) for i in range(full)]
        assert list(tx.tlog.hashes(1, 0, full)) == tiles
        assert tx.tlog.head == head == tree_head(tx.tlog, number)
        assert head.root == _mth(leaves)
        proof = inclusion_proof(tx.tlog, number // 2, size=number)
    verify_inclusion(proof, leaf=leaves[number // 2], index=number // 2, head=head)


def test_hashes_that_are_not_there_are_not_made_up(store: Store) -> None:
    with store.writing() as tx:
        tx.tlog.append([entry(n) for n in range(3)])
        for level, start, end in ((0, 0, 4), (0, 3, 4), (1, 0, 1)):
            with pytest.raises(NotFound):
                tx.tlog.hashes(level, start, end)


def test_an_entry_that_does_not_fit_is_refused_with_all_of_its_batch(store: Store) -> None:
    with store.writing() as tx:
        tx.tlog.append((NewEntry("statement", NOW, bytes(MAX_ENTRY)),))
        for bad, error in (
            (NewEntry("statement", NOW, bytes(MAX_ENTRY + 1)), Oversized),
            (NewEntry("statement", NOW, b"x", ("",)), Malformed),
            (NewEntry("statement", NOW, b"x", ("s" * 257,)), Malformed),
        ):
            with pytest.raises(error):
                tx.tlog.append((entry(1), bad))
    with store.reading() as tx:
        assert tx.tlog.head.size == 1


def test_what_is_undone_leaves_no_trace_in_the_log(store: Store) -> None:
    with store.writing() as tx:
        tx.tlog.append((entry(0),))
        before = tx.tlog.head

    def fail() -> None:
        with store.writing() as tx:
            tx.tlog.append([entry(n) for n in range(1, 300)])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with store.writing() as tx:
        assert tx.tlog.head == before
        tx.tlog.append((entry(1),))
    with store.reading() as tx:
        assert [e.data for e in tx.tlog.read(0, 9)] == [b"entry 0", b"entry 1"]
        assert tx.tlog.head == tree_head(tx.tlog, 2)


def test_a_part_of_a_transaction_can_be_undone_alone(store: Store) -> None:
    def event(epoch: int) -> TrustEvent:
        return TrustEvent(Epoch(epoch), EventKind.ENROLLED, NOW, subject=WHO)

    def fail(tx: Transaction) -> None:
        with tx.attempt():
            tx.tlog.append((entry(1), entry(2)))
            tx.events.append(event(2))
            raise ZeroDivisionError

    with store.writing() as tx:
        tx.tlog.append((entry(0),))
        tx.events.append(event(1))
        with pytest.raises(ZeroDivisionError):
            fail(tx)
        with tx.attempt():
            tx.tlog.append((entry(3),))
            tx.events.append(event(2))
    with store.reading() as tx:
        assert [e.data for e in tx.tlog.read(0, 9)] == [b"entry 0", b"entry 3"]
        assert tx.tlog.head == tree_head(tx.tlog, 2)
        assert tx.events.head == 2


def test_a_log_whose_end_was_altered_is_not_written_on(database_url: str) -> None:
    with open_store(database_url) as store, store.writing() as tx:
        tx.tlog.append([entry(n) for n in range(3)])
    engine = make_engine(parse_url(database_url))
    with engine.begin() as connection:
        connection.execute(text("UPDATE head SET log_size = 4"))
    engine.dispose()
    with (
        open_store(database_url) as store,
        pytest.raises(StorageUnavailable, match="the log's end"),
        store.writing(),
    ):
        pytest.fail("wrote to a log that does not fit together")


# --- from the schema before the log --------------------------------------------------------------------


def test_receipts_of_the_interim_chain_stay_with_their_rounds(database_url: str) -> None:
    _make_0001(database_url)
    with open_store(database_url) as store:
        with store.reading() as tx:
            assert tx.tlog.head.size == 0
            sealed, opened = tx.rounds.all(RunId(7))
            assert (sealed.status, sealed.receipt) == (RoundStatus.SEALED, b"a receipt")
            assert (opened.status, opened.receipt) == (RoundStatus.OPEN, None)
            assert [r.key.step for r in tx.rounds.unlogged()] == [1]
            assert tx.rounds.places(RunId(7)) == ()
            assert tx.events.head == 1
        with store.writing() as tx:
            tx.tlog.append((entry(0),))
            tx.rounds.place(sealed.key, index=0)
            assert tx.rounds.unlogged() == ()
            assert tx.rounds.places(RunId(7)) == (0,)


def _make_0001(url: str) -> None:
    """A database as the first schema left it: one event, one sealed round, one open."""
    from alembic import command
    from alembic.config import Config

    import fltrust.storage.schema as schema

    engine = make_engine(parse_url(url))
    config = Config()
    config.set_main_option("script_location", str(Path(schema.__file__).parent / "migrations"))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        assert inspect(connection).has_table("receipts")
        main, at = "spiffe://hospitals.example/aggregator/main", _text(NOW)
        for statement in (
            f"INSERT INTO runs VALUES ('7', '{main}', 1, NULL)",
            f"INSERT INTO rounds VALUES ('7', 1, 1, 'train', 'sealed', '{main}', '{at}', 1, '{at}', 0, NULL)",
            f"INSERT INTO rounds VALUES ('7', 2, 2, 'train', 'open', '{main}', '{at}', 1, NULL, NULL, NULL)",
            "UPDATE head SET epoch = 1, seal_index = 1",
        ):
            connection.execute(text(statement))
        connection.execute(
            text("INSERT INTO receipts VALUES (0, :hash, :receipt)"),
            {"hash": bytes(32), "receipt": b"a receipt"},
        )
        connection.execute(
            text("UPDATE head SET seal_hash = :hash"),
            {"hash": bytes(32)},
        )
    engine.dispose()
    if url.startswith("sqlite"):
        Path(url.removeprefix("sqlite:///")).chmod(0o600)


def _text(at: datetime) -> str:
    return at.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _mth(leaves: list[bytes]) -> bytes:
    """RFC 6962, 2.1, word for word."""
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return sha256(b"\x01" + _mth(leaves[:split]) + _mth(leaves[split:])).digest()
