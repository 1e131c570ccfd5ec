"""Whatever happens in whatever order: status says of every certificate what the trust feed says of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fltrust.clock import Clock
from fltrust.coordinator.ca import CurrentCa
from fltrust.coordinator.ledger import Ledger
from fltrust.coordinator.logbook import Logbook
from fltrust.coordinator.public_names import PublicNaming
from fltrust.coordinator.status.office import StatusOffice
from fltrust.enrollment.ports import CertificateRecord
from fltrust.identity import Epoch, KeyId, Role, Serial, SpiffeId
from fltrust.pki.pointers import key_identifier_of
from fltrust.revocation.events import EventKind, RevocationReason
from fltrust.revocation.state import Standing, TrustState
from fltrust.storage import open_store
from fltrust.testing.identities import DOMAIN, ScratchCa

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
CERTIFICATES = range(1, 6)
WHO = SpiffeId.of(DOMAIN, Role.PARTICIPANT, "site-a")
SUBSETS = st.sets(st.sampled_from(list(CERTIFICATES)), min_size=1)
ACTS = st.one_of(
    st.tuples(
        st.sampled_from(["revoke", "hold", "release", "revoke key", "hold key", "release key"]), SUBSETS
    ),
    st.tuples(
        st.sampled_from(["hold all", "release all", "revoke all", "complete", "delta", "restart", "wait"]),
        st.just(set[int]()),
    ),
)


class _Clock(Clock):
    def __init__(self) -> None:
        self.at = NOW

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return (self.at - NOW).total_seconds()


@pytest.fixture(scope="module")
def ca() -> ScratchCa:
    return ScratchCa.make(now=NOW)


@example(acts=[("hold key", {1}), ("release", {1})])
@example(acts=[("hold all", set()), ("release", {1})])
@example(acts=[("hold all", set()), ("release", {1}), ("release all", set())])
@example(acts=[("complete", set()), ("hold key", {1}), ("delta", set()), ("release key", {1})])
@settings(max_examples=60, deadline=None)
@given(acts=st.lists(ACTS, max_size=14))
def test_lists_deltas_and_answers_agree_with_the_feed(
    ca: ScratchCa, acts: list[tuple[str, set[int]]]
) -> None:
    clock, issuer = _Clock(), key_identifier_of(ca.issuer.certificate)
    book = Logbook(ca.bundle.domain, PublicNaming())
    with open_store("sqlite://") as store:
        ledger = Ledger(store, clock, book)
        with ledger.writing() as work:
            work.emit(EventKind.ENROLLED, actor=None, subject=WHO)
            for number in CERTIFICATES:
                work.tx.certificates.add(
                    CertificateRecord(
                        serial=Serial(number),
                        spiffe_id=WHO,
                        key_id=_key(number),
                        not_before=NOW,
                        not_after=NOW + timedelta(days=9),
                        der=b"%d" % number,
                        issuer=issuer,
                    )
                )

        def open_office() -> StatusOffice:
            return StatusOffice(ledger=ledger, ca=CurrentCa(ca.issuer, ca.bundle))

        office, lists, highest = open_office(), [], 0
        for act, which in acts:
            clock.at += timedelta(seconds=1)
            if act == "restart":
                office, lists = open_office(), []
                assert _number(x509.load_der_x509_crl(office.complete_crl(issuer).der)) > highest
            elif act == "wait":
                clock.at += timedelta(hours=4)
            elif act == "complete":
                crl = x509.load_der_x509_crl(office.complete_crl(issuer).der)
                lists.append(crl)
                highest = max(highest, _number(crl))
            elif act == "delta":
                highest = max(highest, _number(x509.load_der_x509_crl(office.delta_crl(issuer).der)))
            else:
                _emit(ledger, act, which)
        with store.reading() as tx:
            state = TrustState.replay(tx.events.read(Epoch(0)))
        barred = {number for number in CERTIFICATES if _is_barred(state, number)}
        delta = x509.load_der_x509_crl(office.delta_crl(issuer).der)
        assert _listed(x509.load_der_x509_crl(office.complete_crl(issuer).der)) == barred
        base = delta.extensions.get_extension_for_class(x509.DeltaCRLIndicator).value.crl_number
        for crl in lists:
            if base <= _number(crl) < _number(delta):
                removed = _listed(delta, removed=True)
                assert (_listed(crl) | _listed(delta)) - removed == barred


def _is_barred(state: TrustState, number: int) -> bool:
    """As `TrustState.judge` has it: by the identity, the serial or the key."""
    return (
        not state.is_active(WHO)
        or state.serial_standing(Serial(number)) is not Standing.ACTIVE
        or state.key_standing(_key(number)) is not Standing.ACTIVE
    )


def _emit(ledger: Ledger, act: str, which: set[int]) -> None:
    """An event as `fltrust.coordinator.standing` makes them."""
    word, _, what = act.partition(" ")
    kind = {"revoke": EventKind.REVOKED, "hold": EventKind.HELD, "release": EventKind.RELEASED}[word]
    with ledger.writing() as work:
        serials = [Serial(number) for number in sorted(which or CERTIFICATES)]
        keys = [_key(number) for number in sorted(which)] if what == "key" else []
        if kind is EventKind.RELEASED and what == "all":
            if work.state.identities[WHO].standing is Standing.REVOKED:
                return
            state = work.state
            serials = [s for s in serials if state.serial_standing(s) is Standing.HELD]
            keys = [k for k in map(_key, CERTIFICATES) if state.key_standing(k) is Standing.HELD]
        work.emit(
            kind,
            actor=None,
            subject=WHO,
            identity_wide=what == "all",
            serials=tuple(serials),
            keys=tuple(keys),
            reason=RevocationReason.KEY_COMPROMISE if kind is EventKind.REVOKED else None,
        )


def _key(number: int) -> KeyId:
    return KeyId(f"{number:064x}")


def _number(crl: x509.CertificateRevocationList) -> int:
    return crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


def _listed(crl: x509.CertificateRevocationList, *, removed: bool = False) -> set[int]:
    found = set()
    for entry in crl:
        try:
            reason = entry.extensions.get_extension_for_class(x509.CRLReason).value.reason
        except x509.ExtensionNotFound:
            reason = None
        if (reason is x509.ReasonFlags.remove_from_crl) is removed:
            found.add(entry.serial_number)
    return found
