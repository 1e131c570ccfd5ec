"""Trust bundles: written, read back, pinned by fingerprint."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from fltrust.errors import CertificateRefused, InvalidInput, Malformed, Oversized
from fltrust.identity import Digest, TrustDomain
from fltrust.pki import (
    TrustBundle,
    bundle_from_json,
    bundle_from_pem,
    bundle_matches_fingerprint,
    bundle_to_json,
    bundle_to_jwks,
    bundle_to_pem,
    certificates_from_pem,
    chain_to_pem,
    make_bundle,
    pin_bundle,
    root_fingerprint,
)


@pytest.fixture
def bundle(authority: Any, new_authority: Callable[..., Any]) -> TrustBundle:
    return make_bundle(authority.domain, [authority.root, new_authority().root], sequence=7)


def test_a_bundle_survives_json_and_pem(bundle: TrustBundle) -> None:
    assert bundle_from_json(bundle_to_json(bundle)) == bundle
    assert bundle_from_pem(bundle_to_pem(bundle), domain=bundle.domain, sequence=7) == bundle


def test_the_fingerprint_is_what_openssl_prints(authority: Any, tmp_path: Path) -> None:
    (tmp_path / "root.pem").write_bytes(chain_to_pem([authority.root]))
    printed = subprocess.run(
        ["openssl", "x509", "-in", tmp_path / "root.pem", "-noout", "-fingerprint", "-sha256"],
        capture_output=True,
        check=True,
        text=True,
    ).stdout
    hexadecimal = printed.strip().partition("=")[2].replace(":", "").lower()
    assert str(root_fingerprint(authority.root)) == f"sha256:{hexadecimal}"


def test_a_bundle_matches_the_fingerprint_of_each_root_and_no_other(bundle: TrustBundle) -> None:
    for root in bundle.roots:
        assert bundle_matches_fingerprint(bundle, root_fingerprint(root))
    assert not bundle_matches_fingerprint(bundle, Digest("sha256", bytes(32)))
    assert not bundle_matches_fingerprint(bundle, Digest("sha256", bytes(16)))
    with pytest.raises(Malformed):
        bundle_matches_fingerprint(bundle, Digest("md5", root_fingerprint(bundle.roots[0]).value))


def test_pinning_drops_a_root_that_was_slipped_in(bundle: TrustBundle) -> None:
    pinned = pin_bundle(bundle, root_fingerprint(bundle.roots[0]))
    assert pinned.roots == bundle.roots[:1]
    with pytest.raises(CertificateRefused, match="same federation"):
        pin_bundle(bundle, Digest("sha256", bytes(32)))


@pytest.mark.parametrize(
    ("uris", "home", "foreign"),
    [
        (["spiffe://hospitals.example"], True, True),
        ([], False, True),
        (["spiffe://clinics.example"], False, False),
        (["spiffe://hospitals.example/ca"], False, False),
        (["spiffe://clinics.example", "spiffe://clinics.example"], False, False),
        (["https://hospitals.example"], False, False),
    ],
)
def test_a_pinned_root_speaks_for_the_domain_that_it_names(
    uris: list[str], home: bool, foreign: bool
) -> None:
    """Foreign domains may have CAs that are not ours, whose roots name none."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "somebody's root")])
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime(2026, 3, 1, tzinfo=UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=1))
    if uris:
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri) for uri in uris])
        builder = builder.add_extension(names, critical=False)
    root = builder.sign(key, SHA256())
    bundle = TrustBundle(TrustDomain("hospitals.example"), (root,), 1)
    for unnamed, allowed in ((False, home), (True, foreign)):
        if allowed:
            assert pin_bundle(bundle, root_fingerprint(root), unnamed=unnamed) == bundle
        else:
            with pytest.raises(CertificateRefused):
                pin_bundle(bundle, root_fingerprint(root), unnamed=unnamed)


def test_other_verifiers_get_a_spiffe_bundle(bundle: TrustBundle) -> None:
    document = json.loads(bundle_to_jwks(bundle))
    assert document["spiffe_sequence"] == 7
    assert [key["use"] for key in document["keys"]] == ["x509-svid", "x509-svid"]
    first = document["keys"][0]
    assert base64.b64decode(first["x5c"][0]) == bundle.roots[0].public_bytes(Encoding.DER)
    numbers = bundle.roots[0].public_key().public_numbers()  # type: ignore[union-attr]
    assert int.from_bytes(base64.urlsafe_b64decode(first["x"] + "="), "big") == numbers.x


@pytest.mark.parametrize(
    "change",
    [
        {"type": "fltrust.trust-bundle.v2"},
        {"trust_domain": "Not A Domain"},
        {"trust_domain": None},
        {"sequence": -1},
        {"sequence": True},
        {"sequence": "1"},
        {"sequence": 2**63},
        {"roots": []},
        {"roots": ["junk"]},
        {"roots": [5]},
        {"roots": "x"},
        {"extra": 1},
    ],
)
def test_a_changed_bundle_is_invalid(bundle: TrustBundle, change: dict[str, Any]) -> None:
    fields = {**json.loads(bundle_to_json(bundle)), **change}
    with pytest.raises(InvalidInput):
        bundle_from_json(json.dumps(fields).encode())


@pytest.mark.parametrize("junk", [b"", b"[]", b"null", b"\xff", b"[" * 100_000, b"{}"])
def test_junk_is_no_bundle(junk: bytes) -> None:
    with pytest.raises(Malformed):
        bundle_from_json(junk)


def test_a_huge_bundle_is_refused_unparsed() -> None:
    with pytest.raises(Oversized):
        bundle_from_json(b" " * 300_000)
    with pytest.raises(Oversized):
        certificates_from_pem(b" " * 300_000, limit=1)


def test_a_root_twice_a_leaf_or_too_many_make_no_bundle(authority: Any) -> None:
    for roots in ([], [authority.root] * 2, [authority.issue()[0]]):
        with pytest.raises(Malformed):
            make_bundle(TrustDomain("hospitals.example"), roots)


def test_more_certificates_than_allowed_are_refused(authority: Any) -> None:
    pem = chain_to_pem(authority.issue())
    assert certificates_from_pem(pem, limit=2)[1] == authority.issuer.certificate
    with pytest.raises(Oversized):
        certificates_from_pem(pem, limit=1)
    with pytest.raises(Malformed):
        certificates_from_pem(b"no pem", limit=1)
