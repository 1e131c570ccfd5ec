"""What the trust feed says is what everybody answers; unknown is no."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from fltrust.errors import CertificateRefused, Conflict, Malformed, Revoked
from fltrust.identity import CaKeyId, Digest, Epoch, KeyId, Role, RunId, Serial, SpiffeId
from fltrust.pki.types import VerifiedCertificate
from fltrust.revocation import EventKind, RevocationReason, Standing, TrustEvent, TrustState

CA = CaKeyId("ca" * 20)
NOW = datetime(2026, 1, 1, tzinfo=UTC)
ALICE = SpiffeId.of("hospitals.example", Role.PARTICIPANT, "alice")
BOB = SpiffeId.of("hospitals.example", Role.PARTICIPANT, "bob")
COORDINATOR = SpiffeId.of("hospitals.example", Role.COORDINATOR)


def certificate(who: SpiffeId, serial: int = 1) -> VerifiedCertificate:
    return VerifiedCertificate(
        spiffe_id=who,
        serial=Serial(serial),
        key_id=KeyId.of_spki(f"{who}{serial}".encode()),
        not_before=NOW,
        not_after=NOW,
        fingerprint=Digest.sha256_of(b"der"),
        chain=(),
        issuers=(CA,),
    )


def state_of(*events: TrustEvent) -> TrustState:
    return TrustState.replay(replace(e, epoch=Epoch(i)) for i, e in enumerate(events, start=1))


def event(kind: EventKind, subject: SpiffeId | None = ALICE, **more: object) -> TrustEvent:
    return TrustEvent(Epoch(1), kind, NOW, subject=subject, **more)  # type: ignore[arg-type]


ENROLLED = event(EventKind.ENROLLED, node_key=b"alice's node key")
REVOKED = event(
    EventKind.REVOKED, identity_wide=True, serials=(Serial(1),), reason=RevocationReason.KEY_COMPROMISE
)
HELD = event(EventKind.HELD, identity_wide=True)
RELEASED = event(EventKind.RELEASED, identity_wide=True)


def test_an_enrolled_participant_stands_well() -> None:
    state_of(ENROLLED).judge(certificate(ALICE))


def test_an_identity_that_was_never_enrolled_is_refused() -> None:
    with pytest.raises(CertificateRefused) as refused:
        state_of(ENROLLED).judge(certificate(BOB))
    assert refused.value.reason == "unknown-identity"


def test_the_coordinator_is_known_by_its_path_alone() -> None:
    TrustState().judge(certificate(COORDINATOR))


def test_a_revoked_identity_is_refused_with_any_certificate() -> None:
    state = state_of(ENROLLED, REVOKED)
    for serial in (1, 2):
        with pytest.raises(Revoked, match="epoch 2"):
            state.judge(certificate(ALICE, serial))


def test_a_revoked_certificate_stays_revoked_when_its_identity_is_enrolled_anew() -> None:
    state = state_of(ENROLLED, REVOKED, ENROLLED)
    with pytest.raises(Revoked):
        state.judge(certificate(ALICE, 1))
    state.judge(certificate(ALICE, 2))


def test_one_revoked_serial_or_key_leaves_the_others_standing() -> None:
    by_serial = state_of(ENROLLED, event(EventKind.REVOKED, serials=(Serial(7),)))
    by_key = state_of(ENROLLED, event(EventKind.REVOKED, keys=(certificate(ALICE, 7).key_id,)))
    for state in (by_serial, by_key):
        with pytest.raises(Revoked):
            state.judge(certificate(ALICE, 7))
        state.judge(certificate(ALICE, 8))


def test_a_hold_refuses_until_it_is_released() -> None:
    with pytest.raises(Revoked) as refused:
        state_of(ENROLLED, HELD).judge(certificate(ALICE))
    assert refused.value.reason == "held"
    state_of(ENROLLED, HELD, RELEASED).judge(certificate(ALICE))


def test_a_release_does_not_undo_a_revocation() -> None:
    for events in [
        (ENROLLED, REVOKED, RELEASED),
        (ENROLLED, HELD, REVOKED, RELEASED),
        (ENROLLED, REVOKED, HELD, RELEASED),
    ]:
        with pytest.raises(Revoked):
            state_of(*events).judge(certificate(ALICE))


def test_a_gap_or_a_repetition_changes_nothing() -> None:
    state = state_of(ENROLLED)
    for epoch in (1, 3):
        with pytest.raises(Conflict) as refused:
            state.apply(replace(REVOKED, epoch=Epoch(epoch)))
        assert refused.value.reason == "epoch-gap"
    assert state.epoch == 1
    assert state.identities[ALICE].standing is Standing.ACTIVE


def test_redacted_events_keep_the_sequence() -> None:
    assert state_of(ENROLLED, event(EventKind.REDACTED, None), REVOKED).epoch == 3


def test_runs_open_and_close() -> None:
    opened = event(EventKind.RUN_OPENED, None, run_id=RunId(5))
    closed = event(EventKind.RUN_CLOSED, None, run_id=RunId(5))
    assert state_of(opened).open_runs == {5}
    assert state_of(opened, closed).open_runs == set()


def test_a_run_has_the_owner_who_opened_it_for_as_long_as_it_is_open() -> None:
    opened = replace(event(EventKind.RUN_OPENED, None, run_id=RunId(5)), actor=ALICE)
    closed = event(EventKind.RUN_CLOSED, None, run_id=RunId(5))
    assert state_of(opened).run_owner(RunId(5)) == ALICE
    assert state_of(opened).run_owner(RunId(6)) is None
    assert state_of(opened, closed).run_owner(RunId(5)) is None


def test_an_event_without_its_subject_or_run_is_malformed() -> None:
    for broken in (event(EventKind.ENROLLED, None), event(EventKind.RUN_OPENED, None)):
        state = TrustState()
        with pytest.raises(Malformed):
            state.apply(broken)
        assert state.epoch == 0


def test_a_node_key_leads_to_its_participant_whatever_the_standing() -> None:
    state = state_of(ENROLLED, REVOKED)
    known = state.participant_of(KeyId.of_spki(b"alice's node key"))
    assert known is not None
    assert (known.spiffe_id, known.standing) == (ALICE, Standing.REVOKED)
    assert state.participant_of(KeyId.of_spki(b"another")) is None


CA_REVOKED = event(
    EventKind.ISSUER_REVOKED, None, domain=ALICE.domain, issuer=CA, reason=RevocationReason.KEY_COMPROMISE
)


@pytest.mark.parametrize("who", [ALICE, COORDINATOR])
def test_nobody_that_a_revoked_ca_vouches_for_is_believed_the_coordinator_least_of_all(who: SpiffeId) -> None:
    with pytest.raises(CertificateRefused, match="CA"):
        state_of(ENROLLED, CA_REVOKED).judge(certificate(who))


def test_a_ca_stays_revoked_when_those_under_it_are_enrolled_anew() -> None:
    with pytest.raises(CertificateRefused):
        state_of(ENROLLED, CA_REVOKED, ENROLLED).judge(certificate(ALICE))


def test_a_certificate_of_another_ca_stands_well_when_one_is_revoked() -> None:
    state_of(ENROLLED, CA_REVOKED).judge(replace(certificate(ALICE), issuers=(CaKeyId("0b" * 20),)))


def test_a_revoked_ca_anywhere_on_the_path_is_enough() -> None:
    with pytest.raises(CertificateRefused):
        state_of(ENROLLED, CA_REVOKED).judge(replace(certificate(ALICE), issuers=(CaKeyId("0b" * 20), CA)))


def test_a_changed_bundle_changes_nobodys_standing() -> None:
    state_of(ENROLLED, event(EventKind.BUNDLE_CHANGED, None, domain=ALICE.domain, sequence=2)).judge(
        certificate(ALICE)
    )


def test_a_certificate_found_on_record_does_not_rest_on_the_word_of_its_ca() -> None:
    state_of(ENROLLED, CA_REVOKED).judge(certificate(ALICE), is_on_record=True)
    with pytest.raises(Revoked):
        state_of(ENROLLED, CA_REVOKED, REVOKED).judge(certificate(ALICE), is_on_record=True)
