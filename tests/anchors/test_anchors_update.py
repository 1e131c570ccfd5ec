"""Trust anchors that old anchors replace: every rule has somebody who tries to get round it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from path_world import DAY, MADE, NOW

from fltrust.anchors.update import (
    AnchorUpdate,
    add_signature,
    anchors_digest,
    apply_update,
    apply_updates,
    sign_update,
)
from fltrust.errors import (
    CertificateRefused,
    Conflict,
    InvalidInput,
    Malformed,
    Oversized,
    QuorumNotMet,
    Refused,
    SignatureInvalid,
    StatementRefused,
)
from fltrust.identity import TrustDomain
from fltrust.keys import FileSigner, generate
from fltrust.pki import TrustBundle, create_root, make_bundle

DOMAIN = TrustDomain("hospitals.example")


def anchor(domain: str = DOMAIN, *, made: Any = MADE) -> tuple[FileSigner, Any]:
    signer = generate()
    return signer, create_root(TrustDomain(domain), signer=signer, now=made)


OLD, SECOND, THIRD, NEW, STRANGER = (anchor() for _ in range(5))
BEFORE = make_bundle(DOMAIN, [OLD[1]], sequence=4)
BOTH = make_bundle(DOMAIN, [OLD[1], NEW[1]], sequence=5)


def update(after: TrustBundle = BOTH, before: TrustBundle = BEFORE, **changes: Any) -> AnchorUpdate:
    return replace(AnchorUpdate(bundle=after, previous=anchors_digest(before), issued_at=NOW), **changes)


def signed(*who: tuple[FileSigner, Any], **changes: Any) -> bytes:
    return sign_update(update(**changes), signers=[signer for signer, _ in who])


def test_an_update_that_the_old_anchor_and_the_new_one_signed_takes_effect() -> None:
    assert apply_update(BEFORE, signed(OLD, NEW), at=NOW) == BOTH


def test_signatures_may_be_gathered_one_by_one() -> None:
    first = signed(OLD)
    with pytest.raises(QuorumNotMet):
        apply_update(BEFORE, first, at=NOW)
    assert apply_update(BEFORE, add_signature(first, signer=NEW[0]), at=NOW) == BOTH
    with pytest.raises(Conflict):
        add_signature(first, signer=OLD[0])


@pytest.mark.parametrize("who", [(NEW,), (STRANGER,), (STRANGER, NEW), ()])
def test_without_the_old_anchors_nothing_changes(who: tuple[Any, ...]) -> None:
    with pytest.raises(QuorumNotMet):
        apply_update(BEFORE, signed(*who), at=NOW)


def test_more_than_half_of_the_old_anchors_must_sign() -> None:
    before = make_bundle(DOMAIN, [OLD[1], SECOND[1], THIRD[1]], sequence=4)
    with pytest.raises(QuorumNotMet):
        apply_update(before, signed(OLD, NEW, before=before), at=NOW)
    assert apply_update(before, signed(OLD, THIRD, NEW, before=before), at=NOW) == BOTH
    assert apply_update(before, signed(OLD, NEW, before=before), at=NOW, needed=1) == BOTH
    with pytest.raises(QuorumNotMet):
        apply_update(before, signed(OLD, THIRD, NEW, before=before), at=NOW, needed=3)
    with pytest.raises(QuorumNotMet):
        apply_update(before, signed(NEW, before=before), at=NOW, needed=0)


def test_one_key_with_two_certificates_counts_once() -> None:
    twin = create_root(DOMAIN, signer=OLD[0], now=MADE)
    before = make_bundle(DOMAIN, [OLD[1], twin, SECOND[1]], sequence=4)
    with pytest.raises(QuorumNotMet):
        apply_update(before, signed(OLD, NEW, before=before), at=NOW)


def test_an_anchor_that_is_over_signs_nothing_any_more() -> None:
    ended = anchor(made=NOW - 4000 * DAY)
    before = make_bundle(DOMAIN, [ended[1]], sequence=4)
    with pytest.raises(QuorumNotMet):
        apply_update(before, signed(ended, NEW, before=before), at=NOW)


def test_a_stranger_among_the_signers_or_a_signature_that_does_not_hold_refuses_all() -> None:
    with pytest.raises(SignatureInvalid):
        apply_update(BEFORE, signed(OLD, NEW, STRANGER), at=NOW)
    other = signed(OLD, NEW, issued_at=NOW - DAY)
    mixed = signed(OLD, NEW)
    mixed = mixed[: mixed.index(b'"signatures"')] + other[other.index(b'"signatures"') :]
    with pytest.raises(SignatureInvalid):
        apply_update(BEFORE, mixed, at=NOW)


def test_updates_form_one_chain_none_left_out_none_twice_none_of_another_history() -> None:
    third = make_bundle(DOMAIN, [NEW[1]], sequence=6)
    first, second = signed(OLD, NEW), signed(OLD, NEW, after=third, before=BOTH)
    assert apply_updates(BEFORE, [first, second], at=NOW) == third
    assert apply_updates(BOTH, [first, second], at=NOW) == third
    assert apply_updates(third, [first, second], at=NOW) == third
    for wrong in ([second], [second, first]):
        with pytest.raises((Conflict, QuorumNotMet, SignatureInvalid)):
            apply_updates(BEFORE, wrong, at=NOW)
    with pytest.raises(Conflict):
        apply_update(BOTH, first, at=NOW)
    elsewhere = make_bundle(DOMAIN, [OLD[1], SECOND[1]], sequence=4)
    with pytest.raises(Conflict):
        apply_update(BEFORE, signed(OLD, NEW, before=elsewhere), at=NOW)
    skipped = make_bundle(DOMAIN, [NEW[1]], sequence=7)
    with pytest.raises(Conflict):
        apply_update(BEFORE, signed(OLD, NEW, after=skipped), at=NOW)


def test_an_update_of_another_domain_or_from_the_future_is_refused() -> None:
    foreign = anchor("clinics.example")
    other = make_bundle(TrustDomain("clinics.example"), [foreign[1]], sequence=5)
    with pytest.raises(Conflict):
        apply_update(BEFORE, signed(OLD, foreign, after=other), at=NOW)
    smuggled = make_bundle(DOMAIN, [OLD[1], foreign[1]], sequence=5)
    with pytest.raises(CertificateRefused):
        apply_update(BEFORE, signed(OLD, foreign, after=smuggled), at=NOW)
    with pytest.raises(StatementRefused):
        apply_update(BEFORE, signed(OLD, NEW, issued_at=NOW + timedelta(seconds=1)), at=NOW)


def test_a_set_without_an_anchor_that_is_valid_is_refused() -> None:
    later = anchor(made=NOW + 5 * DAY)
    after = make_bundle(DOMAIN, [later[1]], sequence=5)
    with pytest.raises(CertificateRefused):
        apply_update(BEFORE, signed(OLD, later, after=after), at=NOW)


def test_what_is_no_update_is_refused_unread() -> None:
    good = signed(OLD, NEW)
    with pytest.raises(Oversized):
        apply_update(BEFORE, b" " * (512 * 1024 + 1), at=NOW)
    wrong_type = good.replace(b"vnd.fltrust.trust-anchors", b"vnd.in-toto")
    for wrong in (b"", b"{}", good + b" ", wrong_type, good.replace(b'"keyid"', b'"kid"')):
        with pytest.raises((InvalidInput, Refused)):
            apply_update(BEFORE, wrong, at=NOW)
    with pytest.raises(Malformed):
        apply_updates(BEFORE, [good] * 257, at=NOW)


def test_every_flipped_byte_of_a_signed_update_is_noticed() -> None:
    good = signed(OLD, NEW)
    for place in range(0, len(good), 97):
        forged = bytearray(good)
        forged[place] ^= 1
        with pytest.raises((InvalidInput, Refused)):
            apply_update(BEFORE, bytes(forged), at=NOW)


def test_a_statement_is_read_back_in_one_form_only() -> None:
    payload = update().to_payload()
    assert AnchorUpdate.from_payload(payload) == update()
    with pytest.raises(StatementRefused):
        AnchorUpdate.from_payload(payload.replace(b"trust-anchors:v1", b"trust-anchors:v2"))
    with pytest.raises(Malformed):
        AnchorUpdate.from_payload(payload.replace(b'"sequence":"5"', b'"sequence":5'))
