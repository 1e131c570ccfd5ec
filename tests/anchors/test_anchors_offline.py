"""What a site that is seldom connected takes in, what it keeps, and how old that may become."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from path_world import DAY, NOW, Domain, make_domain

from fltrust.anchors.offline import OfflineBundle, OfflineView
from fltrust.anchors.update import AnchorUpdate, anchors_digest, sign_update
from fltrust.errors import (
    CertificateRefused,
    Malformed,
    Oversized,
    QuorumNotMet,
    Refusal,
    Revoked,
    StatementRefused,
)
from fltrust.keys import generate
from fltrust.pki import create_root, make_bundle
from fltrust.pki.path import PathPolicy, RevocationMode, StatusKind


@pytest.fixture(scope="module")
def domain() -> Domain:
    return make_domain()


def view_of(domain: Domain) -> OfflineView:
    return OfflineView(bundle=make_bundle(domain.name, [domain.root], sequence=1))


def bundle_of(domain: Domain, *, crls: list[bytes] | None = None, **changes: Any) -> OfflineBundle:
    asked: dict[str, Any] = {
        "domain": domain.name,
        "certificates": (domain.issuing.public_bytes(Encoding.DER),),
        "crls": tuple(crls if crls is not None else [domain.crl(), domain.crl(leaves=True)]),
        **changes,
    }
    return OfflineBundle(**asked)


def test_with_a_bundle_a_site_validates_without_a_network_until_the_crls_are_over(domain: Domain) -> None:
    view = view_of(domain).take(OfflineBundle.from_json(bundle_of(domain).to_json()), at=NOW)
    found = view.validate(domain.issue(), at=NOW)
    assert [status.kind for status in found.statuses] == [StatusKind.GOOD] * 2
    assert view.fresh_until == NOW + 7 * DAY


def test_past_that_the_mode_decides_and_says_so(domain: Domain) -> None:
    crls = [domain.crl(), domain.crl(leaves=True, next_update=NOW - timedelta(hours=3))]
    view, leaf = view_of(domain).take(bundle_of(domain, crls=crls), at=NOW), domain.issue()
    with pytest.raises(CertificateRefused) as refused:
        view.validate(leaf, at=NOW)
    assert refused.value.reason == "revocation-stale"
    soft = PathPolicy(revocation=RevocationMode.SOFT_FAIL, grace=timedelta(hours=4))
    assert "over since 3:00:00" in view.validate(leaf, at=NOW, policy=soft).warnings[0]
    with pytest.raises(CertificateRefused):
        view.validate(leaf, at=NOW + timedelta(minutes=59), policy=PathPolicy(grace=DAY))


def test_an_older_bundle_takes_nothing_back(domain: Domain) -> None:
    leaf = domain.issue()
    revoking = bundle_of(domain, crls=[domain.crl(leaf, leaves=True, number=12)])
    view = view_of(domain).take(bundle_of(domain), at=NOW).take(revoking, at=NOW)
    for older in (bundle_of(domain), bundle_of(domain, crls=[], certificates=())):
        view = view.take(older, at=NOW)
        with pytest.raises(Revoked):
            view.validate(leaf, at=NOW)


def test_a_carrier_that_forges_brings_nothing(domain: Domain) -> None:
    leaf, impostor = domain.issue(), make_domain()
    listed = domain.crl(leaf, leaves=True, number=12)
    flipped = bytearray(domain.crl(leaves=True, number=99))
    flipped[-1] ^= 1
    view = view_of(domain).take(bundle_of(domain, crls=[domain.crl(), listed]), at=NOW)
    forged = bundle_of(
        domain,
        crls=[impostor.crl(leaves=True, number=99), bytes(flipped)],
        certificates=(impostor.issuing.public_bytes(Encoding.DER), impostor.root.public_bytes(Encoding.DER)),
    )
    after = view.take(forged, at=NOW)
    assert after == view
    with pytest.raises(Revoked):
        after.validate(leaf, at=NOW, policy=PathPolicy(revocation=RevocationMode.BEST_EFFORT))


def test_a_crl_from_the_future_waits(domain: Domain) -> None:
    later = domain.crl(leaves=True, number=50, this_update=NOW + DAY, next_update=NOW + 2 * DAY)
    view = view_of(domain).take(bundle_of(domain, crls=[domain.crl(), later]), at=NOW)
    assert len(view.crls) == 1


def test_anchors_change_only_by_what_the_old_ones_signed(domain: Domain) -> None:
    signer = generate()
    root = create_root(domain.name, signer=signer, now=NOW - DAY)
    view = view_of(domain)
    after = make_bundle(domain.name, [domain.root, root], sequence=2)
    update = AnchorUpdate(bundle=after, previous=anchors_digest(view.bundle), issued_at=NOW)
    signed = sign_update(update, signers=[domain.signer, signer])
    moved = view.take(bundle_of(domain, updates=(signed,)), at=NOW)
    assert moved.bundle == after
    assert moved.take(bundle_of(domain, updates=(signed,)), at=NOW) == moved
    with pytest.raises(QuorumNotMet):
        view.take(bundle_of(domain, updates=(sign_update(update, signers=[signer]),)), at=NOW)


def test_another_domains_bundle_is_refused(domain: Domain) -> None:
    with pytest.raises(CertificateRefused) as refused:
        view_of(domain).take(bundle_of(make_domain("clinics.example")), at=NOW)
    assert refused.value.reason == Refusal.WRONG_DOMAIN


def test_a_view_goes_on_to_the_next_site(domain: Domain) -> None:
    view = view_of(domain).take(bundle_of(domain), at=NOW)
    assert view_of(domain).take(view.to_bundle(), at=NOW) == view


def test_a_bundle_is_bounded_and_read_in_one_form_only(domain: Domain) -> None:
    data = bundle_of(domain).to_json()
    for wrong in (b"", b"{}", data + b" ", data.replace(b'"crls"', b'"crl"')):
        with pytest.raises(Malformed):
            OfflineBundle.from_json(wrong)
    with pytest.raises(StatementRefused):
        OfflineBundle.from_json(data.replace(b"offline-bundle:v1", b"offline-bundle:v9"))
    for changes in (
        {"crls": (b"",) * 65},
        {"certificates": (b"",) * 65},
        {"certificates": (bytes(20_000),)},
        {"updates": (b"",) * 257},
    ):
        with pytest.raises(Oversized):
            bundle_of(domain, **changes)
