"""How identities of other trust domains stand: what one domain says binds nobody of another."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from fltrust.errors import CertificateRefused, FltrustError, Malformed, Refusal, Revoked
from fltrust.identity import CaKeyId, Digest, Epoch, KeyId, Role, Serial, SpiffeId, TrustDomain
from fltrust.pki.types import VerifiedCertificate
from fltrust.revocation.events import EventKind, TrustEvent
from fltrust.revocation.state import Standing, TrustState

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOME, CLINIC = TrustDomain("hospitals.example"), TrustDomain("clinic.example")
OPERATOR = SpiffeId.of(HOME, Role.OPERATOR, "root")
THEIRS = SpiffeId.of(CLINIC, Role.COORDINATOR)
SITE = SpiffeId.of(HOME, Role.PARTICIPANT, "site-a")
WARD = SpiffeId.of(CLINIC, Role.PARTICIPANT, "ward-1")
CA = CaKeyId("ab" * 20)
NODE = b"a node key"


class Feed:
    """Events one after the other, folded."""

    def __init__(self) -> None:
        self.state = TrustState()
        self.say(EventKind.ENROLLED, actor=OPERATOR, subject=SITE, node_key=b"another")
        self.say(EventKind.ENROLLED, actor=OPERATOR, subject=WARD, node_key=NODE)

    def say(self, kind: EventKind, **fields: object) -> None:
        at = fields.pop("at", NOW)
        self.state.apply(TrustEvent(self.state.epoch.next(), kind, at, **fields))  # type: ignore[arg-type]

    def refusal(self, certificate: VerifiedCertificate) -> str | None:
        try:
            self.state.judge(certificate)
        except FltrustError as error:
            return error.reason
        return None

    def standing(self, who: SpiffeId) -> Standing:
        return self.state.identities[who].standing


def certificate(who: SpiffeId, *, serial: int = 7, began: datetime = NOW) -> VerifiedCertificate:
    return VerifiedCertificate(
        spiffe_id=who,
        serial=Serial(serial),
        key_id=KeyId("cd" * 32),
        not_before=began - timedelta(seconds=60),
        not_after=began + timedelta(hours=1),
        fingerprint=Digest("sha256", b"\x00" * 32),
        chain=(),
        issuers=(CA,),
    )


def test_an_admitted_participant_of_another_domain_stands_well() -> None:
    feed = Feed()
    assert feed.refusal(certificate(WARD)) is None
    assert feed.refusal(certificate(replace(WARD, name=SITE.name))) == Refusal.UNKNOWN_IDENTITY


def test_what_a_domain_says_of_serials_and_keys_binds_its_own_certificates_alone() -> None:
    feed = Feed()
    feed.say(EventKind.REVOKED, actor=THEIRS, subject=WARD, serials=(Serial(7),), keys=(KeyId("cd" * 32),))
    assert feed.refusal(certificate(WARD)) == Refusal.REVOKED
    assert feed.refusal(certificate(SITE)) is None


def test_what_a_domain_says_of_a_ca_binds_its_own_certificates_alone() -> None:
    feed = Feed()
    feed.say(EventKind.ISSUER_REVOKED, actor=THEIRS, domain=CLINIC, issuer=CA)
    assert feed.refusal(certificate(WARD)) == Refusal.ISSUER_REVOKED
    assert feed.refusal(certificate(SITE)) is None


def test_a_release_of_one_domain_s_serial_leaves_another_s_on_hold() -> None:
    feed = Feed()
    feed.say(EventKind.HELD, actor=OPERATOR, subject=SITE, serials=(Serial(7),))
    feed.say(EventKind.RELEASED, actor=THEIRS, subject=WARD, serials=(Serial(7),))
    assert feed.refusal(certificate(SITE)) == Refusal.HELD
    assert feed.state.serial_standing(Serial(7)) is Standing.HELD


def test_a_domain_on_hold_holds_its_participants_and_nobody_else() -> None:
    feed = Feed()
    feed.say(EventKind.DOMAIN_HELD, domain=CLINIC)
    assert feed.state.is_domain_held(CLINIC)
    assert (feed.standing(WARD), feed.standing(SITE)) == (Standing.HELD, Standing.ACTIVE)
    assert feed.refusal(certificate(WARD)) == Refusal.HELD
    assert not feed.state.is_active(WARD)
    feed.say(EventKind.DOMAIN_HELD, domain=CLINIC)
    feed.say(EventKind.DOMAIN_RELEASED, domain=CLINIC)
    assert feed.refusal(certificate(WARD)) is None


def test_whoever_was_held_or_revoked_in_the_meantime_stays_so_when_the_domain_is_released() -> None:
    for kind, standing in ((EventKind.HELD, Standing.HELD), (EventKind.REVOKED, Standing.REVOKED)):
        for is_before in (True, False):
            feed = Feed()
            if is_before:
                feed.say(kind, actor=OPERATOR, subject=WARD, identity_wide=True)
            feed.say(EventKind.DOMAIN_HELD, domain=CLINIC)
            if not is_before:
                feed.say(kind, actor=OPERATOR, subject=WARD, identity_wide=True)
            assert feed.standing(WARD) is standing
            feed.say(EventKind.DOMAIN_RELEASED, domain=CLINIC)
            assert feed.standing(WARD) is standing


def test_a_release_while_the_domain_is_on_hold_counts_when_that_ends() -> None:
    feed = Feed()
    feed.say(EventKind.HELD, actor=OPERATOR, subject=WARD, identity_wide=True)
    feed.say(EventKind.DOMAIN_HELD, domain=CLINIC)
    feed.say(EventKind.RELEASED, actor=OPERATOR, subject=WARD, identity_wide=True)
    assert feed.standing(WARD) is Standing.HELD
    feed.say(EventKind.DOMAIN_RELEASED, domain=CLINIC)
    assert feed.standing(WARD) is Standing.ACTIVE


def test_somebody_admitted_while_the_domain_is_on_hold_is_on_hold() -> None:
    feed = Feed()
    feed.say(EventKind.DOMAIN_HELD, domain=CLINIC)
    new = SpiffeId.of(CLINIC, Role.PARTICIPANT, "ward-2")
    feed.say(EventKind.ENROLLED, actor=OPERATOR, subject=new, node_key=b"third")
    assert feed.standing(new) is Standing.HELD
    feed.say(EventKind.DOMAIN_RELEASED, domain=CLINIC)
    assert feed.standing(new) is Standing.ACTIVE


def test_a_domain_that_was_never_on_hold_is_released_without_harm() -> None:
    feed = Feed()
    feed.say(EventKind.HELD, actor=OPERATOR, subject=WARD, identity_wide=True)
    feed.say(EventKind.DOMAIN_RELEASED, domain=CLINIC)
    assert feed.standing(WARD) is Standing.HELD


def test_an_event_of_a_domain_names_it() -> None:
    for kind in (EventKind.DOMAIN_HELD, EventKind.DOMAIN_RELEASED):
        with pytest.raises(Malformed):
            Feed().say(kind)


def test_a_foreign_certificate_from_before_it_was_revoked_here_is_not_revived_by_admitting_anew() -> None:
    feed = Feed()
    feed.say(EventKind.REVOKED, actor=OPERATOR, subject=WARD, identity_wide=True)
    later = NOW + timedelta(minutes=5, microseconds=7)
    feed.say(EventKind.ENROLLED, actor=OPERATOR, subject=WARD, node_key=b"a fresh one", at=later)
    with pytest.raises(Revoked, match="from before it was admitted anew"):
        feed.state.judge(certificate(WARD))
    assert feed.refusal(certificate(WARD, began=later.replace(microsecond=0))) is None


def test_a_certificate_of_our_own_may_be_as_old_as_its_enrollment() -> None:
    feed = Feed()
    feed.say(EventKind.REVOKED, actor=OPERATOR, subject=SITE, identity_wide=True)
    feed.say(EventKind.ENROLLED, actor=OPERATOR, subject=SITE, at=NOW + timedelta(minutes=5))
    assert feed.refusal(certificate(SITE, serial=8)) is None  # on record: its serial says how it stands


def test_a_coordinator_of_another_domain_is_known_by_its_path_and_held_by_no_event_of_ours() -> None:
    feed = Feed()
    feed.say(EventKind.ISSUER_REVOKED, actor=THEIRS, domain=CLINIC, issuer=CA)
    with pytest.raises(CertificateRefused):
        feed.state.judge(certificate(THEIRS))
    assert Epoch(3) == feed.state.epoch
