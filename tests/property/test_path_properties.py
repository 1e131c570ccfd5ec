"""Properties of path validation that hostile input tries to break."""

from __future__ import annotations

from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st
from path_world import NOW, Domain, make_domain

from fltrust.errors import CertificateRefused, InvalidInput, Revoked
from fltrust.pki.path import Evidence, PathPolicy, RevocationMode, StatusKind, validate_path
from fltrust.pki.path.general_names import is_covered
from fltrust.pki.path.names import is_within, name_key

LABEL = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,6}[a-z0-9])?", fullmatch=True)
HOST = st.lists(LABEL, min_size=1, max_size=4).map(".".join)
FLIPS = st.lists(st.tuples(st.integers(0, 10_000), st.integers(1, 255)), min_size=1, max_size=4)


@cache
def world() -> tuple[Domain, x509.Certificate, dict[str, bytes]]:
    domain = make_domain()
    leaf = domain.issue()
    parts = {
        "leaf": leaf.public_bytes(Encoding.DER),
        "issuing": domain.issuing.public_bytes(Encoding.DER),
        "crl": domain.crl(leaves=True),
        "root-crl": domain.crl(),
        "answer": domain.answer(leaf),
    }
    return domain, leaf, parts


def flipped(data: bytes, flips: list[tuple[int, int]]) -> bytes:
    found = bytearray(data)
    for place, mask in flips:
        found[place % len(found)] ^= mask
    return bytes(found)


@settings(max_examples=150)
@given(which=st.sampled_from(["leaf", "issuing", "crl", "root-crl", "answer"]), flips=FLIPS)
def test_what_was_changed_on_the_way_is_refused_or_proves_nothing_and_never_breaks(
    which: str, flips: list[tuple[int, int]]
) -> None:
    domain, _, parts = world()
    changed = {**parts, which: flipped(parts[which], flips)}
    crls = [changed["crl"], changed["root-crl"]] if which in ("crl", "root-crl") else [parts["root-crl"]]
    answers = [changed["answer"]] if which in ("answer", "leaf", "issuing") else []
    try:
        found = validate_path(
            changed["leaf"],
            anchors=[domain.root],
            intermediates=[changed["issuing"]],
            evidence=Evidence.read(crls=crls, ocsp_answers=answers),
            at=NOW,
            policy=PathPolicy(revocation=RevocationMode.BEST_EFFORT),
        )
    except (CertificateRefused, Revoked, InvalidInput):
        return
    if changed == parts:
        return
    assert found.leaf.tbs_certificate_bytes == world()[1].tbs_certificate_bytes
    assert found.certificates[1].tbs_certificate_bytes == domain.issuing.tbs_certificate_bytes
    if which in ("crl", "answer"):
        assert found.statuses[0].kind is StatusKind.UNKNOWN
    if which == "root-crl":
        assert found.statuses[1].kind is StatusKind.UNKNOWN


@settings(max_examples=100)
@given(data=st.binary(max_size=200))
def test_no_bytes_break_a_reader(data: bytes) -> None:
    domain, _, _ = world()
    for leaf, pool, crls, answers in (
        (data, [], [], []),
        (world()[1], [data], [], []),
        (world()[1], [], [data], []),
        (world()[1], [], [], [data]),
    ):
        try:
            validate_path(
                leaf,
                anchors=[domain.root],
                intermediates=pool,
                evidence=Evidence.read(crls=crls, ocsp_answers=answers),
                at=NOW,
            )
        except (CertificateRefused, Revoked, InvalidInput):
            continue
        raise AssertionError("accepted without its issuer")


@given(host=HOST, base=HOST)
def test_a_dns_constraint_covers_itself_and_what_lies_below_it_and_nothing_else(host: str, base: str) -> None:
    expected = host.split(".")[-len(base.split(".")) :] == base.split(".")
    assert is_covered(x509.DNSName(host.upper()), x509.DNSName(base)) is expected
    below = is_covered(x509.UniformResourceIdentifier(f"spiffe://{host}x/a"), uri(f".{base}"))
    assert below is (f"{host}x".endswith(f".{base}"))


def uri(text: str) -> x509.UniformResourceIdentifier:
    return x509.UniformResourceIdentifier(text)


@given(host=HOST, base=HOST)
def test_a_wildcard_is_excluded_if_any_name_that_it_stands_for_is(host: str, base: str) -> None:
    wildcard, constraint = x509.DNSName(f"*.{host}"), x509.DNSName(base)
    labels = base.split(".")
    stands_for_one_within = host == base or host.endswith(f".{base}") or labels[1:] == host.split(".")
    assert is_covered(wildcard, constraint, excluded=True) is stands_for_one_within
    if is_covered(wildcard, constraint):
        assert is_covered(x509.DNSName(f"any.{host}"), constraint)


WORDS = st.lists(st.text("abcXYZäß", min_size=1, max_size=5), min_size=1, max_size=3)


@given(words=st.lists(WORDS, min_size=1, max_size=3), spaces=st.integers(1, 3))
def test_names_are_equal_whatever_their_case_and_spacing(words: list[list[str]], spaces: int) -> None:
    def name(texts: list[str]) -> x509.Name:
        return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text) for text in texts])

    plain = name_key(name([" ".join(part) for part in words]))
    other = name_key(name([f" {(' ' * spaces).join(part)} ".upper() for part in words]))
    assert plain == other
    assert is_within(plain, plain[:1])
    assert not is_within(plain[:1], (*plain, *plain))
