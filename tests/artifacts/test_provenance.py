"""The provenance of an aggregate: one byte form, strict reading, agreement with the sealed round."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from fltrust import strictjson
from fltrust.artifacts.ports import Contribution, RoundFacts
from fltrust.artifacts.provenance import (
    AppVersion,
    BuildType,
    ModelInput,
    Provenance,
    SealedIn,
    UpdateInput,
    examples_text,
    require_agreement,
)
from fltrust.errors import FltrustError, Malformed, StatementRefused
from fltrust.identity import Digest, Epoch, Role, RunId, SpiffeId, TrustDomain
from fltrust.updates import Phase

DOMAIN = TrustDomain("hospitals.example")
AT = datetime(2026, 11, 1, 12, 0, 0, tzinfo=UTC)
RUN = RunId(2**63 + 5)


def sha(number: int) -> Digest:
    return Digest("sha256", bytes([number]) * 32)


def model(number: int) -> Digest:
    return Digest("fltrust-model-v1", bytes([number]) * 32)


def site(name: str) -> SpiffeId:
    return SpiffeId.of(DOMAIN, Role.PARTICIPANT, name)


INITIAL = Provenance(
    build_type=BuildType.INITIAL_MODEL,
    domain=DOMAIN,
    run_id=RUN,
    step=0,
    round=0,
    phase=Phase.TRAIN,
    tensors=sha(1),
    model=model(1),
    app=AppVersion("fltrust/digits", "1.0.0", "ab" * 32),
    builder=SpiffeId.of(DOMAIN, Role.AGGREGATOR, "main"),
    previous=None,
    updates=(),
    sealed=None,
    started_at=AT,
    finished_at=AT,
)
ROUND = replace(
    INITIAL,
    build_type=BuildType.FEDERATED_ROUND,
    step=3,
    round=2,
    tensors=sha(2),
    model=model(2),
    previous=INITIAL.as_input(log_index=41),
    updates=(
        UpdateInput(public_name=str(site("site-a")), update=sha(3), certificate=sha(4), examples="128"),
        UpdateInput(public_name="pseudonym:" + "0f" * 16, update=sha(5), certificate=sha(6)),
    ),
    sealed=SealedIn(Epoch(7), sha(7), 44),
)
REPLAY = replace(
    ROUND,
    build_type=BuildType.REPLAYED_ROUND,
    run_id=RunId(77),
    tensors=sha(8),
    builder=SpiffeId.of(DOMAIN, Role.SIGNER, "release"),
    updates=ROUND.updates[:1],
    tainted=ROUND.as_input(log_index=45),
    without=("pseudonym:" + "0f" * 16,),
)
FACTS = RoundFacts(
    run_id=RUN,
    step=3,
    round=2,
    epoch=Epoch(7),
    log_index=44,
    receipt=sha(7),
    trained_from=model(1),
    opened_at=AT,
    sealed_at=AT,
    contributions=(
        Contribution(site("site-a"), str(site("site-a")), sha(3), sha(4)),
        Contribution(site("site-b"), "pseudonym:" + "0f" * 16, sha(5), sha(6)),
    ),
)


@pytest.mark.parametrize("statement", [INITIAL, ROUND, REPLAY], ids=["initial", "round", "replay"])
def test_a_statement_survives_the_way_through_its_bytes(statement: Provenance) -> None:
    assert Provenance.from_payload(statement.to_payload()) == statement


def test_the_bytes_are_slsa_provenance_in_an_in_toto_statement() -> None:
    value = json.loads(ROUND.to_payload())
    assert value["_type"] == "https://in-toto.io/Statement/v1"
    assert value["predicateType"] == "https://slsa.dev/provenance/v1"
    assert value["subject"] == [
        {
            "name": f"aggregate/hospitals.example/{2**63 + 5}/3",
            "digest": {"sha256": "02" * 32, "fltrust-model-v1": "02" * 32},
        }
    ]
    definition = value["predicate"]["buildDefinition"]
    assert definition["buildType"] == "urn:fltrust:build:federated-round:v1"
    assert [d["name"] for d in definition["resolvedDependencies"]] == [
        f"model/hospitals.example/{2**63 + 5}/0",
        "update/spiffe://hospitals.example/participant/site-a",
        "update/pseudonym:" + "0f" * 16,
    ]
    assert value["predicate"]["runDetails"]["builder"]["id"] == "spiffe://hospitals.example/aggregator/main"


def every_change(value: object) -> list[object]:
    """`value` with each field of it dropped, added to or replaced, one at a time."""
    found: list[object] = []
    if isinstance(value, dict):
        found.append({**value, "more": 1})
        for key, inner in value.items():
            found.append({k: v for k, v in value.items() if k != key})
            found += [{**value, key: changed} for changed in every_change(inner)]
    elif isinstance(value, list):
        found.append([*value, *value] if value else ["x"])
        found += [[*value[:i], *value[i + 1 :]] for i in range(len(value))]
        found += [
            [*value[:i], c, *value[i + 1 :]] for i, item in enumerate(value) for c in every_change(item)
        ]
    else:
        found += [None if value is not None else 1, ["x"], {"x": "y"}, f"{value} "]
    return found


@pytest.mark.parametrize("statement", [INITIAL, ROUND, REPLAY], ids=["initial", "round", "replay"])
def test_every_change_of_form_is_refused_or_read_as_something_else(statement: Provenance) -> None:
    changes = every_change(json.loads(statement.to_payload()))
    assert len(changes) > 100
    for changed in changes:
        assert isinstance(changed, dict)
        payload = strictjson.encode(changed)
        try:
            read = Provenance.from_payload(payload)
        except FltrustError:
            continue
        assert read != statement
        assert read.to_payload() == payload


def test_numbers_with_leading_zeros_are_refused() -> None:
    payload = ROUND.to_payload().replace(b'/3"}]', b'/03"}]')
    payload = payload.replace(
        f"aggregate/hospitals.example/{2**63 + 5}/3".encode(), b"aggregate/hospitals.example/1/3"
    )
    with pytest.raises(Malformed):
        Provenance.from_payload(payload)


@pytest.mark.parametrize(
    ("base", "changes"),
    [
        (INITIAL, {"sealed": ROUND.sealed}),
        (INITIAL, {"updates": ROUND.updates}),
        (INITIAL, {"trained_from": model(9)}),
        (INITIAL, {"previous": replace(ROUND.as_input(log_index=1), run_id=RunId(1))}),
        (ROUND, {"sealed": None}),
        (ROUND, {"updates": ()}),
        (ROUND, {"previous": None}),
        (ROUND, {"previous": ROUND.as_input(log_index=1)}),
        (ROUND, {"previous": replace(INITIAL.as_input(log_index=1), run_id=RunId(1))}),
        (REPLAY, {"run_id": RUN}),
        (ROUND, {"phase": Phase.EVALUATE}),
        (ROUND, {"tainted": ROUND.as_input(log_index=1)}),
        (ROUND, {"without": (str(site("site-z")),)}),
        (ROUND, {"trained_from": model(1)}),
        (ROUND, {"updates": ROUND.updates * 2}),
        (ROUND, {"builder": SpiffeId.of(DOMAIN, Role.SIGNER, "release")}),
        (ROUND, {"builder": SpiffeId.of("other.example", Role.AGGREGATOR, "main")}),
        (REPLAY, {"tainted": None}),
        (REPLAY, {"without": ()}),
        (REPLAY, {"without": (str(site("site-a")),)}),
        (REPLAY, {"without": REPLAY.without * 2}),
    ],
)
def test_a_statement_has_the_parts_of_its_build_type_and_no_others(
    base: Provenance, changes: dict[str, object]
) -> None:
    with pytest.raises(Malformed):
        replace(base, **changes)  # type: ignore[arg-type]


def test_an_initial_model_may_be_the_aggregate_of_an_earlier_run() -> None:
    earlier = ModelInput(run_id=RunId(1), step=9, tensors=INITIAL.tensors, model=model(7), log_index=3)
    statement = replace(INITIAL, previous=earlier)
    assert Provenance.from_payload(statement.to_payload()).previous == earlier


def test_provenance_that_says_what_the_round_says_agrees() -> None:
    require_agreement(ROUND, FACTS)
    sent_another = replace(ROUND, trained_from=model(9))
    require_agreement(sent_another, replace(FACTS, trained_from=model(9)))


A, B = FACTS.contributions


@pytest.mark.parametrize(
    "facts",
    [
        replace(FACTS, run_id=RunId(1)),
        replace(FACTS, step=4),
        replace(FACTS, round=3),
        replace(FACTS, epoch=Epoch(8)),
        replace(FACTS, receipt=sha(9)),
        replace(FACTS, log_index=45),
        replace(FACTS, trained_from=model(9)),
        replace(FACTS, contributions=(A,)),
        replace(FACTS, contributions=(A, B, replace(A, public_name=str(site("site-c"))))),
        replace(FACTS, contributions=(A, replace(B, update=sha(9)))),
        replace(FACTS, contributions=(A, replace(B, certificate=sha(9)))),
        replace(FACTS, contributions=(A, replace(B, public_name=str(site("site-b"))))),
    ],
)
def test_provenance_that_says_another_thing_than_the_round_is_refused(facts: RoundFacts) -> None:
    with pytest.raises(StatementRefused):
        require_agreement(ROUND, facts)


def test_provenance_of_another_kind_is_no_round() -> None:
    for statement in (INITIAL, REPLAY):
        with pytest.raises(StatementRefused):
            require_agreement(statement, FACTS)


def test_weights_are_written_as_decimal_numbers_or_not_at_all() -> None:
    assert examples_text(128) == "128"
    assert examples_text(12.5) == "12.5"
    assert examples_text(3.0) == "3"
    assert [examples_text(odd) for odd in (True, -1, float("nan"), float("inf"), "7", None, 10**30)] == [
        None
    ] * 7


def test_a_cohort_of_ten_thousand_fits() -> None:
    updates = tuple(
        UpdateInput(
            public_name=str(site(f"site-{n:05d}")), update=sha(1), certificate=sha(2), examples="1000"
        )
        for n in range(10_000)
    )
    statement = replace(ROUND, updates=updates)
    assert Provenance.from_payload(statement.to_payload()) == statement
