"""Invariants 2 and 3 on the pure state: nothing un-revokes, and unknown is no."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from fltrust.errors import FltrustError
from fltrust.identity import Digest, Epoch, KeyId, Role, Serial, SpiffeId
from fltrust.pki.types import VerifiedCertificate
from fltrust.revocation import EventKind, TrustEvent, TrustState

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PEOPLE = [SpiffeId.of("hospitals.example", Role.PARTICIPANT, n) for n in ("a", "b", "c")]
SERIALS = [Serial(i) for i in range(1, 5)]

events = st.builds(
    TrustEvent,
    epoch=st.just(Epoch(1)),
    kind=st.sampled_from([EventKind.ENROLLED, EventKind.REVOKED, EventKind.HELD, EventKind.RELEASED]),
    at=st.just(NOW),
    subject=st.sampled_from(PEOPLE),
    identity_wide=st.booleans(),
    serials=st.lists(st.sampled_from(SERIALS), max_size=2).map(tuple),
)


def certificate(who: SpiffeId, serial: Serial) -> VerifiedCertificate:
    return VerifiedCertificate(
        who, serial, KeyId.of_spki(str(serial).encode()), NOW, NOW, Digest.sha256_of(b""), (), ()
    )


def fold(history: list[TrustEvent]) -> tuple[TrustState, list[TrustEvent]]:
    state, taken = TrustState(), []
    for candidate in history:
        numbered = TrustEvent(
            epoch=state.epoch.next(),
            kind=candidate.kind,
            at=candidate.at,
            subject=candidate.subject,
            identity_wide=candidate.identity_wide,
            serials=candidate.serials,
        )
        before = state.epoch
        try:
            state.apply(numbered)
            taken.append(numbered)
        except FltrustError:
            assert state.epoch == before
    return state, taken


def is_admitted(state: TrustState, who: SpiffeId, serial: Serial) -> bool:
    try:
        state.judge(certificate(who, serial))
    except FltrustError:
        return False
    return True


@given(st.lists(events, max_size=30))
def test_a_certificate_once_revoked_is_never_admitted_again(history: list[TrustEvent]) -> None:
    state, taken = fold(history)
    for event in taken:
        if event.kind is EventKind.REVOKED:
            for serial in event.serials:
                assert not any(is_admitted(state, who, serial) for who in PEOPLE)


@given(st.lists(events, max_size=30))
def test_an_identity_once_revoked_is_admitted_only_after_a_later_enrollment(
    history: list[TrustEvent],
) -> None:
    state, taken = fold(history)
    for who in PEOPLE:
        mine = [e for e in taken if e.subject == who and (e.identity_wide or e.kind is EventKind.ENROLLED)]
        last_revoked = max((e.epoch for e in mine if e.kind is EventKind.REVOKED), default=None)
        last_enrolled = max((e.epoch for e in mine if e.kind is EventKind.ENROLLED), default=None)
        if last_enrolled is None or (last_revoked is not None and last_revoked > last_enrolled):
            assert not any(is_admitted(state, who, serial) for serial in SERIALS)


@given(st.lists(events, max_size=30))
def test_the_same_events_give_the_same_state(history: list[TrustEvent]) -> None:
    state, taken = fold(history)
    assert TrustState.replay(taken) == state
