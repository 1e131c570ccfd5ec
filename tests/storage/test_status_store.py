"""Revocation status is kept on both databases: changed in place, never removed, numbered upwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import text

from fltrust import storage
from fltrust.clock import to_rfc3339
from fltrust.enrollment.ports import CertificateRecord
from fltrust.identity import CaKeyId, Epoch, KeyId, Role, Serial, SpiffeId
from fltrust.keys import generate
from fltrust.pki import Draft
from fltrust.pki.crl import CrlReason
from fltrust.pki.pointers import key_identifier_of
from fltrust.revocation.events import EventKind, RevocationReason, TrustEvent
from fltrust.revocation.status import CertificateStatus, IssuedSerial, StatusState, take_in
from fltrust.storage import CommitStep, Store, open_store
from fltrust.storage.engine import make_engine, parse_url
from fltrust.testing.identities import ScratchCa

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
CA, OTHER_CA = CaKeyId("a" * 40), CaKeyId("b" * 40)
SITE = SpiffeId.of("hospitals.example", Role.PARTICIPANT, "site-a")


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    with open_store(database_url) as store:
        yield store


def record(number: int, *, issuer: CaKeyId = CA, hours: int = 1) -> CertificateRecord:
    return CertificateRecord(
        serial=Serial(number),
        spiffe_id=SITE,
        key_id=KeyId(f"{number:064x}"),
        not_before=NOW,
        not_after=NOW + timedelta(hours=hours),
        der=b"certificate %d" % number,
        issuer=issuer,
    )


def status(number: int, *, state: StatusState = StatusState.REVOKED, epoch: int = 1) -> CertificateStatus:
    return CertificateStatus.of(
        IssuedSerial(Serial(number), CA, NOW + timedelta(hours=1)),
        state=state,
        since=NOW,
        reason=CrlReason.KEY_COMPROMISE,
        invalid_since=NOW - timedelta(hours=1),
        epoch=Epoch(epoch),
    )


def event(kind: EventKind, epoch: int, *numbers: int, issuer: CaKeyId | None = None) -> TrustEvent:
    return TrustEvent(
        epoch=Epoch(epoch),
        kind=kind,
        at=NOW,
        subject=SITE,
        serials=tuple(map(Serial, numbers)),
        reason=RevocationReason.KEY_COMPROMISE if kind is EventKind.REVOKED else None,
        issuer=issuer,
    )


def test_certificates_from_before_are_told_their_issuer(new_database: Callable[[], str]) -> None:
    url, ca = new_database(), ScratchCa.make("hospitals.example", now=NOW)
    signer = generate()
    leaf = ca.issuer.redeem(Draft.of(SITE, signer.public_key, now=NOW))
    engine = make_engine(parse_url(url))
    with engine.begin() as connection:
        config = Config()
        config.set_main_option("script_location", str(Path(storage.__file__).parent / "migrations"))
        config.attributes["connection"] = connection
        command.upgrade(config, "0002")
        connection.execute(
            text(
                "INSERT INTO certificates (serial, spiffe_id, key_id, not_before, not_after, der) "
                "VALUES (:serial, :who, :key, :start, :end, :der)"
            ),
            {
                "serial": Serial(leaf.serial_number).hex,
                "who": str(SITE),
                "key": signer.key_id,
                "start": to_rfc3339(leaf.not_valid_before_utc),
                "end": to_rfc3339(leaf.not_valid_after_utc),
                "der": leaf.public_bytes(Encoding.DER),
            },
        )
    engine.dispose()
    with open_store(url) as store, store.reading() as tx:
        found = tx.certificates.by_serial(Serial(leaf.serial_number))
        assert found is not None
        assert found.issuer == key_identifier_of(ca.issuer.certificate)


def fail_before(reached: CommitStep) -> None:
    if reached is CommitStep.BEFORE:
        raise OSError("the disk is gone")


def test_statuses_are_written_and_changed_in_place(store: Store) -> None:
    many = [status(number) for number in range(1, 1_203)]
    with store.writing() as tx:
        tx.statuses.put(many)
    with store.writing() as tx:
        tx.statuses.put([status(7, state=StatusState.RELEASED, epoch=9), status(5_000, epoch=9)])
    with store.reading() as tx:
        assert tx.statuses.get(Serial(8)) == status(8)
        assert tx.statuses.get(Serial(7)) == status(7, state=StatusState.RELEASED, epoch=9)
        assert tx.statuses.get(Serial(9_999)) is None
        assert len(tx.statuses.find(one.serial for one in many)) == len(many)
        assert len(tx.statuses.entries(CA, ends_from=NOW)) == len(many)  # one more, one released
        assert tx.statuses.entries(CA, ends_from=NOW + timedelta(hours=2)) == []
        assert tx.statuses.entries(OTHER_CA, ends_from=NOW) == []
        changed = tx.statuses.changed(CA, after=Epoch(1), ends_from=NOW)
        assert [int(one.serial) for one in changed] == [7, 5_000]


def test_what_was_issued_is_found_by_serial_key_and_ca(store: Store) -> None:
    with store.writing() as tx:
        for number in range(1, 5):
            tx.certificates.add(record(number))
        tx.certificates.add(record(5, issuer=OTHER_CA))
        tx.certificates.add(record(6, hours=-1))
    with store.reading() as tx:
        found = tx.statuses.issued(serials=[Serial(1), Serial(5), Serial(77)], keys=[record(2).key_id])
        assert {(int(one.serial), one.issuer) for one in found} == {(1, CA), (5, OTHER_CA), (2, CA)}
        assert [int(one.serial) for one in tx.statuses.unexpired_under(CA, at=NOW)] == [1, 2, 3, 4]
        issued, nothing = tx.statuses.look_up(Serial(3))
        assert (issued, nothing) == (IssuedSerial(Serial(3), CA, record(3).not_after), None)
        assert tx.statuses.look_up(Serial(77)) == (None, None)
        assert tx.certificates.by_serial(Serial(5)) == record(5, issuer=OTHER_CA)


def test_numbers_and_schedules_are_of_each_ca(store: Store) -> None:
    with store.writing() as tx:
        assert [tx.statuses.next_number(CA) for _ in range(3)] == [1, 2, 3]
        assert tx.statuses.next_number(OTHER_CA) == 1
        tx.statuses.note_scheduled(CA, NOW)
    store.on_commit = fail_before
    with pytest.raises(OSError, match="disk"), store.writing() as tx:
        tx.statuses.next_number(CA)
    store.on_commit = None
    with store.writing() as tx:
        assert tx.statuses.next_number(CA) == 4
        assert tx.statuses.progress(CA).scheduled_at == NOW
        assert tx.statuses.progress(OTHER_CA).scheduled_at is None


def test_an_event_taken_in_twice_changes_nothing_the_second_time(store: Store) -> None:
    events = [
        event(EventKind.HELD, 1, 1, 2, 3),
        event(EventKind.REVOKED, 2, 2),
        event(EventKind.RELEASED, 3, 1, 2),
        event(EventKind.HELD, 4, 2),
        event(EventKind.HELD, 5, 1),
    ]
    with store.writing() as tx:
        for number in (1, 2, 3):
            tx.certificates.add(record(number))
        for one in events:
            take_in(one, tx.statuses, home=SITE.domain)
        first = tx.statuses.find(map(Serial, (1, 2, 3)))
        assert tx.statuses.fed == 5
        assert tx.statuses.look_up(Serial(2))[1] == first[Serial(2)]
    assert {int(serial): one.state for serial, one in first.items()} == {
        1: StatusState.HELD,
        2: StatusState.REVOKED,
        3: StatusState.HELD,
    }
    with store.writing() as tx:
        for one in events:
            take_in(one, tx.statuses, home=SITE.domain)
        again = tx.statuses.find(map(Serial, (1, 2, 3)))
    assert {serial: one.state for serial, one in again.items()} == {
        serial: one.state for serial, one in first.items()
    }


def test_a_ca_is_revoked_once_with_all_that_is_valid_under_it(store: Store) -> None:
    with store.writing() as tx:
        tx.certificates.add(record(1))
        tx.certificates.add(record(2, issuer=OTHER_CA))
        take_in(event(EventKind.ISSUER_REVOKED, 1, issuer=CA), tx.statuses, home=SITE.domain)
        tx.statuses.note_issuer_revoked(CA, NOW + timedelta(days=1))
    with store.reading() as tx:
        assert tx.statuses.issuer_revoked_at(CA) == NOW
        assert tx.statuses.issuer_revoked_at(OTHER_CA) is None
        found = tx.statuses.get(Serial(1))
        assert found is not None
        assert found.reason is CrlReason.CA_COMPROMISE
        assert tx.statuses.get(Serial(2)) is None
