"""Statements: one byte form each, and refusal of everything else."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import FrozenInstanceError, fields, replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from update_world import NOW, World, content

from fltrust.errors import FltrustError, InvalidInput, Malformed, Oversized, StatementRefused
from fltrust.identity import Digest, KeyId, NodeId, RunId, SpiffeId
from fltrust.updates import (
    AdmittedUpdate,
    InstructionStatement,
    Phase,
    SealedRoundStatement,
    Statement,
    UpdateStatement,
    parse_statement,
    phase_of,
)
from fltrust.updates.intoto import MAX_PAYLOAD_BYTES, MAX_SEALED_PAYLOAD_BYTES
from fltrust.updates.receipt import MAX_COHORT

Change = Callable[[dict[str, Any]], Any]


@pytest.fixture(scope="module")
def instruction(world: World) -> InstructionStatement:
    return world.instruction(content())


@pytest.fixture(scope="module")
def update(world: World, instruction: InstructionStatement) -> UpdateStatement:
    return world.update(content(5.0, 6.0), answers=instruction)


@pytest.fixture(scope="module")
def receipt(world: World, update: UpdateStatement) -> SealedRoundStatement:
    return world.receipt(update)


@pytest.fixture(scope="module", params=["instruction", "update", "receipt"])
def statement(request: pytest.FixtureRequest) -> Statement:
    found: Statement = request.getfixturevalue(request.param)
    return found


def rewritten(statement: Statement, change: Change) -> bytes:
    value = json.loads(statement.to_payload())
    return json.dumps(change(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def predicate(**changes: Any) -> Change:
    return lambda value: value | {"predicate": value["predicate"] | changes}


def test_a_statement_round_trips(statement: Statement) -> None:
    payload = statement.to_payload()
    assert parse_statement(payload) == statement
    assert type(statement).from_payload(payload) == statement
    assert statement.to_payload() == payload


def test_only_a_receipt_at_the_start_of_a_log_has_no_root(receipt: SealedRoundStatement) -> None:
    first = replace(receipt, index=0, root=None)
    assert parse_statement(first.to_payload()) == first
    for index, root in ((0, receipt.root), (1, None)):
        with pytest.raises(Malformed, match="root"):
            replace(receipt, index=index, root=root)


def test_a_receipt_reads_as_documented(receipt: SealedRoundStatement) -> None:
    said = json.loads(receipt.to_payload())
    assert said["predicateType"] == "urn:fltrust:statement:sealed-round:v2"
    assert said["subject"][0]["name"] == "round/hospitals.example/7"
    assert said["predicate"]["index"] == "7"
    assert said["predicate"]["root"] == str(receipt.root)
    assert said["predicate"]["log"] == "ef" * 32


def test_an_update_reads_as_documented(update: UpdateStatement, instruction: InstructionStatement) -> None:
    assert json.loads(update.to_payload()) == {
        "_type": "https://in-toto.io/Statement/v1",
        "predicateType": "urn:fltrust:statement:update:v1",
        "subject": [
            {
                "name": "update/0123456789abcdef0123456789abcdef/site-a",
                "digest": {"fltrust-content-v1": update.content.hex},
            }
        ],
        "predicate": {
            "domain": "hospitals.example",
            "runId": "18446744073709551615",
            "round": 2,
            "phase": "train",
            "step": 3,
            "participant": "spiffe://hospitals.example/participant/site-a",
            "nodeId": "9223372036854775809",
            "nodeKey": "ab" * 32,
            "messageType": "train",
            "instructionId": "0123456789abcdef0123456789abcdef",
            "instruction": str(Digest.sha256_of(instruction.to_payload())),
            "model": f"fltrust-model-v1:{instruction.model.hex}",
            "signedAt": "2026-03-01T12:01:00.250000Z",
            "certificate": str(update.certificate),
        },
    }


def test_every_field_of_a_statement_is_in_its_bytes(statement: Statement) -> None:
    payload = statement.to_payload()
    other: dict[str, Any] = {
        "domain": None, "index": 8, "root": Digest.sha256_of(b"x"), "log": KeyId("12" * 32),
        "run_id": RunId(1), "round": 9,
        "phase": None, "step": 9, "instruction_id": "f" * 32, "participant": None, "node_id": NodeId(1),
        "node_key": KeyId("cd" * 32), "message_type": "train.other", "epoch": 42,
        "admitted": (), "refused": (),
        "content": Digest("fltrust-content-v1", bytes(32)), "model": Digest("fltrust-model-v1", bytes(32)),
        "instruction": Digest.sha256_of(b"x"), "certificate": Digest.sha256_of(b"x"),
        "issued_at": NOW - timedelta(microseconds=1), "expires_at": NOW + timedelta(hours=1),
        "signed_at": NOW, "opened_at": NOW - timedelta(hours=1), "sealed_at": NOW,
        "aggregator": SpiffeId.parse("spiffe://hospitals.example/aggregator/other"),
    }  # fmt: skip
    for name in (field.name for field in fields(statement)):
        if other[name] is not None:
            assert replace(statement, **{name: other[name]}).to_payload() != payload, name
    if not isinstance(statement, SealedRoundStatement):
        who = SpiffeId.parse("spiffe://hospitals.example/participant/other")
        assert replace(statement, participant=who).to_payload() != payload
        turned = replace(statement, phase=Phase.QUERY, message_type="query")
        assert (
            turned.to_payload()
            != replace(statement, phase=Phase.EVALUATE, message_type="evaluate").to_payload()
        )


@pytest.mark.parametrize("change", [
    lambda v: v | {"extra": 1},
    lambda v: {k: x for k, x in v.items() if k != "subject"},
    lambda v: v | {"subject": []},
    lambda v: v | {"subject": v["subject"] * 2},
    lambda v: v | {"subject": [v["subject"][0] | {"name": "update/other"}]},
    lambda v: v | {"subject": [v["subject"][0] | {"uri": "x"}]},
    lambda v: v | {"subject": [v["subject"][0] | {"digest": {}}]},
    lambda v: v | {"subject": [v["subject"][0] | {"digest": {"sha512": "00" * 64}}]},
    lambda v: v | {"subject": [v["subject"][0] | {"digest": {"sha256": 1}}]},
    lambda v: v | {"subject": [v["subject"][0] | {"digest": {"sha256": "00" * 32, "sha512": "00" * 32}}]},
    lambda v: v | {"predicate": []},
    predicate(extra=1),
    predicate(round="2"),
    predicate(round=-1),
    predicate(round=2**31),
    predicate(round=True),
    predicate(round=2.0),
    predicate(step=None),
    predicate(runId=1),
    predicate(runId="01"),
    predicate(runId="+1"),
    predicate(runId="-1"),
    predicate(runId="١"),
    predicate(runId=str(2**64)),
    predicate(phase="sleep"),
    predicate(domain="Hospitals.example"),
    predicate(certificate="sha256:00"),
    predicate(certificate="sha512:" + "00" * 32),
    predicate(certificate="sha256:" + "AB" * 32),
    predicate(certificate=None),
])  # fmt: skip
def test_any_other_shape_or_type_of_field_is_malformed(statement: Statement, change: Change) -> None:
    with pytest.raises(Malformed):
        type(statement).from_payload(rewritten(statement, change))


@pytest.mark.parametrize("change", [
    predicate(participant="spiffe://hospitals.example/aggregator/site-a"),
    predicate(participant="site-a"),
    predicate(nodeId="1.0"),
    predicate(nodeKey="AB" * 32),
    predicate(instructionId="0123456789ABCDEF0123456789abcdef"),
    predicate(instructionId="0123"),
    predicate(messageType="evaluate"),
    predicate(model="fltrust-content-v1:" + "00" * 32),
    predicate(signedAt="2026-03-01T12:01:00Z"),
    predicate(signedAt="2026-03-01T12:01:00.250000+00:00"),
    predicate(signedAt="2026-03-01 12:01:00.250000Z"),
    predicate(signedAt="yesterday"),
    predicate(signedAt=1),
])  # fmt: skip
def test_an_update_that_says_something_impossible_is_malformed(
    update: UpdateStatement, change: Change
) -> None:
    with pytest.raises(Malformed):
        parse_statement(rewritten(update, change))


@pytest.mark.parametrize("change", [
    predicate(aggregator="spiffe://hospitals.example/participant/main"),
    predicate(expiresAt="2026-03-01T12:00:00.250000Z"),
    predicate(issuedAt="2026-03-01T12:20:00.250000Z"),
])  # fmt: skip
def test_an_instruction_that_says_something_impossible_is_malformed(
    instruction: InstructionStatement, change: Change
) -> None:
    with pytest.raises(Malformed):
        parse_statement(rewritten(instruction, change))


@pytest.mark.parametrize("change", [
    predicate(index=7),
    predicate(index="-1"),
    predicate(root="none"),
    predicate(log="none"),
    predicate(log=None),
    predicate(refused=[{"participant": "spiffe://hospitals.example/participant/b", "reason": "No good!"}]),
    predicate(refused=[{"participant": "spiffe://hospitals.example/operator/b", "reason": "late"}]),
    predicate(refused=[["b", "late"]]),
    lambda v: predicate(admitted=v["predicate"]["admitted"] * 2)(v),
    lambda v: predicate(admitted=[v["predicate"]["admitted"][0] | {"extra": 1}])(v),
    lambda v: predicate(admitted=[])(v),  # the subject digests the predicate: it no longer does
])  # fmt: skip
def test_a_receipt_that_says_something_impossible_is_malformed(
    receipt: SealedRoundStatement, change: Change
) -> None:
    with pytest.raises(Malformed):
        parse_statement(rewritten(receipt, change))


@pytest.mark.parametrize("change", [
    lambda v: v | {"predicateType": "urn:fltrust:statement:update:v2"},
    lambda v: v | {"predicateType": 1},
    lambda v: {k: x for k, x in v.items() if k != "predicateType"},
    lambda v: v | {"_type": "https://in-toto.io/Statement/v2"},
])  # fmt: skip
def test_an_unknown_kind_of_statement_is_refused_as_such(statement: Statement, change: Change) -> None:
    with pytest.raises(StatementRefused) as caught:
        parse_statement(rewritten(statement, change))
    assert caught.value.reason == "unknown-type"


def test_a_statement_is_read_only_as_its_own_kind(update: UpdateStatement) -> None:
    with pytest.raises(StatementRefused) as caught:
        InstructionStatement.from_payload(update.to_payload())
    assert caught.value.reason == "unknown-type"


@pytest.mark.parametrize(
    ("message_type", "phase"),
    [
        ("train", Phase.TRAIN),
        ("evaluate.fast", Phase.EVALUATE),
        ("query.größe", Phase.QUERY),
        ("get_parameters", Phase.QUERY),
        ("get_properties", Phase.QUERY),
    ],
)
def test_the_message_types_of_flower_have_a_phase(message_type: str, phase: Phase) -> None:
    assert phase_of(message_type) is phase


@pytest.mark.parametrize(
    "message_type",
    ["", "Train", "training", "train.", "train.a.b", "train.1", "get_parameters.x", "train." + "x" * 128],
)
def test_an_unknown_message_type_is_refused(message_type: str, update: UpdateStatement) -> None:
    for attempt in (
        lambda: phase_of(message_type),
        lambda: replace(update, message_type=message_type),
        lambda: parse_statement(rewritten(update, predicate(messageType=message_type))),
    ):
        with pytest.raises(FltrustError) as caught:
            attempt()
        assert isinstance(caught.value, InvalidInput) or caught.value.reason == "unknown-type"


def test_naive_times_are_malformed(update: UpdateStatement) -> None:
    with pytest.raises(Malformed, match="naive"):
        replace(update, signed_at=datetime(2026, 3, 1))  # noqa: DTZ001


def test_payloads_are_bounded_before_they_are_parsed() -> None:
    with pytest.raises(Oversized):
        parse_statement(b"x" * (MAX_PAYLOAD_BYTES + 1))
    with pytest.raises(Oversized):
        SealedRoundStatement.from_payload(b"x" * (MAX_SEALED_PAYLOAD_BYTES + 1))


def test_a_receipt_of_the_largest_cohort_fits_its_bounds(receipt: SealedRoundStatement) -> None:
    def named(number: int) -> SpiffeId:
        return SpiffeId.parse(f"spiffe://hospitals.example/participant/site-{number:058d}")

    cohort = tuple(replace(receipt.admitted[0], participant=named(i)) for i in range(MAX_COHORT))
    largest = replace(receipt, admitted=cohort, refused=())
    assert parse_statement(largest.to_payload(), limit=MAX_SEALED_PAYLOAD_BYTES) == largest
    one_more: AdmittedUpdate = replace(receipt.admitted[0], participant=named(MAX_COHORT))
    with pytest.raises(Oversized):
        replace(largest, admitted=(*cohort, one_more))


def test_a_statement_cannot_be_changed_once_made(update: UpdateStatement) -> None:
    with pytest.raises(FrozenInstanceError):
        update.round = 3  # type: ignore[misc]
