"""Profiles are data: the file that ships, what an operator may narrow, and what is issued by it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtensionOID
from every_certificate import every_certificate

from fltrust.errors import CertificateRefused, Malformed
from fltrust.identity import Role
from fltrust.keys import generate
from fltrust.pki import Draft, Issuer, verify_certificate
from fltrust.pki.codesigning import (
    DEFAULT_SIGNING_LIFETIME,
    MAX_SIGNING_LIFETIME,
    SigningDraft,
    issue_signer,
)
from fltrust.pki.pointers import PublicUrl, key_identifier_of
from fltrust.pki.profile_file import narrow, parse_profiles, read_narrowed
from fltrust.pki.profiles import CaKind, Pointer, ServiceKind, builtin
from fltrust.pki.responder import ResponderDraft, check_responder_profile, issue_responder

SHIPPED = (files("fltrust.pki") / "profiles.toml").read_text("utf-8")
HEAD = "version = 1\n"
URL = PublicUrl("http://pki.hospitals.example")
POLICY = x509.ObjectIdentifier("1.3.6.1.4.1.99999.1.2")


def test_the_file_that_ships_has_a_profile_for_every_kind() -> None:
    found = builtin()
    assert (set(found.leaves), set(found.services), set(found.authorities)) == (
        set(Role),
        set(ServiceKind),
        set(CaKind),
    )
    for profile in (*found.leaves.values(), *found.services.values()):
        assert profile.min_lifetime <= profile.default_lifetime <= profile.max_lifetime
        assert profile.policies == ()
    assert parse_profiles(SHIPPED) == found


def test_what_verifiers_of_signatures_know_without_the_file_is_what_the_file_says() -> None:
    profile = builtin().services[ServiceKind.CODE_SIGNING]
    assert profile.default_lifetime == DEFAULT_SIGNING_LIFETIME
    assert profile.max_lifetime == MAX_SIGNING_LIFETIME


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("version = 1", "version = 2"),
        ("version = 1", "version = true"),
        ("[participant]", "[patient]"),
        ('kind = "svid"', 'kind = "leaf"'),
        ('key-usage = ["digitalSignature"]', 'key-usage = ["decipherOnly"]'),
        ('key-usage = ["digitalSignature"]', "key-usage = []"),
        ('extended-key-usage = ["clientAuth"]', 'extended-key-usage = ["anyExtendedKeyUsage"]'),
        ('extended-key-usage = ["clientAuth"]', 'extended-key-usage = "clientAuth"'),
        ('default-lifetime = "1h"', 'default-lifetime = "48h"'),
        ('default-lifetime = "1h"', 'default-lifetime = "an hour"'),
        ('default-lifetime = "1h"', "default-lifetime = 3600"),
        ("own-dns-name = false", 'own-dns-name = "no"'),
        ("max-dns-names = 0", "max-dns-names = -1"),
        ('pointers = ["crl", "ocsp", "issuer"]', 'pointers = ["ldap"]'),
        ('min-lifetime = "5s"', 'shape = "round"'),
        ('name-constraints = "always"', 'name-constraints = "maybe"'),
        ("[participant]", "[participant"),
    ],
)
def test_a_set_of_profiles_with_anything_else_in_it_is_refused(old: str, new: str) -> None:
    assert old in SHIPPED
    with pytest.raises(Malformed):
        parse_profiles(SHIPPED.replace(old, new, 1))


def test_an_operator_narrows_lifetimes_names_and_lengths() -> None:
    text = HEAD + (
        '[participant]\ndefault-lifetime = "10m"\nmax-lifetime = "30m"\nmin-lifetime = "1m"\n'
        '[device]\nmax-lifetime = "1d"\n'
        "[server]\nmax-dns-names = 2\n"
        "[cross-certificate]\npath-length = 0\n"
        '[issuing-ca]\ndefault-lifetime = "30d"\n'
    )
    found = narrow(builtin(), text)
    participant, device = found.leaves[Role.PARTICIPANT], found.leaves[Role.DEVICE]
    assert (participant.min_lifetime, participant.default_lifetime, participant.max_lifetime) == (
        timedelta(minutes=1),
        timedelta(minutes=10),
        timedelta(minutes=30),
    )
    assert device.default_lifetime == device.max_lifetime == timedelta(days=1)
    assert found.leaves[Role.SERVER].max_dns_names == 2
    assert found.authorities[CaKind.CROSS].path_length == 0
    assert found.authorities[CaKind.ISSUING].lifetime == timedelta(days=30)
    assert found.leaves[Role.OPERATOR] == builtin().leaves[Role.OPERATOR]


@pytest.mark.parametrize(
    "table",
    [
        '[participant]\nmax-lifetime = "25h"',
        '[participant]\nmin-lifetime = "1s"',
        '[participant]\ndefault-lifetime = "2h"\nmax-lifetime = "1h"',
        '[participant]\nmin-lifetime = "2h"',
        "[participant]\nmax-dns-names = 1",
        "[server]\nmax-dns-names = 17",
        "[server]\nmax-dns-names = 0",
        '[participant]\nextended-key-usage = ["serverAuth"]',
        '[participant]\nkey-usage = ["keyCertSign"]',
        '[participant]\nkind = "ca"',
        "[participant]\nown-dns-name = true",
        '[code-signing]\nmax-lifetime = "2h"',
        "[ocsp-responder]\nno-check = false",
        "[issuing-ca]\npath-length = 1",
        '[issuing-ca]\nname-constraints = "always"',
        '[root-ca]\nmax-lifetime = "4000d"',
        "[nobody]\n",
        "participant = 1",
        'policies = ["1.2.3", "1.2.3"]',
        'policies = ["1.2.3.99999999999"]',
        'policies = ["one.two"]',
        "policies = [1]",
        'policies = ["1.2.1","1.2.2","1.2.3","1.2.4","1.2.5","1.2.6","1.2.7","1.2.8","1.2.9"]',
    ],
)
def test_an_operator_widens_nothing(table: str) -> None:
    with pytest.raises(Malformed):
        narrow(builtin(), HEAD + table)


def test_an_operators_file_is_versioned_bounded_and_may_be_missing(tmp_path: Path) -> None:
    assert read_narrowed(tmp_path / "none.toml", builtin()) is builtin()
    path = tmp_path / "profiles.toml"
    for text in ("", "version = 2", "version = 1" + " " * 70_000, "\udcff"):
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
        with pytest.raises((Malformed, Exception)) as refused:
            read_narrowed(path, builtin())
        assert type(refused.value).__module__ == "fltrust.errors"
    path.write_text(HEAD)
    assert read_narrowed(path, builtin()) == builtin()


def narrowed(authority: Any, table: str, **more: Any) -> Issuer:
    return Issuer(
        certificate=authority.issuer.certificate,
        signer=authority.issuing_signer,
        profiles=narrow(builtin(), HEAD + table),
        **more,
    )


def draft(authority: Any, role: Role = Role.PARTICIPANT, **more: Any) -> Draft:
    return Draft.of(authority.id(role), generate().public_key, now=authority.now, **more)


def test_an_issuer_keeps_to_the_narrower_profile_and_verifiers_to_the_built_in_one(authority: Any) -> None:
    issuer = narrowed(authority, '[participant]\ndefault-lifetime = "5m"\nmax-lifetime = "5m"')
    with pytest.raises(CertificateRefused, match="life between"):
        issuer.redeem(draft(authority))
    leaf = issuer.redeem(draft(authority, lifetime=timedelta(minutes=5)))
    verify_certificate([leaf, issuer.certificate], bundle=authority.bundle, at=authority.now)
    longer = authority.issuer.redeem(draft(authority))
    verify_certificate([longer, issuer.certificate], bundle=authority.bundle, at=authority.now)


def test_services_keep_to_the_narrower_profile(authority: Any) -> None:
    issuer = narrowed(authority, '[code-signing]\nmax-lifetime = "5m"\n[ocsp-responder]\nmax-lifetime = "1d"')
    signing = SigningDraft.of(authority.id(Role.SIGNER), generate().public_key, now=authority.now)
    with pytest.raises(CertificateRefused, match="at most"):
        issue_signer(issuer, signing, promise=lambda *_: pytest.fail("asked for a promise"))
    responder = issue_responder(issuer, ResponderDraft.of(issuer, generate().public_key, now=authority.now))
    assert responder.not_valid_after_utc == authority.now + timedelta(days=1)


def test_certificates_point_to_the_public_url_as_their_profile_says(authority: Any) -> None:
    made = every_certificate(at=authority.now, profiles=builtin(), public_url=URL)
    profiles: dict[Any, Any] = {**builtin().leaves, **builtin().services, **builtin().authorities}
    for kind, one in made.items():
        wanted, key = profiles[kind].pointers, key_identifier_of(one.issuer)
        found = {extension.oid: extension.value for extension in one.certificate.extensions}
        crl = found.get(ExtensionOID.CRL_DISTRIBUTION_POINTS)
        assert (crl is not None) is (Pointer.CRL in wanted), kind
        if isinstance(crl, x509.CRLDistributionPoints):
            assert [name.value for name in crl[0].full_name or []] == [f"{URL.base}/crl/{key}.crl"]
        access = found.get(ExtensionOID.AUTHORITY_INFORMATION_ACCESS, [])
        assert {item.access_method: item.access_location.value for item in access} == {  # type: ignore[union-attr]
            **({AuthorityInformationAccessOID.OCSP: f"{URL.base}/ocsp"} if Pointer.OCSP in wanted else {}),
            **(
                {AuthorityInformationAccessOID.CA_ISSUERS: f"{URL.base}/ca/{key}.cer"}
                if Pointer.ISSUER in wanted
                else {}
            ),
        }, kind


def test_policies_stand_in_everything_but_the_root(authority: Any) -> None:
    profiles = narrow(builtin(), HEAD + f'policies = ["{POLICY.dotted_string}"]')
    for kind, one in every_certificate(at=authority.now, profiles=profiles, public_url=None).items():
        found = {extension.oid: extension.value for extension in one.certificate.extensions}
        policies = found.get(ExtensionOID.CERTIFICATE_POLICIES)
        if kind is CaKind.ROOT:
            assert policies is None
        else:
            assert isinstance(policies, x509.CertificatePolicies), kind
            assert [policy.policy_identifier for policy in policies] == [POLICY]


def test_a_profiles_own_pointers_and_policies_come_before_those_of_all(authority: Any) -> None:
    issuer = narrowed(
        authority,
        'policies = ["1.2.3"]\n[participant]\npointers = ["ocsp"]\npolicies = ["1.2.4"]',
        public_url=URL,
    )
    found = {e.oid: e.value for e in issuer.redeem(draft(authority)).extensions}
    assert ExtensionOID.CRL_DISTRIBUTION_POINTS not in found
    policies = found[ExtensionOID.CERTIFICATE_POLICIES]
    assert isinstance(policies, x509.CertificatePolicies)
    assert [policy.policy_identifier.dotted_string for policy in policies] == ["1.2.4"]


@pytest.mark.parametrize(
    "text",
    [
        "https://pki.hospitals.example",
        "http://pki.hospitals.example/",
        "http://PKI.hospitals.example",
        "http://pki.hospitals.example?x=1",
        "http://user@pki.hospitals.example",
        'http://pki.hospitals.example"',
        "ftp://pki.hospitals.example",
        "http://" + "a" * 250,
        "",
    ],
)
def test_a_public_url_is_plain_http_without_anything_else(text: str) -> None:
    with pytest.raises(Malformed):
        PublicUrl.parse(text)


# ---- names, in any order ----


def names(*values: str) -> dict[type[x509.ExtensionType], tuple[x509.ExtensionType, bool]]:
    found = [
        x509.UniformResourceIdentifier(value) if "://" in value else x509.DNSName(value) for value in values
    ]
    return {x509.SubjectAlternativeName: (x509.SubjectAlternativeName(found), True)}


def test_names_are_the_profiles_in_any_order_each_once(authority: Any) -> None:
    who = authority.id(Role.AGGREGATOR, "main")
    own, uri = who.dns_name, str(who)

    def accepts(*values: str) -> bool:
        chain = authority.forge(who, extensions=names(*values))
        try:
            verify_certificate(chain, bundle=authority.bundle, at=authority.now)
        except CertificateRefused:
            return False
        return True

    assert accepts(uri, own)
    assert accepts(own, uri)
    for others in ((uri,), (uri, own, own), (uri, "other.example"), (uri, own, "other.example")):
        assert not accepts(*others), others


# ---- the OCSP responder's certificate ----


def test_a_responders_certificate_answers_and_does_nothing_else(authority: Any) -> None:
    key = generate().public_key
    order = ResponderDraft.of(authority.issuer, key, now=authority.now)
    made = issue_responder(authority.issuer, order)
    check_responder_profile(made)
    assert made.not_valid_after_utc - authority.now == timedelta(days=7)
    with pytest.raises(Exception, match="redeemed"):
        issue_responder(authority.issuer, order)
    with pytest.raises(CertificateRefused):
        verify_certificate([made, authority.issuer.certificate], bundle=authority.bundle, at=authority.now)
    for other in (authority.issue()[0], authority.issuer.certificate):
        with pytest.raises(CertificateRefused):
            check_responder_profile(other)


def test_a_responder_does_not_outlive_its_issuer_or_carry_its_key(authority: Any) -> None:
    end = authority.issuer.certificate.not_valid_after_utc
    late = ResponderDraft.of(authority.issuer, generate().public_key, now=end - timedelta(days=2))
    assert issue_responder(authority.issuer, late).not_valid_after_utc == end
    own = ResponderDraft.of(authority.issuer, authority.issuing_signer.public_key, now=authority.now)
    with pytest.raises(CertificateRefused, match="own"):
        issue_responder(authority.issuer, own)
    long = ResponderDraft(
        authority.domain, generate().public_key, authority.now, authority.now + timedelta(days=31)
    )
    with pytest.raises(CertificateRefused, match="at most"):
        issue_responder(authority.issuer, long)


def test_nothing_of_the_profiles_is_read_to_verify_a_model() -> None:
    import subprocess
    import sys

    code = (
        "import sys, fltrust.artifacts.recipe, fltrust.pki.codesigning, fltrust.pki.timestamps\n"
        "assert 'fltrust.pki.profile_file' not in sys.modules and 'tomllib' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_moment_of_issue_is_utc() -> None:
    made = every_certificate(at=datetime(2026, 3, 1, tzinfo=UTC), profiles=builtin(), public_url=None)
    assert made[CaKind.ROOT].certificate.not_valid_before_utc == datetime(2026, 2, 28, 23, 59, tzinfo=UTC)
