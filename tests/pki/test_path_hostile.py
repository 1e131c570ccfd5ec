"""Attacks on the building and processing of paths: everything is bounded, and what is odd is refused."""

from __future__ import annotations

import itertools
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from path_world import DAY, MADE, NOW, Domain, make_domain

from fltrust.errors import CertificateRefused, Malformed, Refusal
from fltrust.keys import FileSigner, generate
from fltrust.pki.leaf import subject_key_identifier
from fltrust.pki.path import PathLimits, PathPolicy, RevocationMode, validate_path
from fltrust.pki.profiles import key_usage
from fltrust.pki.signing import SignerKey

BEST = RevocationMode.BEST_EFFORT


@pytest.fixture(scope="module")
def domain() -> Domain:
    return make_domain()


def name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])


def ca(
    subject: str,
    key: FileSigner,
    *,
    issuer: str,
    by: FileSigner,
    extra: list[tuple[x509.ExtensionType, bool]] | None = None,
    is_ca: bool = True,
    path_length: int | None = None,
) -> x509.Certificate:
    """A conforming CA's certificate, with more extensions where they are asked for."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(name(subject))
        .issuer_name(name(issuer))
        .public_key(key.public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(MADE)
        .not_valid_after(NOW + DAY)
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=path_length), critical=True)
        .add_extension(subject_key_identifier(key.public_key), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(
                subject_key_identifier(by.public_key)
            ),
            critical=False,
        )
    )
    if is_ca:
        builder = builder.add_extension(key_usage(key_cert_sign=True, crl_sign=True), critical=True)
    for value, critical in extra or []:
        builder = builder.add_extension(value, critical=critical)
    return builder.sign(SignerKey(by), SHA256())


def validate(leaf: Any, root: x509.Certificate, pool: list[Any], **policy: Any) -> Any:
    rules = PathPolicy(revocation=BEST, **policy)
    return validate_path(leaf, anchors=[root], intermediates=pool, at=NOW, policy=rules)


def reason(leaf: Any, root: x509.Certificate, pool: list[Any], **policy: Any) -> tuple[str, str]:
    with pytest.raises(CertificateRefused) as refused:
        validate(leaf, root, pool, **policy)
    return refused.value.reason, refused.value.message


def test_a_mesh_of_cas_that_all_certify_each_other_ends_with_the_budget() -> None:
    keys = {f"ca{number}": generate() for number in range(8)}
    mesh = [
        ca(one, keys[one], issuer=other, by=keys[other]) for one, other in itertools.permutations(keys, 2)
    ]
    root_key, leaf_key = generate(), generate()
    root = ca("root", root_key, issuer="root", by=root_key)
    leaf = ca("leaf", leaf_key, issuer="ca0", by=keys["ca0"], is_ca=False)
    assert reason(leaf, root, mesh)[0] == Refusal.OVERSIZED
    way_out = ca("ca0", keys["ca0"], issuer="root", by=root_key)
    assert validate(leaf, root, [*mesh, way_out]).certificates == (leaf, way_out, root)


def test_many_cas_of_one_name_and_many_signatures_end_with_the_budget(domain: Domain) -> None:
    root_key, leaf_key = generate(), generate()
    root = ca("root", root_key, issuer="root", by=root_key)
    pool = [ca("twin", key := generate(), issuer="root", by=root_key) for _ in range(6)]
    leaf = ca("leaf", leaf_key, issuer="twin", by=key, is_ca=False)
    assert validate(leaf, root, pool).leaf == leaf
    stranger = ca("leaf", leaf_key, issuer="twin", by=generate(), is_ca=False)
    assert reason(stranger, root, pool)[0] == Refusal.CERTIFICATE_PATH
    assert reason(stranger, root, pool, limits=PathLimits(signatures=3))[0] == Refusal.OVERSIZED


@pytest.mark.parametrize(
    "limits",
    [
        PathLimits(certificates=2),
        PathLimits(certificate_bytes=100),
        PathLimits(path_length=2),
        PathLimits(paths=0),
    ],
)
def test_each_bound_is_kept(domain: Domain, limits: PathLimits) -> None:
    pool = [domain.issuing, domain.root, domain.issue("site-b")]
    assert validate(domain.issue(), domain.root, pool)
    found, _ = reason(domain.issue(), domain.root, pool, limits=limits)
    assert found == (Refusal.CERTIFICATE_PATH if limits.path_length == 2 else Refusal.OVERSIZED)


def test_policies_past_their_bound_are_refused() -> None:
    root_key, ca_key, leaf_key = generate(), generate(), generate()
    policies = x509.CertificatePolicies(
        [x509.PolicyInformation(x509.ObjectIdentifier(f"1.2.{number}"), None) for number in range(1, 40)]
    )
    root = ca("root", root_key, issuer="root", by=root_key)
    middle = ca("ca", ca_key, issuer="root", by=root_key, extra=[(policies, False)])
    leaf = ca("leaf", leaf_key, issuer="ca", by=ca_key, is_ca=False, extra=[(policies, False)])
    assert len(validate(leaf, root, [middle]).policies) == 39
    assert reason(leaf, root, [middle], limits=PathLimits(policy_nodes=70))[0] == Refusal.OVERSIZED


def test_names_and_constraints_past_their_bound_are_refused() -> None:
    root_key, ca_key, leaf_key = generate(), generate(), generate()
    subtrees = [x509.DNSName(f"h{number}.example") for number in range(100)]
    names = x509.SubjectAlternativeName(subtrees)
    root = ca("root", root_key, issuer="root", by=root_key)
    constraints = x509.NameConstraints(permitted_subtrees=subtrees, excluded_subtrees=None)
    middle = ca("ca", ca_key, issuer="root", by=root_key, extra=[(constraints, True)])
    leaf = ca("leaf", leaf_key, issuer="ca", by=ca_key, is_ca=False, extra=[(names, False)])
    assert validate(leaf, root, [middle])
    assert reason(leaf, root, [middle], limits=PathLimits(name_comparisons=9_000))[0] == Refusal.OVERSIZED


@pytest.mark.parametrize("other", [b"", b"\x30", b"no certificate", bytes(100)])
def test_what_cannot_be_read_takes_no_part_and_as_the_leaf_is_malformed(domain: Domain, other: bytes) -> None:
    assert validate(domain.issue(), domain.root, [other, domain.issuing])
    assert reason(other, domain.root, [])[0] == Refusal.MALFORMED


def test_an_anchor_does_not_vouch_for_itself(domain: Domain) -> None:
    assert reason(domain.root, domain.root, [domain.root])[0] == Refusal.CERTIFICATE_PATH


def test_a_leaf_above_another_leaf_is_no_ca(domain: Domain) -> None:
    key, sub = generate(), generate()
    root_key = generate()
    root = ca("root", root_key, issuer="root", by=root_key)
    leaf = ca("site", key, issuer="root", by=root_key, is_ca=False)
    below = ca("victim", sub, issuer="site", by=key, is_ca=False)
    assert reason(below, root, [leaf])[0] == Refusal.CERTIFICATE_PATH


def test_an_unknown_critical_extension_anywhere_is_refused() -> None:
    unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")
    root_key, ca_key, leaf_key = generate(), generate(), generate()
    for place in range(3):
        extra = [[(unknown, True)] if place == number else None for number in range(3)]
        root = ca("root", root_key, issuer="root", by=root_key, extra=extra[0])
        middle = ca("ca", ca_key, issuer="root", by=root_key, extra=extra[1])
        leaf = ca("leaf", leaf_key, issuer="ca", by=ca_key, is_ca=False, extra=extra[2])
        assert "1.2.3.4" in reason(leaf, root, [middle])[1]


@pytest.mark.parametrize(
    "uri",
    [
        "spiffe://partner.example@evil.example/site",
        "spiffe://evil.example\\@partner.example/site",
        "spiffe://part\tner.example/site",
        "spiffe://partner.example\x00.evil/site",
        "spiffe://192.0.2.1/site",
        "spiffe:partner.example",
        "spiffe:///site",
        "spiffe://sub.partner.example/site",
        "spiffe://partner.example.evil.example/site",
    ],
)
def test_no_way_of_writing_a_uri_gets_it_past_a_constraint(uri: str) -> None:
    root_key, ca_key, leaf_key = generate(), generate(), generate()
    root = ca("root", root_key, issuer="root", by=root_key)
    permitted = [x509.UniformResourceIdentifier("partner.example")]
    constraints = x509.NameConstraints(permitted_subtrees=permitted, excluded_subtrees=None)
    middle = ca("ca", ca_key, issuer="root", by=root_key, extra=[(constraints, True)])

    def leaf(text: str) -> x509.Certificate:
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(text)])
        return ca("leaf", leaf_key, issuer="ca", by=ca_key, is_ca=False, extra=[(names, False)])

    assert validate(leaf("spiffe://partner.example/site"), root, [middle])
    assert reason(leaf(uri), root, [middle])[0] == Refusal.CERTIFICATE_PATH


def test_a_ca_that_widens_what_was_permitted_above_gains_nothing() -> None:
    root_key, one, two, leaf_key = generate(), generate(), generate(), generate()

    def permits(*names: str) -> list[tuple[x509.ExtensionType, bool]]:
        subtrees = [x509.DNSName(text) for text in names]
        return [(x509.NameConstraints(permitted_subtrees=subtrees, excluded_subtrees=None), True)]

    root = ca("root", root_key, issuer="root", by=root_key, extra=permits("a.example", "b.example"))
    upper = ca("one", one, issuer="root", by=root_key, extra=permits("a.example"))
    lower = ca("two", two, issuer="one", by=one, extra=permits("a.example", "b.example", "c.example"))
    for host, is_good in (("x.a.example", True), ("b.example", False), ("c.example", False)):
        names = x509.SubjectAlternativeName([x509.DNSName(host)])
        leaf = ca("leaf", leaf_key, issuer="two", by=two, is_ca=False, extra=[(names, False)])
        if is_good:
            assert validate(leaf, root, [upper, lower]).second_opinion
        else:
            assert reason(leaf, root, [upper, lower])[0] == Refusal.CERTIFICATE_PATH


def test_a_peer_that_is_no_one_name_is_refused_whatever_the_certificate(domain: Domain) -> None:
    from ipaddress import ip_network

    for peer in (
        x509.DNSName("*.example.com"),
        x509.DNSName("a b"),
        x509.RFC822Name("nobody"),
        x509.IPAddress(ip_network("192.0.2.0/24")),
    ):
        with pytest.raises(Malformed):
            validate(domain.issue(), domain.root, [domain.issuing], peer=peer)


def test_a_wildcard_stands_for_one_label_and_not_for_a_whole_registry() -> None:
    root_key, leaf_key = generate(), generate()
    root = ca("root", root_key, issuer="root", by=root_key)

    def is_named(presented: str, host: str) -> bool:
        names = x509.SubjectAlternativeName([x509.DNSName(presented)])
        leaf = ca("leaf", leaf_key, issuer="root", by=root_key, is_ca=False, extra=[(names, False)])
        try:
            return bool(validate(leaf, root, [], peer=x509.DNSName(host)))
        except CertificateRefused:
            return False

    assert is_named("*.example.com", "A.Example.com")
    assert not is_named("*.example.com", "example.com")
    assert not is_named("*.example.com", "a.b.example.com")
    assert not is_named("*.com", "example.com")
    assert not is_named("example.com", "example.com.evil.net")


def test_times_are_inclusive_at_both_ends_and_an_expired_ca_ends_the_path(domain: Domain) -> None:
    leaf = domain.issue()
    rules = PathPolicy(revocation=BEST)
    for at, is_good in (
        (leaf.not_valid_after_utc, True),
        (leaf.not_valid_after_utc + timedelta(seconds=1), False),
        (leaf.not_valid_before_utc, True),
        (leaf.not_valid_before_utc - timedelta(seconds=1), False),
    ):
        asked = {"anchors": [domain.root], "intermediates": [domain.issuing], "at": at, "policy": rules}
        if is_good:
            assert validate_path(leaf, **asked)
        else:
            with pytest.raises(CertificateRefused):
                validate_path(leaf, **asked)
