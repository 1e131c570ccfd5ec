"""The trust file and the status in it: one byte form each, read strictly."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from fltrust import strictjson
from fltrust.artifacts.status import RevokedName, Status, TaintedAggregate, TaintedModel
from fltrust.artifacts.trustfile import TrustFile, read_status
from fltrust.artifacts.vsa import verification_summary
from fltrust.errors import Malformed, StatementRefused
from fltrust.identity import Digest, Epoch, RunId, TrustDomain
from fltrust.testing.desk import ScratchDesk

AT = datetime(2026, 11, 24, 12, 0, 0, 5, tzinfo=UTC)
ONE, TWO = (Digest.sha256_of(data) for data in (b"1", b"2"))
NAME = "spiffe://hospitals.example/signer/release"

FULL = Status(
    domain=TrustDomain("hospitals.example"),
    epoch=Epoch(2**60),
    at=AT,
    checkpoint="hospitals.example/log\n7\n…",
    revoked=(
        RevokedName(NAME, AT, AT - timedelta(days=1), True, frozenset({ONE, TWO}), "key-compromise"),
        RevokedName("pseudonym:" + "0" * 32, AT, None, False, frozenset(), "unspecified"),
    ),
    tainted_aggregates=(TaintedAggregate(ONE, RunId(2**64 - 1), 3, True),),
    tainted_models=(TaintedModel(TWO, "m.safetensors", False),),
)


@pytest.mark.parametrize("status", [FULL, Status(FULL.domain, Epoch(0), AT)])
def test_a_status_is_read_back_to_the_byte(status: Status) -> None:
    assert Status.from_payload(status.to_payload()) == status


@pytest.mark.parametrize(
    "path",
    [
        ("predicate", "revoked", 0, "name"),
        ("predicate", "revoked", 0, "identityWide"),
        ("predicate", "taintedAggregates", 0, "isDirect"),
        ("predicate", "taintedModels", 0, "subject"),
        ("predicate", "epoch"),
        ("predicate", "checkpoint"),
        ("predicate",),
        ("subject",),
        ("predicateType",),
    ],
)
def test_a_status_without_one_of_its_fields_is_none(path: tuple[str | int, ...]) -> None:
    value = json.loads(FULL.to_payload())
    parent = value
    for key in path[:-1]:
        parent = parent[key]
    del parent[path[-1]]
    with pytest.raises((Malformed, StatementRefused)):
        Status.from_payload(strictjson.encode(value))


def test_a_status_whose_subject_is_not_its_own_is_malformed() -> None:
    value = json.loads(FULL.to_payload())
    value["subject"][0]["digest"]["sha256"] = "00" * 32
    with pytest.raises(Malformed, match="byte form"):
        Status.from_payload(strictjson.encode(value))


def test_another_statement_is_no_status() -> None:
    value = json.loads(FULL.to_payload())
    value["predicateType"] = "https://slsa.dev/provenance/v1"
    with pytest.raises(StatementRefused):
        Status.from_payload(strictjson.encode(value))


def test_a_revocation_bars_from_the_earlier_of_its_own_time_and_the_compromise() -> None:
    def found(at: datetime) -> RevokedName | None:
        return FULL.revocation_of(NAME, ONE, signed_at=at)

    assert found(AT - timedelta(days=2)) is None
    assert found(AT - timedelta(days=1)) is FULL.revoked[0]
    assert found(AT) is FULL.revoked[0]
    assert FULL.revocation_of("somebody-else", ONE, signed_at=AT) is None


def test_a_trust_file_is_read_back_to_the_byte() -> None:
    desk = ScratchDesk()
    for status in (None, Status(desk.domain, Epoch(1), AT)):
        desk.status = status
        data = desk.trust_file()
        found = TrustFile.parse(data)
        assert found.to_json() == data
        assert (found.status is None) is (status is None)


def test_a_plain_trusted_root_is_a_trust_file_that_knows_less() -> None:
    root = TrustFile.parse(ScratchDesk().trust_file()).trusted_root
    found = TrustFile.parse(json.dumps(root, indent=2).encode())
    assert found == TrustFile(root)
    with pytest.raises(Malformed):
        found.to_json()


@pytest.mark.parametrize(
    "change",
    [{"type": "urn:fltrust:trust:v2"}, {"status": 1}, {"trustedRoot": []}, {"more": 1}, {"sequence": "1"}],
)
def test_what_is_no_trust_file_is_malformed(change: dict[str, object]) -> None:
    value = {**json.loads(ScratchDesk().trust_file()), **change}
    with pytest.raises(Malformed):
        TrustFile.parse(strictjson.encode(value))


def test_a_trust_file_without_a_status_gives_none(tmp_path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "trust.json"
    path.write_bytes(ScratchDesk().trust_file())
    with pytest.raises(Malformed, match="status"):
        read_status(path)


def test_a_verification_summary_names_verifier_policy_and_inputs() -> None:
    value = json.loads(
        verification_summary(
            name="m",
            subject=ONE,
            is_passed=False,
            at=AT,
            policy=TWO,
            policy_uri="file:policy.toml",
            inputs={"file:m.sig": ONE},
            reasons=("tainted",),
        )
    )
    assert value["subject"] == [{"name": "m", "digest": {"sha256": ONE.hex}}]
    predicate = value["predicate"]
    assert predicate["verificationResult"] == "FAILED"
    assert predicate["policy"] == {"uri": "file:policy.toml", "digest": {"sha256": TWO.hex}}
    assert predicate["inputAttestations"] == [{"uri": "file:m.sig", "digest": {"sha256": ONE.hex}}]
    assert predicate["timeVerified"] == "2026-11-24T12:00:00.000005Z"
    assert replace(FULL).domain == "hospitals.example"
