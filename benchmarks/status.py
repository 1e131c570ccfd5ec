"""What publishing revocation costs when a million certificates were issued and 100,000 of them revoked.

Everything on SQLite (WAL, synchronous=FULL), keys in this process. Revoking is one durable transaction for
each certificate, of which its status is part: 300 where none is revoked, beside 300 where 99,700 are, by
turns. A complete CRL is read, signed and checked; the delta CRL lists 1,000 changes (the median of five).
OCSP answers are made in one thread from requests in DER: with a nonce (looked up and signed for each) and
without one (signed before). HTTP is not in these figures.
Run it: ``python -m benchmarks.status`` prints JSON.
"""

from __future__ import annotations

import json
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from hashlib import sha1
from pathlib import Path
from typing import TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from sqlalchemy import insert

from fltrust.clock import SystemClock
from fltrust.coordinator.ca import CurrentCa
from fltrust.coordinator.ledger import Ledger
from fltrust.coordinator.logbook import Logbook
from fltrust.coordinator.public_names import PublicNaming
from fltrust.coordinator.status.office import StatusOffice
from fltrust.coordinator.status_settings import StatusSettings
from fltrust.identity import CaKeyId, Role, Serial, SpiffeId
from fltrust.pki.crl import CrlReason
from fltrust.revocation.events import EventKind, RevocationReason
from fltrust.revocation.status import CertificateStatus, IssuedSerial, StatusState
from fltrust.storage import Store, open_store, tables
from fltrust.testing.identities import DOMAIN, ScratchCa

ISSUED = 1_000_000
REVOKED = 100_000
SAMPLE = 300
CHANGES = 1_000
ANSWERS = 3_000
BATCH = 20_000
T = TypeVar("T")
WHO = SpiffeId.of(DOMAIN, Role.PARTICIPANT, "site-a")


def measure() -> dict[str, float]:
    random.seed(20_260_301)
    clock, figures = SystemClock(), {}
    ca = ScratchCa.make(now=clock.now())
    key = _key_of(ca)
    serials = [Serial(random.getrandbits(158) + 1) for _ in range(ISSUED)]
    with tempfile.TemporaryDirectory() as name:
        path, young_path = Path(name) / "state.db", Path(name) / "young.db"
        with open_store(f"sqlite:///{path}") as store:
            _issue(store, key, serials)
        shutil.copy(path, young_path)
        with open_store(f"sqlite:///{path}") as store, open_store(f"sqlite:///{young_path}") as young:
            _bar(store, key, serials[SAMPLE:REVOKED])
            ledger, other = (
                Ledger(one, clock, Logbook(ca.bundle.domain, PublicNaming())) for one in (store, young)
            )
            first, last = _revoke(other, ledger, serials[:SAMPLE])
            figures["revoke_first_ms"], figures["revoke_last_ms"] = first * 1e3, last * 1e3
            figures["revoke_last_ratio"] = last / first
            office = StatusOffice(
                ledger=ledger, ca=CurrentCa(ca.issuer, ca.bundle), settings=StatusSettings()
            )
            figures |= _lists(office, ledger, key, serials)
            figures |= _answers(office, ca, serials)
    return figures


def _lists(office: StatusOffice, ledger: Ledger, key: CaKeyId, serials: list[Serial]) -> dict[str, float]:
    figures = {}
    took, crl = _timed(lambda: office.complete_crl(key))
    figures["crl_complete_s"], figures["crl_complete_mb"] = took, len(crl.der) / 1e6
    assert len(x509.load_der_x509_crl(crl.der)) == REVOKED
    _revoke_at_once(ledger, serials[REVOKED : REVOKED + CHANGES])
    taken = []
    for serial in serials[REVOKED + CHANGES :][:5]:
        _revoke_at_once(ledger, [serial])
        took, crl = _timed(lambda: office.delta_crl(key))
        taken.append(took)
    figures["crl_delta_ms"], figures["crl_delta_kb"] = statistics.median(taken) * 1e3, len(crl.der) / 1e3
    assert len(x509.load_der_x509_crl(crl.der)) == CHANGES + 5
    return figures


def _key_of(ca: ScratchCa) -> CaKeyId:
    name = ca.issuer.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return CaKeyId(name.digest.hex())


def _issue(store: Store, key: CaKeyId, serials: list[Serial]) -> None:
    """Put certificates on record, with little in the place of their bytes."""
    now = SystemClock().now()
    for begin in range(0, len(serials), BATCH):
        rows = [
            {
                "serial": serial.hex,
                "spiffe_id": str(WHO),
                "key_id": f"{int(serial):064x}",
                "not_before": now,
                "not_after": now + timedelta(days=7),
                "der": b"0",
                "issuer": key,
            }
            for serial in serials[begin : begin + BATCH]
        ]
        with store.writing() as tx:
            tx.connection.execute(insert(tables.certificates), rows)


def _bar(store: Store, key: CaKeyId, serials: list[Serial]) -> None:
    """Revoke many without an event for each, which is not what is measured."""
    now = SystemClock().now()
    for begin in range(0, len(serials), BATCH):
        with store.writing() as tx:
            tx.statuses.put(
                CertificateStatus.of(
                    IssuedSerial(serial, key, now + timedelta(days=7)),
                    state=StatusState.REVOKED,
                    since=now,
                    reason=CrlReason.KEY_COMPROMISE,
                    invalid_since=None,
                    epoch=tx.events.head,
                )
                for serial in serials[begin : begin + BATCH]
            )


def _revoke(first: Ledger, second: Ledger, serials: list[Serial]) -> tuple[float, float]:
    """Revoke one after the other, durably, by turns in both; the medians in seconds."""
    taken: tuple[list[float], list[float]] = ([], [])
    for serial in serials:
        for ledger, times in zip((first, second), taken, strict=True):
            times.append(_timed(lambda one=ledger, s=serial: _revoke_at_once(one, [s]))[0])
    return statistics.median(taken[0]), statistics.median(taken[1])


def _revoke_at_once(ledger: Ledger, serials: list[Serial]) -> None:
    with ledger.writing() as work:
        work.emit(
            EventKind.REVOKED,
            actor=None,
            subject=WHO,
            serials=tuple(serials),
            reason=RevocationReason.KEY_COMPROMISE,
        )


def _answers(office: StatusOffice, ca: ScratchCa, serials: list[Serial]) -> dict[str, float]:
    issuer = ca.issuer.certificate
    asked = random.sample(serials, ANSWERS)
    figures = {}
    for name, nonce in (("ocsp_on_demand_per_s", b"n" * 32), ("ocsp_first_per_s", None)):
        requests = [_request(issuer, serial, nonce) for serial in asked]
        figures[name] = ANSWERS / _timed(lambda r=requests: [office.answer(one) for one in r])[0]
    again = [_request(issuer, serial, None) for serial in asked]
    figures["ocsp_presigned_per_s"] = ANSWERS / _timed(lambda: [office.answer(one) for one in again])[0]
    return figures


def _request(issuer: x509.Certificate, serial: Serial, nonce: bytes | None) -> bytes:
    name, key = _names(issuer)
    builder = ocsp.OCSPRequestBuilder().add_certificate_by_hash(name, key, int(serial), SHA1())
    if nonce is not None:
        builder = builder.add_extension(x509.OCSPNonce(nonce), critical=False)
    return builder.build().public_bytes(Encoding.DER)


def _names(issuer: x509.Certificate) -> tuple[bytes, bytes]:
    """The digests that requests name this CA by, as a client of somebody else's computes them."""
    example = ocsp.OCSPRequestBuilder().add_certificate(issuer, issuer, SHA1()).build()
    return sha1(issuer.subject.public_bytes()).digest(), example.issuer_key_hash


def _timed(call: Callable[[], T]) -> tuple[float, T]:
    began = time.perf_counter()
    found = call()
    return time.perf_counter() - began, found


if __name__ == "__main__":
    json.dump(measure(), sys.stdout, indent=2)
