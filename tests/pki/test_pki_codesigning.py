"""Code-signing certificates: Sigstore's shape, one use, one timestamp, minutes of life."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID

from fltrust.errors import CertificateRefused, Conflict, Unavailable
from fltrust.identity import Role
from fltrust.keys import generate
from fltrust.pki import verify_certificate
from fltrust.pki.codesigning import (
    DEFAULT_SIGNING_LIFETIME,
    ISSUER_OID,
    ISSUER_V2_OID,
    MAX_SIGNING_LIFETIME,
    IssuedSigner,
    SigningDraft,
    check_signing_profile,
    issue_signer,
)
from fltrust.pki.leaf import read_leaf
from fltrust.pki.sct import SignedCertificateTimestamp, embedded_scts, issuer_key_hash, sign_sct

CT, KEY = generate(), generate()


def draft(authority: Any, role: Role = Role.SIGNER, **more: Any) -> SigningDraft:
    return SigningDraft.of(authority.id(role, "release"), KEY.public_key, now=authority.now, **more)


def issue(authority: Any, of: SigningDraft | None = None) -> IssuedSigner:
    def promise(key_hash: bytes, tbs: bytes) -> SignedCertificateTimestamp:
        return sign_sct(CT, key_hash=key_hash, tbs=tbs, at=authority.now)

    return issue_signer(authority.issuer, of or draft(authority), promise=promise)


@pytest.mark.parametrize("role", [Role.SIGNER, Role.AGGREGATOR, Role.COORDINATOR])
def test_it_says_what_fulcios_certificates_say(authority: Any, role: Role) -> None:
    leaf = issue(authority, draft(authority, role)).certificate
    extensions = {e.oid: e for e in leaf.extensions}
    names = extensions[ExtensionOID.SUBJECT_ALTERNATIVE_NAME]
    assert names.critical
    assert list(names.value) == [x509.UniformResourceIdentifier(str(authority.id(role, "release")))]
    assert not list(leaf.subject)
    assert list(extensions[ExtensionOID.EXTENDED_KEY_USAGE].value) == [ExtendedKeyUsageOID.CODE_SIGNING]
    assert extensions[ISSUER_OID].value.value == b"spiffe://hospitals.example"
    assert extensions[ISSUER_V2_OID].value.value == b"\x0c\x1aspiffe://hospitals.example"
    assert leaf.not_valid_after_utc - authority.now == DEFAULT_SIGNING_LIFETIME == timedelta(minutes=10)
    assert len(embedded_scts(leaf)) == 1


def test_what_was_promised_is_the_certificate_less_its_timestamp(authority: Any) -> None:
    issued = issue(authority)
    assert issued.certificate.tbs_precertificate_bytes == issued.precert_tbs
    assert issued.issuer_key_hash == issuer_key_hash(authority.issuer.certificate)
    assert embedded_scts(issued.certificate) == (issued.sct,)


def test_no_certificate_is_signed_when_the_log_gives_no_promise(authority: Any) -> None:
    signed: list[bytes] = []

    class Watched:
        public_key, key_id = authority.issuing_signer.public_key, authority.issuing_signer.key_id

        def sign(self, data: bytes) -> bytes:
            signed.append(data)
            return bytes(authority.issuing_signer.sign(data))

    def refuse(key_hash: bytes, tbs: bytes) -> SignedCertificateTimestamp:
        raise Unavailable("no log today")

    issuer = type(authority.issuer)(certificate=authority.issuer.certificate, signer=Watched())
    of = draft(authority)
    with pytest.raises(Unavailable):
        issue_signer(issuer, of, promise=refuse)
    assert signed == []
    with pytest.raises(Conflict):
        issue_signer(issuer, of, promise=refuse)


def test_a_draft_is_redeemed_once(authority: Any) -> None:
    of = draft(authority)
    issue(authority, of)
    with pytest.raises(Conflict):
        issue(authority, of)


def test_a_promise_for_something_else_is_embedded_but_signs_nothing_else(authority: Any) -> None:
    """The issuer does not judge the log's signature; the verifier does. Its form is held to all the same."""
    sct = SignedCertificateTimestamp(b"\x00" * 32, 0, b"no signature")
    issued = issue_signer(authority.issuer, draft(authority), promise=lambda _hash, _tbs: sct)
    assert issued.sct == sct


@pytest.mark.parametrize("role", [Role.PARTICIPANT, Role.OPERATOR])
def test_participants_and_operators_get_none(authority: Any, role: Role) -> None:
    with pytest.raises(CertificateRefused) as refused:
        issue(authority, draft(authority, role))
    assert refused.value.reason == "certificate-profile"


def test_bad_drafts_are_refused(authority: Any, new_authority: Callable[..., Any]) -> None:
    long = draft(authority, lifetime=MAX_SIGNING_LIFETIME + timedelta(seconds=1))
    none = draft(authority, lifetime=timedelta(0))
    p384 = SigningDraft(
        authority.id(Role.SIGNER),
        ec.generate_private_key(ec.SECP384R1()).public_key(),
        authority.now,
        authority.now + timedelta(minutes=1),
    )
    own = SigningDraft.of(authority.id(Role.SIGNER), authority.issuing_signer.public_key, now=authority.now)
    late = SigningDraft.of(
        authority.id(Role.SIGNER), KEY.public_key, now=authority.issuer.certificate.not_valid_after_utc
    )
    for of in (long, none, p384, own, late):
        with pytest.raises(CertificateRefused) as refused:
            issue(authority, of)
        assert refused.value.reason == "certificate-profile"
    with pytest.raises(CertificateRefused) as refused:
        issue(authority, draft(new_authority("elsewhere.example")))
    assert refused.value.reason == "wrong-domain"


def test_it_opens_no_connection_and_an_svid_signs_no_model(authority: Any) -> None:
    """One identity, two uses: neither certificate stands in for the other."""
    signing = issue(authority).certificate
    with pytest.raises(CertificateRefused) as refused:
        verify_certificate([signing, authority.issuer.certificate], bundle=authority.bundle, at=authority.now)
    assert refused.value.reason == "certificate-profile"
    with pytest.raises(CertificateRefused) as refused:
        check_signing_profile(read_leaf(authority.issue(Role.SIGNER)[0]))
    assert refused.value.reason == "certificate-profile"


CHANGES: dict[str, dict[Any, Any]] = {
    "client authentication as well": {
        x509.ExtendedKeyUsage: (
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING, ExtendedKeyUsageOID.CLIENT_AUTH]),
            False,
        )
    },
    "no extended key usage": {x509.ExtendedKeyUsage: None},
    "a second name": {
        x509.SubjectAlternativeName: (
            x509.SubjectAlternativeName(
                [
                    x509.UniformResourceIdentifier("spiffe://hospitals.example/signer/release"),
                    x509.DNSName("release.example"),
                ]
            ),
            True,
        )
    },
    "another issuer in .1": {ISSUER_OID: (x509.UnrecognizedExtension(ISSUER_OID, b"spiffe://other"), False)},
    "no issuer in .8": {ISSUER_V2_OID: None},
    "another name's issuer in .8": {
        ISSUER_V2_OID: (x509.UnrecognizedExtension(ISSUER_V2_OID, b"\x0c\x05other"), False)
    },
    "an extension more": {x509.OCSPNoCheck: (x509.OCSPNoCheck(), False)},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_anything_else_is_not_the_profile(authority: Any, change: dict[Any, Any]) -> None:
    check_signing_profile(read_leaf(forged_with(authority, {})))
    with pytest.raises(CertificateRefused) as refused:
        check_signing_profile(read_leaf(forged_with(authority, change)))
    assert refused.value.reason == "certificate-profile"


def forged_with(authority: Any, change: dict[Any, Any]) -> x509.Certificate:
    good = issue(authority).certificate
    extensions: dict[Any, Any] = {
        (e.oid if isinstance(e.value, x509.UnrecognizedExtension) else type(e.value)): (e.value, e.critical)
        for e in good.extensions
    }
    return authority.forge(  # type: ignore[no-any-return]
        authority.id(Role.SIGNER, "release"), public_key=KEY.public_key, extensions={**extensions, **change}
    )[0]


def test_openssl_takes_it_for_code_signing(authority: Any, tmp_path: Path) -> None:
    leaf = issue(authority).certificate
    for name, certificate in (
        ("leaf", leaf),
        ("issuing", authority.issuer.certificate),
        ("root", authority.root),
    ):
        (tmp_path / f"{name}.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    checked = ["openssl", "verify", "-x509_strict", "-attime", str(int(authority.now.timestamp()))]
    checked += ["-CAfile", "root.pem", "-untrusted", "issuing.pem", "leaf.pem"]
    found = subprocess.run([*checked[:2], "-purpose", "any", *checked[2:]], cwd=tmp_path, capture_output=True)
    assert found.returncode == 0, found.stderr
    refused = subprocess.run(
        [*checked[:2], "-purpose", "sslclient", *checked[2:]], cwd=tmp_path, capture_output=True
    )
    assert refused.returncode != 0
