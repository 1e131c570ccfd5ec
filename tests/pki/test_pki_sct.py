"""Certificate timestamps: the bytes of RFC 6962, read in one way only, and good for one certificate."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.certificate_transparency import LogEntryType

from fltrust.artifacts.trustroot import TransparencyLog
from fltrust.clock import to_milliseconds
from fltrust.errors import CertificateRefused, FltrustError, Malformed, Oversized
from fltrust.identity import Role
from fltrust.keys import FileSigner, generate, verify_signature
from fltrust.pki.codesigning import SigningDraft, issue_signer
from fltrust.pki.sct import (
    SignedCertificateTimestamp,
    embedded_scts,
    issuer_key_hash,
    log_id_of,
    parse_sct_list,
    sct_extension,
    sign_sct,
    signed_data,
    verify_embedded_sct,
)
from fltrust.tlog.ctleaf import PrecertificateLeaf

CT = generate()


def log(key: FileSigner = CT, *, at: datetime, end: datetime | None = None) -> TransparencyLog:
    return TransparencyLog(
        "https://ct.example", key.public_key, log_id_of(key.public_key), at - timedelta(days=1), end
    )


def certify(authority: Any, *, promise: Any = None, name: str = "release") -> x509.Certificate:
    draft = SigningDraft.of(authority.id(Role.SIGNER, name), generate().public_key, now=authority.now)

    def honest(key_hash: bytes, tbs: bytes) -> SignedCertificateTimestamp:
        return sign_sct(CT, key_hash=key_hash, tbs=tbs, at=authority.now)

    return issue_signer(authority.issuer, draft, promise=promise or honest).certificate


def test_cryptography_reads_the_timestamp_that_we_embedded(authority: Any) -> None:
    leaf = certify(authority)
    found = leaf.extensions.get_extension_for_class(x509.PrecertificateSignedCertificateTimestamps)
    assert not found.critical
    (timestamp,) = found.value
    assert timestamp.entry_type is LogEntryType.PRE_CERTIFICATE
    assert timestamp.log_id == log_id_of(CT.public_key)
    assert timestamp.timestamp.replace(tzinfo=UTC) == authority.now
    # The signature is over the bytes of RFC 6962, 3.2, put together here a second time.
    spki = authority.issuer.certificate.public_key().public_bytes(
        Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    )
    digest = hashes.Hash(hashes.SHA256())
    digest.update(spki)
    tbs = leaf.tbs_precertificate_bytes
    data = struct.pack(">BBQH", 0, 0, to_milliseconds(authority.now), 1) + digest.finalize()
    data += len(tbs).to_bytes(3, "big") + tbs + b"\x00\x00"
    verify_signature(CT.public_key, timestamp.signature, data)


def test_a_verified_timestamp_gives_its_time(authority: Any) -> None:
    leaf = certify(authority)
    at = verify_embedded_sct(leaf, authority.issuer.certificate, [log(at=authority.now)])
    assert at == authority.now


def test_the_time_is_cut_to_milliseconds() -> None:
    assert to_milliseconds(datetime(1970, 1, 1, 0, 0, 1, 999_999, tzinfo=UTC)) == 1_999


def refusal(leaf: x509.Certificate, issuer: x509.Certificate, logs: list[TransparencyLog]) -> str:
    with pytest.raises(CertificateRefused) as refused:
        verify_embedded_sct(leaf, issuer, logs)
    return refused.value.reason


def test_a_log_that_is_not_trusted_then_is_refused(authority: Any) -> None:
    leaf, issuer, now = certify(authority), authority.issuer.certificate, authority.now
    assert refusal(leaf, issuer, []) == "certificate-path"
    assert refusal(leaf, issuer, [log(generate(), at=now)]) == "certificate-path"
    assert refusal(leaf, issuer, [log(at=now, end=now - timedelta(seconds=1))]) == "certificate-path"
    assert refusal(leaf, issuer, [log(at=now + timedelta(days=2))]) == "certificate-path"


def test_another_issuer_or_another_key_under_the_logs_id_is_refused(
    authority: Any, new_authority: Callable[..., Any]
) -> None:
    leaf, other = certify(authority), generate()
    assert refusal(leaf, new_authority().issuer.certificate, [log(at=authority.now)]) == "signature-invalid"
    posing = replace(log(at=authority.now), public_key=other.public_key)
    assert refusal(leaf, authority.issuer.certificate, [posing]) == "signature-invalid"


def test_the_timestamp_of_another_certificate_is_refused(authority: Any) -> None:
    (borrowed,) = embedded_scts(certify(authority))
    leaf = certify(authority, promise=lambda _hash, _tbs: borrowed, name="other")
    assert refusal(leaf, authority.issuer.certificate, [log(at=authority.now)]) == "signature-invalid"


def test_a_certificate_without_or_with_two_timestamps_is_refused(authority: Any) -> None:
    plain = authority.issue()[0]
    assert refusal(plain, authority.issuer.certificate, [log(at=authority.now)]) == "certificate-profile"
    twice = authority.forge(extensions={x509.UnrecognizedExtension: (sct_extension([SCT, SCT]), False)})[0]
    assert refusal(twice, authority.issuer.certificate, [log(at=authority.now)]) == "certificate-profile"


def test_a_list_that_cannot_be_read_is_refused(authority: Any) -> None:
    broken = x509.UnrecognizedExtension(sct_extension([SCT]).oid, b"\x04\x03\x00\x01\x00")
    leaf = authority.forge(extensions={x509.UnrecognizedExtension: (broken, False)})[0]
    assert refusal(leaf, authority.issuer.certificate, [log(at=authority.now)]) == "malformed"


def test_a_log_with_an_rsa_key_is_known_too(authority: Any) -> None:
    """Of old Sigstore deployments; such a timestamp says RSA, and one that says ECDSA is refused."""
    key = rsa.generate_private_key(65537, 2048)
    log_id = b"\x07" * 32
    at_ms = to_milliseconds(authority.now)

    def promise(key_hash: bytes, tbs: bytes, algorithm: bytes = b"\x04\x01") -> SignedCertificateTimestamp:
        data = signed_data(key_hash=key_hash, tbs=tbs, timestamp_ms=at_ms)
        signature = key.sign(data, padding.PKCS1v15(), hashes.SHA256())
        return SignedCertificateTimestamp(log_id, at_ms, signature, algorithm=algorithm)

    logs = [TransparencyLog("https://ct.example", key.public_key(), log_id, authority.now)]
    leaf = certify(authority, promise=promise)
    assert verify_embedded_sct(leaf, authority.issuer.certificate, logs) == authority.now
    posing = certify(authority, promise=lambda key_hash, tbs: promise(key_hash, tbs, b"\x04\x03"))
    assert refusal(posing, authority.issuer.certificate, logs) == "signature-invalid"


SCT = SignedCertificateTimestamp(b"\x01" * 32, 1_700_000_000_000, CT.sign(b""), b"ext")


def test_what_is_written_is_read_back() -> None:
    for timestamps in ((SCT,), (SCT, SCT)):
        data = sct_extension(timestamps).value
        header = 2 if data[1] < 0x80 else 2 + (data[1] & 0x7F)
        assert parse_sct_list(data[header:]) == timestamps


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00",
        b"\x00\x00",
        b"\x00\x01",
        b"\x00\x02\x00\x00",
        b"\x00\x03\x00\x02\x00",
        b"\x00\x2d\x00\x2b\x01" + b"\x00" * 42,  # version 2
    ],
)
def test_a_list_of_another_length_or_version_is_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        parse_sct_list(data)


def test_every_cut_and_every_byte_too_many_is_noticed() -> None:
    data = sct_extension([SCT]).value
    body = data[2:] if data[1] < 0x80 else data[3:]
    assert parse_sct_list(body) == (SCT,)
    for length in range(len(body)):
        with pytest.raises(FltrustError):
            parse_sct_list(body[:length])
    with pytest.raises(Malformed):
        parse_sct_list(body + b"\x00")


def test_sizes_are_bounded() -> None:
    with pytest.raises(Oversized):
        parse_sct_list(b"\x00" * 10_000)
    with pytest.raises(Oversized):
        sct_extension([SCT] * 9)
    with pytest.raises(Oversized):
        sct_extension([])
    with pytest.raises(Oversized):
        signed_data(key_hash=b"\x00" * 32, tbs=b"\x00" * 2**24, timestamp_ms=0)
    with pytest.raises(Malformed):
        signed_data(key_hash=b"\x00" * 31, tbs=b"\x00", timestamp_ms=0)


def test_the_issuers_key_hash_is_of_its_spki(authority: Any) -> None:
    key = authority.issuer.certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert issuer_key_hash(authority.issuer.certificate) == log_id_of(key)


def test_what_a_promise_is_over_is_what_stands_in_the_log() -> None:
    # RFC 6962, 3.2 and 3.4: the two structures have the same bytes. If they drifted apart, a certificate's
    # promise would be about another entry than the log's.
    key_hash, tbs, at_ms = bytes(range(32)), b"0\x03\x02\x01\x05", 1_764_000_000_123
    leaf = PrecertificateLeaf(at_ms, key_hash, tbs)
    assert signed_data(key_hash=key_hash, tbs=tbs, timestamp_ms=at_ms) == leaf.encode()
