"""Entries: one byte form for each, and nothing but these is read."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import pytest
from log_certificates import AT, Ca, leaf, precertificate
from log_world import DOMAIN, enrolled, sealed_round

from fltrust import strictjson
from fltrust.errors import InvalidInput, Malformed, Oversized
from fltrust.identity import CaKeyId, Digest, Epoch, KeyId, Role, RunId, Serial
from fltrust.tlog.approvals import EnrollmentRequestEntry, OperationEntry, OperationWord, RequestWord
from fltrust.tlog.entries import (
    AuthorityChange,
    CertificateLeaf,
    EnrollmentRefused,
    Entry,
    LogKind,
    LogOpened,
    ParticipantCertificate,
    PrecertificateLeaf,
    PublicName,
    PublicNames,
    StatementBody,
    Taint,
    TaintedAggregate,
    TaintedModel,
    TaintedRound,
    TrustEventEntry,
    kind_of,
    new_entry,
    parse_entry,
    to_milliseconds,
)
from fltrust.tlog.keyacts import KeyDestroyed, KeyUsed
from fltrust.tlog.ports import MAX_ENTRY
from fltrust.tlog.trustevents import MAX_LISTED

CA = Ca()
NAME = PublicName("spiffe://hospitals.example/participant/site-a")
PSEUDONYM = PublicName("pseudonym:" + "0a" * 16)
DIGEST = Digest.sha256_of(b"x")
REKOR = b'{"apiVersion":"0.0.2","kind":"hashedrekord","spec":{"hashedRekordV002":{"data":{"digest":"eA=="}}}}'

ONE_OF_EACH: dict[LogKind, Entry] = {
    LogKind.LOG_OPENED: LogOpened(
        at=AT,
        domain=DOMAIN,
        origin="hospitals.example/log",
        log_key="hospitals.example/log+00000000+AA==",
        public_names=PublicNames.PSEUDONYMS,
        imported=3,
    ),
    LogKind.CERTIFICATE: leaf(CA.issue(NAME)),
    LogKind.PRECERTIFICATE: precertificate(CA.issue(NAME), CA),
    LogKind.PARTICIPANT_CERTIFICATE: ParticipantCertificate(
        at=AT, name=PSEUDONYM, certificate=DIGEST, not_before=AT, not_after=AT + timedelta(hours=1)
    ),
    LogKind.TRUST_EVENT: TrustEventEntry.of(
        epoch=Epoch(2**63 - 1),
        event="revoked",
        at=AT,
        actor=NAME,
        subject=PSEUDONYM,
        identity_wide=True,
        serials=[Serial(1), Serial(2**158)],
        keys=[KeyId("ab" * 32)],
        node_key=b"\x30" * 91,
        run_id=RunId(2**64 - 1),
        reason="key-compromise",
        compromised_since=AT,
    ),
    LogKind.ENROLLMENT_REFUSED: EnrollmentRefused(
        at=AT, token_id="t1", role=Role.PARTICIPANT, name=NAME, reason="token-used"
    ),
    LogKind.SEALED_ROUND: sealed_round(7),
    LogKind.STATEMENT: StatementBody.parse(REKOR),
    LogKind.TAINT: Taint.of(
        at=AT,
        epoch=Epoch(4),
        participant=NAME,
        since=AT,
        rounds=[TaintedRound(RunId(1), 2)],
        aggregates=[TaintedAggregate(RunId(1), 2, DIGEST, True)],
        models=[TaintedModel("m", DIGEST, False)],
    )[0],
    LogKind.ENROLLMENT_REQUEST: EnrollmentRequestEntry(
        at=AT,
        request=DIGEST,
        step=RequestWord.APPROVED,
        protocol="est",
        evidence="join-token",
        role=Role.DEVICE,
        name=NAME,
        operator=NAME,
        decision=DIGEST,
        count=1,
        needed=2,
    ),
    LogKind.OPERATION: OperationEntry(
        at=AT,
        operation=DIGEST,
        operation_kind="release-hold",
        step=OperationWord.EXECUTED,
        operator=NAME,
        decision=DIGEST,
        result=DIGEST,
        count=2,
        needed=2,
    ),
    LogKind.KEY_USED: KeyUsed(
        at=AT,
        since=AT - timedelta(hours=1),
        key="issuing",
        key_id=KeyId("ab" * 32),
        home="pkcs11",
        signatures=412,
        failed=1,
    ),
    LogKind.KEY_DESTROYED: KeyDestroyed(
        at=AT,
        key_id=KeyId("ab" * 32),
        home="awskms",
        was_there=True,
        gone_at=AT + timedelta(days=7),
        reason="retired",
    ),
}


def test_there_is_an_example_of_every_kind() -> None:
    assert set(ONE_OF_EACH) == set(LogKind)


@pytest.mark.parametrize("kind", LogKind)
def test_an_entry_is_read_back_as_it_was(kind: LogKind) -> None:
    entry = ONE_OF_EACH[kind]
    appended = new_entry(entry, at=AT, subjects=("run:1",))
    assert (appended.kind, appended.subjects) == (kind, ("run:1",))
    assert parse_entry(appended.data) == entry
    assert kind_of(parse_entry(appended.data)) is kind


@pytest.mark.parametrize("kind", [k for k in LogKind if ONE_OF_EACH[k].encode().startswith(b'{"')])
def test_only_the_one_byte_form_of_json_is_read(kind: LogKind) -> None:
    value = json.loads(ONE_OF_EACH[kind].encode())
    spaced = json.dumps(value, sort_keys=True).encode()
    backwards = json.dumps(dict(reversed(value.items())), separators=(",", ":")).encode()
    for other in (spaced, backwards, ONE_OF_EACH[kind].encode() + b"\n"):
        with pytest.raises(Malformed):
            parse_entry(other)


@pytest.mark.parametrize("kind", [k for k in LogKind if ONE_OF_EACH[k].encode().startswith(b'{"')])
def test_a_field_more_or_less_is_refused(kind: LogKind) -> None:
    value = json.loads(ONE_OF_EACH[kind].encode())
    with pytest.raises(Malformed):
        parse_entry(strictjson.encode({**value, "zz": 1}))
    for name in value:
        with pytest.raises(Malformed):
            parse_entry(strictjson.encode({k: v for k, v in value.items() if k != name}))


def test_a_time_in_other_digits_is_not_the_same_entry() -> None:
    data = sealed_round(1).encode()
    assert b".000000Z" in data
    with pytest.raises(Malformed, match="one byte form"):
        parse_entry(data.replace(b".000000Z", b".000Z"))


def test_an_unknown_type_is_refused_by_name() -> None:
    with pytest.raises(Malformed, match="urn:fltrust:log:coffee:v1") as refused:
        parse_entry(b'{"at":"","type":"urn:fltrust:log:coffee:v1"}')
    assert refused.value.reason == "unknown-type"
    with pytest.raises(Malformed, match=r"'rpm' '0\.0\.1'"):
        parse_entry(b'{"apiVersion":"0.0.1","kind":"rpm","spec":{}}')
    with pytest.raises(Malformed, match=r"'hashedrekord' '0\.0\.1'"):
        parse_entry(b'{"apiVersion":"0.0.1","kind":"hashedrekord","spec":{}}')


@pytest.mark.parametrize(
    "data", [b"", b"\x00", b"\x00\x01", b"{}", b"[]", b"null", b"\xff\xfe", b'{"type":1}']
)
def test_what_is_no_entry_is_refused(data: bytes) -> None:
    with pytest.raises(Malformed):
        parse_entry(data)


def test_size_is_bounded_before_anything_is_parsed() -> None:
    with pytest.raises(Oversized):
        parse_entry(b"\x00\x00" + bytes(MAX_ENTRY))
    with pytest.raises(Oversized):
        parse_entry(b"{" * (MAX_ENTRY + 1))
    with pytest.raises(Malformed):
        parse_entry(b'{"a":' * 10_000)


def test_a_revocation_of_ten_thousand_certificates_still_fits() -> None:
    serials, keys = [Serial(2**158 + i) for i in range(10_000)], [KeyId(f"{i:064x}") for i in range(10_000)]
    entry = TrustEventEntry.of(
        epoch=Epoch(3), event="revoked", at=AT, subject=NAME, serials=serials, keys=keys, identity_wide=True
    )
    assert (len(entry.serials), entry.serial_count, entry.key_count) == (MAX_LISTED, 10_000, 10_000)
    everything = {"keys": [str(key) for key in keys], "serials": [serial.hex for serial in serials]}
    assert entry.named == Digest.sha256_of(strictjson.encode(everything))
    assert parse_entry(new_entry(entry).data) == entry


def test_a_list_that_was_cut_short_without_saying_so_is_refused() -> None:
    whole = enrolled(1)
    with pytest.raises(Malformed, match="list the first"):
        replace(whole, serial_count=2)
    with pytest.raises(Malformed, match="list the first"):
        replace(whole, named=DIGEST)


def test_a_taint_of_thousands_takes_as_many_entries_as_it_needs() -> None:
    models = [TaintedModel("\x01" * 256, DIGEST, False) for _ in range(100)]
    aggregates = [TaintedAggregate(RunId(2**64 - 1), 2**31 - 1, DIGEST, False) for _ in range(1000)]
    entries = Taint.of(
        at=AT, epoch=Epoch(3), participant=NAME, since=AT, models=models, aggregates=aggregates
    )
    for entry in entries:
        assert parse_entry(new_entry(entry).data) == entry
    assert [m for e in entries for m in e.models] == models
    assert [a for e in entries for a in e.aggregates] == aggregates
    (empty,) = Taint.of(at=AT, epoch=Epoch(3), participant=NAME, since=AT)
    assert parse_entry(new_entry(empty).data) == empty


@pytest.mark.parametrize("name", ["", "pseudonym:", "pseudonym:" + "A" * 32, "site-a", "spiffe://x/y/z"])
def test_a_public_name_is_a_spiffe_id_or_a_pseudonym(name: str) -> None:
    with pytest.raises(Malformed):
        PublicName(name)


def test_certificates_are_framed_as_rfc_6962_says() -> None:
    certificate = leaf(CA.issue(NAME))
    assert isinstance(certificate, CertificateLeaf)
    size = len(certificate.certificate).to_bytes(3, "big")
    stamp = to_milliseconds(AT).to_bytes(8, "big")
    assert certificate.encode() == (
        b"\x00\x00" + stamp + b"\x00\x00" + size + certificate.certificate + b"\x00\x00"
    )
    pre = precertificate(CA.issue(NAME), CA)
    size = len(pre.tbs_certificate).to_bytes(3, "big")
    assert pre.encode() == (
        b"\x00\x00" + stamp + b"\x00\x01" + pre.issuer_key_hash + size + pre.tbs_certificate + b"\x00\x00"
    )
    assert pre.at == certificate.at == AT


def test_a_precertificate_is_read_like_the_certificate_it_became() -> None:
    certificate = CA.issue(NAME)
    read = precertificate(certificate, CA).read()
    assert read.tbs_certificate_bytes == certificate.tbs_certificate_bytes
    assert list(read.extensions) == list(certificate.extensions)


@pytest.mark.parametrize("kind", [LogKind.CERTIFICATE, LogKind.PRECERTIFICATE])
def test_a_certificate_entry_cut_or_grown_anywhere_is_refused(kind: LogKind) -> None:
    data = ONE_OF_EACH[kind].encode()
    for cut in range(len(data)):
        with pytest.raises(InvalidInput):
            parse_entry(data[:cut])
    with pytest.raises(Malformed):
        parse_entry(data + b"\x00")


def test_a_certificate_entry_of_another_kind_or_time_is_refused() -> None:
    data = ONE_OF_EACH[LogKind.CERTIFICATE].encode()
    with pytest.raises(Malformed, match="x509_entry"):
        parse_entry(data[:10] + b"\x00\x02" + data[12:])
    with pytest.raises(Malformed, match="9999"):
        parse_entry(data[:2] + b"\xff" * 8 + data[10:])
    with pytest.raises(Malformed, match="certificate in DER"):
        parse_entry(CertificateLeaf(0, b"not one").encode())
    with pytest.raises(Malformed, match="TBSCertificate"):
        parse_entry(PrecertificateLeaf(0, bytes(32), b"not one").encode())
    with pytest.raises(Malformed, match="32 bytes"):
        PrecertificateLeaf(0, bytes(31), b"x").encode()
    with pytest.raises(Oversized):
        CertificateLeaf(0, bytes(MAX_ENTRY)).encode()


def test_a_statement_states_no_time_so_one_must_be_given() -> None:
    with pytest.raises(Malformed, match="time"):
        new_entry(StatementBody.parse(REKOR))
    assert new_entry(StatementBody.parse(REKOR), at=AT).at == AT


@pytest.mark.parametrize(
    ("event", "change"),
    [
        ("issuer-revoked", AuthorityChange(DOMAIN, None, CaKeyId("0a" * 20))),
        ("bundle-changed", AuthorityChange(DOMAIN, 7, None)),
    ],
)
def test_an_event_about_a_ca_says_which(event: str, change: AuthorityChange) -> None:
    entry = TrustEventEntry.of(epoch=Epoch(3), event=event, at=AT, authority=change)
    assert parse_entry(new_entry(entry).data) == entry
    with pytest.raises(Malformed):
        TrustEventEntry.of(epoch=Epoch(3), event=event, at=AT)
    with pytest.raises(Malformed):
        TrustEventEntry.of(epoch=Epoch(3), event="revoked", at=AT, subject=NAME, authority=change)
