"""Timestamps: OpenSSL asks, reads and verifies; whatever is asked gets a proper answer."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID
from rfc3161_client import decode_timestamp_response

from fltrust.errors import CertificateRefused, Conflict, EvidenceInvalid, Malformed, Oversized, Unavailable
from fltrust.keys import generate
from fltrust.pki import rfc3161 as tsp
from fltrust.pki.timestamping import (
    TIMESTAMP_POLICY,
    TimestampAuthority,
    TsaDraft,
    check_tsa_profile,
    issue_tsa,
)
from fltrust.pki.timestamps import verify_timestamp
from fltrust.pki.types import TrustedChain

KEY = generate()
TSA_LIFETIME = timedelta(days=90)
SIGNATURE = b"the bytes of a signature"


class Stopped:
    """A clock that stands, and is set."""

    def __init__(self, at: datetime) -> None:
        self.at = at

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return 0.0


def certify(authority: Any) -> x509.Certificate:
    return issue_tsa(authority.issuer, TsaDraft.of(authority.issuer, KEY.public_key, now=authority.now))


def make(authority: Any, *, at: datetime | None = None, certificate: Any = None) -> TimestampAuthority:
    return TimestampAuthority(
        signer=KEY,
        certificate=certificate or certify(authority),
        chain=[authority.issuer.certificate],
        clock=Stopped(at or authority.now),
    )


def trusted(
    tsa: TimestampAuthority, authority: Any, *, start: datetime | None = None, end: datetime | None = None
) -> list[TrustedChain]:
    chain = (tsa.certificate, *tsa.chain, authority.root)
    return [TrustedChain(chain, start or authority.now - timedelta(days=1), end)]


class Shell:
    """OpenSSL in a folder with the authority's certificates and some data."""

    def __init__(self, folder: Path, tsa: TimestampAuthority, authority: Any) -> None:
        self.folder = folder
        self.at = str(int(authority.now.timestamp()))
        (folder / "data").write_bytes(SIGNATURE)
        for name, chain in (
            ("root", [authority.root]),
            ("untrusted", [tsa.certificate, *tsa.chain]),
        ):
            (folder / f"{name}.pem").write_bytes(b"".join(c.public_bytes(Encoding.PEM) for c in chain))

    def ts(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["openssl", "ts", *arguments], cwd=self.folder, capture_output=True, text=True, timeout=30
        )

    def query(self, *arguments: str) -> bytes:
        found = self.ts("-query", "-data", "data", "-out", "query", *arguments)
        assert found.returncode == 0, found.stderr
        return (self.folder / "query").read_bytes()

    def verify(self, answer: bytes, *arguments: str) -> bool:
        (self.folder / "answer").write_bytes(answer)
        found = self.ts("-verify", "-in", "answer", "-CAfile", "root.pem", "-attime", self.at, *arguments)
        return found.returncode == 0 and "Verification: OK" in found.stdout


@pytest.mark.parametrize("digest", ["sha256", "sha384", "sha512"])
def test_openssl_verifies_answers_to_its_own_queries(authority: Any, tmp_path: Path, digest: str) -> None:
    tsa = make(authority)
    shell = Shell(tmp_path, tsa, authority)
    answer = tsa.answer(shell.query(f"-{digest}", "-cert"))
    assert shell.verify(answer, "-queryfile", "query")  # nonce, policy, imprint, path, ESSCertIDv2
    assert shell.verify(answer, "-data", "data")
    # Without certificates, as a query without -cert asks for, they must come from elsewhere.
    bare = tsa.answer(shell.query(f"-{digest}"))
    assert len(bare) < len(answer)
    assert not shell.verify(bare, "-queryfile", "query")
    assert shell.verify(bare, "-queryfile", "query", "-untrusted", "untrusted.pem")


def test_openssl_prints_what_was_granted(authority: Any, tmp_path: Path) -> None:
    tsa = make(authority)
    shell = Shell(tmp_path, tsa, authority)
    (tmp_path / "answer").write_bytes(tsa.answer(shell.query("-sha384")))
    text = shell.ts("-reply", "-in", "answer", "-text").stdout
    for line in (
        "Status: Granted.",
        f"Policy OID: {TIMESTAMP_POLICY.dotted_string}",
        "Hash Algorithm: sha384",
        "Time stamp: Mar  1 12:00:00 2026 GMT",
        "Accuracy: 0x01 seconds",
        "Nonce: 0x",
    ):
        assert line in text, text


def test_openssl_refuses_another_root_another_data_and_another_nonce(
    authority: Any, new_authority: Callable[..., Any], tmp_path: Path
) -> None:
    tsa = make(authority)
    shell = Shell(tmp_path, tsa, authority)
    answer = tsa.answer(shell.query("-sha256", "-cert"))
    assert shell.verify(answer, "-queryfile", "query")
    shell.query("-sha256", "-cert")  # another nonce
    assert not shell.verify(answer, "-queryfile", "query")
    (tmp_path / "data").write_bytes(b"other")
    assert not shell.verify(answer, "-data", "data")
    (tmp_path / "data").write_bytes(SIGNATURE)
    (tmp_path / "root.pem").write_bytes(new_authority().root.public_bytes(Encoding.PEM))
    assert not shell.verify(answer, "-data", "data")


def test_what_is_made_in_process_verifies_everywhere(authority: Any, tmp_path: Path) -> None:
    tsa = make(authority)
    token = tsa.timestamp(SIGNATURE)
    assert Shell(tmp_path, tsa, authority).verify(token, "-data", "data")
    assert verify_timestamp(token, message=SIGNATURE, authorities=trusted(tsa, authority)) == authority.now


def test_the_time_is_cut_to_the_second(authority: Any) -> None:
    tsa = make(authority, at=authority.now + timedelta(microseconds=999_999))
    found = verify_timestamp(tsa.timestamp(SIGNATURE), message=SIGNATURE, authorities=trusted(tsa, authority))
    assert found == authority.now


def test_serials_are_never_the_same(authority: Any) -> None:
    tsa = make(authority)
    found = {decode_timestamp_response(tsa.timestamp(SIGNATURE)).tst_info.serial_number for _ in range(50)}
    assert len(found) == 50


def request(**changes: Any) -> bytes:
    values: dict[str, Any] = {
        "version": 1,
        "message_imprint": imprint(),
        "req_policy": None,
        "nonce": None,
        "cert_req": False,
        "extensions": None,
        **changes,
    }
    return asn1.encode_der(tsp.TimeStampReq(**values))


def imprint(
    algorithm: x509.ObjectIdentifier = tsp.SHA256, length: int = 32, parameters: Any = None
) -> tsp.MessageImprint:
    return tsp.MessageImprint(
        hash_algorithm=tsp.Algorithm(algorithm=algorithm, parameters=parameters),
        hashed_message=b"\x05" * length,
    )


SHA1 = x509.ObjectIdentifier("1.3.14.3.2.26")
BAD = {
    "no DER": (b"nonsense", "the data submitted has the wrong format"),
    "nothing": (b"", "the data submitted has the wrong format"),
    "a byte too many": (request() + b"\x00", "the data submitted has the wrong format"),
    "too long": (request(nonce=2**40_000), "the data submitted has the wrong format"),
    "version 2": (request(version=2), "transaction not permitted or supported"),
    "SHA-1": (request(message_imprint=imprint(SHA1, 20)), "unrecognized or unsupported algorithm identifier"),
    "another length": (
        request(message_imprint=imprint(length=31)),
        "the data submitted has the wrong format",
    ),
    "negative nonce": (request(nonce=-1), "the data submitted has the wrong format"),
    "long nonce": (request(nonce=2**160), "the data submitted has the wrong format"),
    "another policy": (
        request(req_policy=x509.ObjectIdentifier("1.2.3.4")),
        "the requested TSA policy is not supported by the TSA",
    ),
    "an extension": (
        request(
            extensions=[tsp.RequestExtension(oid=x509.ObjectIdentifier("1.2.3"), critical=False, value=b"")]
        ),
        "the requested extension is not supported by the TSA",
    ),
}


@pytest.mark.parametrize(("asked", "failure"), BAD.values(), ids=BAD)
def test_a_bad_request_gets_a_refusal_that_openssl_reads(
    authority: Any, tmp_path: Path, asked: bytes, failure: str
) -> None:
    answer = make(authority).answer(asked)
    (tmp_path / "answer").write_bytes(answer)
    text = subprocess.run(
        ["openssl", "ts", "-reply", "-in", "answer", "-text"], cwd=tmp_path, capture_output=True, text=True
    ).stdout
    assert "Status: Rejected." in text
    assert failure in text
    with pytest.raises(Malformed):
        verify_timestamp(answer, message=b"", authorities=[])


@pytest.mark.parametrize(
    "asked",
    [
        request(),
        request(nonce=0),
        request(nonce=2**160 - 1),
        request(req_policy=TIMESTAMP_POLICY),
        request(message_imprint=imprint(parameters=asn1.Null())),
    ],
)
def test_what_may_be_asked_is_granted_and_echoed(authority: Any, asked: bytes) -> None:
    answered = decode_timestamp_response(make(authority).answer(asked))
    wanted = asn1.decode_der(tsp.TimeStampReq, asked)
    assert answered.status == 0
    assert answered.tst_info.nonce == wanted.nonce
    assert answered.tst_info.message_imprint.message == wanted.message_imprint.hashed_message
    assert answered.signed_data.certificates == set()


def test_an_authority_whose_certificate_is_over_stamps_nothing(authority: Any, tmp_path: Path) -> None:
    tsa = make(authority, at=authority.now + TSA_LIFETIME + timedelta(seconds=1))
    (tmp_path / "answer").write_bytes(tsa.answer(request()))
    text = subprocess.run(
        ["openssl", "ts", "-reply", "-in", "answer", "-text"], cwd=tmp_path, capture_output=True, text=True
    ).stdout
    assert "the TSA's time source is not available" in text
    with pytest.raises(Unavailable):
        tsa.timestamp(SIGNATURE)


def test_the_certificate_may_timestamp_and_nothing_else(authority: Any) -> None:
    certificate = certify(authority)
    extensions = {e.oid: e for e in certificate.extensions}
    extended = extensions[ExtensionOID.EXTENDED_KEY_USAGE]
    assert extended.critical
    assert list(extended.value) == [ExtendedKeyUsageOID.TIME_STAMPING]
    assert extensions[ExtensionOID.KEY_USAGE].critical
    assert ExtensionOID.SUBJECT_ALTERNATIVE_NAME not in extensions
    assert certificate.not_valid_after_utc - authority.now == TSA_LIFETIME


def test_it_ends_with_the_issuing_certificate_at_the_latest(authority: Any) -> None:
    end = authority.issuer.certificate.not_valid_after_utc
    draft = TsaDraft.of(authority.issuer, KEY.public_key, now=end - timedelta(days=3))
    assert issue_tsa(authority.issuer, draft).not_valid_after_utc == end
    with pytest.raises(Conflict):
        issue_tsa(authority.issuer, draft)
    outliving = TsaDraft(
        authority.domain, KEY.public_key, end - timedelta(days=1), end + timedelta(seconds=1)
    )
    with pytest.raises(CertificateRefused):
        issue_tsa(authority.issuer, outliving)


def test_other_certificates_do_not_make_an_authority(authority: Any) -> None:
    for certificate in (authority.issue()[0], authority.root):
        with pytest.raises(CertificateRefused):
            check_tsa_profile(certificate)
    with pytest.raises(Conflict):
        TimestampAuthority(signer=generate(), certificate=certify(authority), clock=Stopped(authority.now))
    both = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.TIME_STAMPING, ExtendedKeyUsageOID.CODE_SIGNING])
    one = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.TIME_STAMPING])
    for value, critical in ((both, True), (one, False)):
        forged = authority.forge(extensions={x509.ExtendedKeyUsage: (value, critical)})[0]
        with pytest.raises(CertificateRefused):
            check_tsa_profile(forged)


def why(token: bytes, authorities: list[TrustedChain], message: bytes = SIGNATURE) -> str:
    with pytest.raises(EvidenceInvalid) as refused:
        verify_timestamp(token, message=message, authorities=authorities)
    return refused.value.reason


def test_a_timestamp_counts_years_later_and_only_within_the_window(authority: Any) -> None:
    """No clock is read: certificates and window are judged at the time that is stamped."""
    tsa, now = make(authority), authority.now
    token = tsa.timestamp(SIGNATURE)
    assert verify_timestamp(token, message=SIGNATURE, authorities=trusted(tsa, authority, end=now)) == now
    assert why(token, trusted(tsa, authority, end=now - timedelta(seconds=1))) == "timestamp-untrusted"
    assert why(token, trusted(tsa, authority, start=now + timedelta(seconds=1))) == "timestamp-untrusted"
    assert why(token, []) == "timestamp-untrusted"


def test_a_time_out_of_the_certificates_life_does_not_count(authority: Any) -> None:
    """An authority that stamped with a certificate that was over, or not yet there."""
    tsa = make(authority)
    late = tsa.certificate.not_valid_after_utc + timedelta(seconds=1)
    for at in (late, authority.now - timedelta(hours=1)):
        rogue = make(authority, at=at, certificate=tsa.certificate)
        rogue.is_valid_at = lambda _at: True  # type: ignore[method-assign]
        token = rogue.timestamp(SIGNATURE)
        window = trusted(tsa, authority, start=authority.now - timedelta(days=9))
        assert why(token, window) == "timestamp-invalid"


def test_another_message_another_authority_and_another_chain_are_refused(
    authority: Any, new_authority: Callable[..., Any]
) -> None:
    tsa, other = make(authority), new_authority()
    token = tsa.timestamp(SIGNATURE)
    assert why(token, trusted(tsa, authority), b"other") == "timestamp-invalid"
    stranger = TimestampAuthority(
        signer=KEY,
        certificate=certify(other),
        chain=[other.issuer.certificate],
        clock=Stopped(other.now),
    )
    assert why(token, trusted(stranger, other)) == "timestamp-invalid"
    # A renewed certificate of the same key is another one: the token names the one it was made with.
    renewed = make(authority)
    assert why(token, trusted(renewed, authority)) == "timestamp-invalid"
    both = trusted(renewed, authority) + trusted(tsa, authority)
    assert verify_timestamp(token, message=SIGNATURE, authorities=both) == authority.now


def test_a_chain_in_the_trusted_root_must_hold(authority: Any, new_authority: Callable[..., Any]) -> None:
    tsa, start = make(authority), authority.now - timedelta(days=1)
    token = tsa.timestamp(SIGNATURE)
    for chain in (
        (tsa.certificate,),
        (tsa.certificate, authority.issuer.certificate),
        (tsa.certificate, authority.root),
        (tsa.certificate, authority.issuer.certificate, new_authority().root),
        (tsa.certificate, tsa.certificate),
        (authority.issue()[0], authority.issuer.certificate, authority.root),
    ):
        assert why(token, [TrustedChain(chain, start)]) == "timestamp-invalid"


def test_a_token_without_certificates_is_as_good(authority: Any) -> None:
    from hashlib import sha256

    tsa = make(authority)
    asked = request(
        message_imprint=tsp.MessageImprint(
            hash_algorithm=tsp.Algorithm(algorithm=tsp.SHA256, parameters=None),
            hashed_message=sha256(SIGNATURE).digest(),
        )
    )
    assert (
        verify_timestamp(tsa.answer(asked), message=SIGNATURE, authorities=trusted(tsa, authority))
        == authority.now
    )


def test_what_is_no_timestamp_is_malformed_and_what_is_too_long_is_not_read(authority: Any) -> None:
    tsa = make(authority)
    token = tsa.timestamp(SIGNATURE)
    for data in (b"", b"nonsense", token[:-1], token[1:]):
        with pytest.raises(Malformed):
            verify_timestamp(data, message=SIGNATURE, authorities=trusted(tsa, authority))
    with pytest.raises(Oversized):
        verify_timestamp(token + b"\x00" * 65_536, message=SIGNATURE, authorities=[])


def test_no_flipped_bit_is_overlooked(authority: Any) -> None:
    """Not even where no signature covers it: in versions, algorithms and certificates that ride along."""
    tsa = make(authority)
    token = tsa.timestamp(SIGNATURE)
    roots = trusted(tsa, authority)
    assert verify_timestamp(token, message=SIGNATURE, authorities=roots) == authority.now
    for index in range(len(token)):
        flipped = bytearray(token)
        flipped[index] ^= 1 << (index % 8)
        with pytest.raises((Malformed, EvidenceInvalid)):
            verify_timestamp(bytes(flipped), message=SIGNATURE, authorities=roots)


def test_utc_is_what_comes_out(authority: Any) -> None:
    tsa = make(authority)
    at = verify_timestamp(tsa.timestamp(SIGNATURE), message=SIGNATURE, authorities=trusted(tsa, authority))
    assert at.tzinfo is not None
    assert at.astimezone(UTC) == authority.now
