"""Three domains, each with its own CA, and a bridge between them: who may speak for whom, and who may not."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from path_world import MADE, NOW, Domain, make_domain

from fltrust.errors import CertificateRefused, Malformed, Refusal, Revoked
from fltrust.identity import Role, SpiffeId, TrustDomain
from fltrust.keys import generate
from fltrust.pki import (
    TrustBundle,
    chain_to_pem,
    verify_certificate,
)
from fltrust.pki.ca_certificates import authority_key
from fltrust.pki.cross import certify_bridge, certify_domain, check_cross_certificate, domain_constraints
from fltrust.pki.leaf import expected_names
from fltrust.pki.path import Evidence, PathPolicy, RevocationMode, ValidatedPath, validate_path
from fltrust.pki.signing import SignerKey

A, B, C, BRIDGE = map(TrustDomain, ("hospitals.example", "clinics.example", "labs.example", "bridge.example"))


@dataclass(frozen=True)
class Bridge:
    """A certified the bridge for B and C; the bridge certified each of the three."""

    a: Domain
    b: Domain
    c: Domain
    bridge: Domain
    bridge_by_a: x509.Certificate
    by_bridge: dict[TrustDomain, x509.Certificate]

    @property
    def pool(self) -> list[x509.Certificate]:
        issuing = [domain.issuer.certificate for domain in (self.a, self.b, self.c)]
        roots = [domain.root for domain in (self.b, self.c, self.bridge)]
        return [*issuing, *roots, *self.by_bridge.values(), self.bridge_by_a]

    def crls(self) -> list[bytes]:
        tops = [domain.crl() for domain in (self.a, self.b, self.c, self.bridge)]
        return [*tops, *(domain.crl(leaves=True) for domain in (self.a, self.b, self.c))]

    def validate(
        self, leaf: x509.Certificate, *, crls: Sequence[bytes] | None = None, **policy: Any
    ) -> ValidatedPath:
        return validate_path(
            leaf,
            anchors=[self.a.root],
            intermediates=self.pool,
            evidence=Evidence.read(crls=self.crls() if crls is None else crls),
            at=NOW,
            policy=PathPolicy(**policy),
        )


@pytest.fixture(scope="module")
def world() -> Bridge:
    a, b, c, bridge = map(make_domain, (A, B, C, BRIDGE))
    return Bridge(
        a,
        b,
        c,
        bridge,
        certify_bridge(bridge.root, issuer=a.root, signer=a.signer, members=[B, C], now=MADE),
        {
            domain.name: certify_domain(domain.root, issuer=bridge.root, signer=bridge.signer, now=MADE)
            for domain in (a, b, c)
        },
    )


@pytest.mark.parametrize("name", ["b", "c"])
def test_a_path_is_built_over_the_bridge_and_every_certificate_of_it_is_proven_good(
    world: Bridge, name: str
) -> None:
    domain: Domain = getattr(world, name)
    leaf = domain.issue()
    found = world.validate(leaf)
    assert found.certificates == (
        leaf,
        domain.issuer.certificate,
        world.by_bridge[domain.name],
        world.bridge_by_a,
        world.a.root,
    )
    assert [status.source for status in found.statuses] == ["crl"] * 4
    assert not found.second_opinion  # constraints on URIs


def test_openssl_builds_the_same_path(world: Bridge, tmp_path: Path) -> None:
    (tmp_path / "root.pem").write_bytes(chain_to_pem([world.a.root]))
    pool = [item for item in world.pool if item.subject != item.issuer]
    (tmp_path / "pool.pem").write_bytes(chain_to_pem(pool))
    (tmp_path / "leaf.pem").write_bytes(chain_to_pem([world.b.issue()]))
    command = ["openssl", "verify", "-attime", str(int(NOW.timestamp())), "-x509_strict"]
    command += ["-CAfile", str(tmp_path / "root.pem"), "-untrusted", str(tmp_path / "pool.pem")]
    done = subprocess.run([*command, str(tmp_path / "leaf.pem")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_two_domains_may_certify_each_other_without_a_bridge(world: Bridge) -> None:
    cross = certify_domain(world.b.root, issuer=world.a.root, signer=world.a.signer, now=MADE)
    leaf = world.b.issue()
    found = validate_path(
        leaf,
        anchors=[world.a.root],
        intermediates=[cross, world.b.issuer.certificate],
        evidence=Evidence.read(crls=world.crls()),
        at=NOW,
    )
    assert found.certificates == (leaf, world.b.issuer.certificate, cross, world.a.root)


@pytest.mark.parametrize(
    "claimed", [A, C, TrustDomain("elsewhere.example"), TrustDomain("x.clinics.example")]
)
def test_a_certified_domain_speaks_for_no_other_and_for_none_below_it(
    world: Bridge, claimed: TrustDomain
) -> None:
    with pytest.raises(CertificateRefused) as refused:
        world.validate(forge(world.b, claimed), revocation=RevocationMode.BEST_EFFORT)
    assert "names that the CAs above allow" in refused.value.message


def forge(partner: Domain, claimed: TrustDomain) -> x509.Certificate:
    """What a dishonest partner could sign: a leaf of somebody else's name, under its own issuing CA."""
    issuing = partner.issuer.certificate
    who = SpiffeId.of(claimed, Role.PARTICIPANT, "site-a")
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(issuing.subject)
        .public_key(generate().public_key)
        .serial_number(77)
        .not_valid_before(MADE)
        .not_valid_after(NOW + timedelta(days=1))
        .add_extension(authority_key(issuing), critical=False)
        .add_extension(x509.SubjectAlternativeName(expected_names(who)), critical=True)
        .sign(SignerKey(partner.issuing_signer), SHA256())
    )


@pytest.mark.parametrize("which", ["bridge_by_a", "by_bridge", "issuing", "leaf"])
def test_whatever_is_revoked_on_the_way_ends_the_path(world: Bridge, which: str) -> None:
    leaf = world.b.issue()
    crls = {
        "bridge_by_a": world.a.crl(world.bridge_by_a, number=11),
        "by_bridge": world.bridge.crl(world.by_bridge[B], number=11),
        "issuing": world.b.crl(world.b.issuer.certificate, number=11),
        "leaf": world.b.crl(leaf, leaves=True, number=11),
    }
    with pytest.raises(Revoked):
        world.validate(leaf, crls=[*world.crls(), crls[which]])
    with pytest.raises(Revoked):
        world.validate(leaf, crls=[crls[which]], revocation=RevocationMode.BEST_EFFORT)


def test_without_the_bridges_crl_hard_fail_refuses(world: Bridge) -> None:
    crls = [domain.crl() for domain in (world.a, world.b)] + [world.b.crl(leaves=True)]
    with pytest.raises(CertificateRefused) as refused:
        world.validate(world.b.issue(), crls=crls)
    assert refused.value.reason == "revocation-unknown"
    assert (
        len(world.validate(world.b.issue(), crls=crls, revocation=RevocationMode.BEST_EFFORT).warnings) == 1
    )


def test_a_foreign_path_gives_no_standing_in_a_federation(world: Bridge) -> None:
    chain = [world.b.issue(), world.b.issuer.certificate, world.by_bridge[B], world.bridge_by_a]
    with pytest.raises(CertificateRefused) as refused:
        verify_certificate(chain, bundle=TrustBundle(A, (world.a.root,), 1), at=NOW)
    assert refused.value.reason == Refusal.WRONG_DOMAIN


def test_nobody_certifies_a_bridge_to_speak_for_oneself(world: Bridge) -> None:
    with pytest.raises(CertificateRefused):
        certify_bridge(
            world.bridge.root, issuer=world.a.root, signer=world.a.signer, members=[A, B], now=MADE
        )


def test_a_cross_certificate_says_exactly_what_was_agreed(world: Bridge) -> None:
    cross = certify_domain(
        world.b.root, issuer=world.a.root, signer=world.a.signer, now=MADE, dns_names=["b.example.org"]
    )
    check_cross_certificate(cross, roots=[world.a.root], domains=[B], dns_names=["b.example.org"])
    check_cross_certificate(world.bridge_by_a, roots=[world.a.root], domains=[BRIDGE, B, C])
    for roots, domains, dns_names in [
        ([world.c.root], [B], ["b.example.org"]),
        ([world.a.root], [B], []),
        ([world.a.root], [B, C], ["b.example.org"]),
        ([world.a.root], [C], ["b.example.org"]),
    ]:
        with pytest.raises(CertificateRefused):
            check_cross_certificate(cross, roots=roots, domains=domains, dns_names=dns_names)
    with pytest.raises(CertificateRefused):
        check_cross_certificate(world.b.issuer.certificate, roots=[world.b.root], domains=[B])


@pytest.mark.parametrize(
    ("domains", "dns_names"), [([], []), ([A, A], []), ([A], ["*.example.org"]), ([A], ["Example.org"])]
)
def test_constraints_that_name_nobody_or_badly_are_refused(domains: list[Any], dns_names: list[str]) -> None:
    with pytest.raises(Malformed):
        domain_constraints(domains, dns_names=dns_names)
