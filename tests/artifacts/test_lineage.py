"""Lineage: a chain that is whole, or refused; and its file."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from lineage_world import AT, DOMAIN, MAIN, believe, bundles, chain, initial, round_after, sha, wrap

from fltrust.artifacts import lineage as module
from fltrust.artifacts.lineage import Lineage, read_lineage, verify_lineage, write_lineage
from fltrust.artifacts.manifest import sidecar_paths
from fltrust.artifacts.provenance import BuildType, SealedIn
from fltrust.errors import EvidenceInvalid, EvidenceMissing, Malformed, Oversized, SignatureInvalid
from fltrust.identity import Digest, Epoch, Role, RunId, SpiffeId, TrustDomain


def verify(lines: list[bytes], head: Digest | None = None) -> Lineage:
    return verify_lineage(lines, head=head, verify_bundle=believe, domain=DOMAIN)


def test_a_whole_lineage_verifies_and_counts() -> None:
    statements = chain(3)
    lineage = verify(bundles(statements), head=statements[0][0].tensors)
    assert [step.provenance.step for step in lineage.steps] == [3, 2, 1, 0]
    assert lineage.rounds == 3
    assert lineage.runs == (RunId(1),)
    assert {name.rpartition("/")[2] for name in lineage.participants} == {"site-a", "site-b", "site-c"}
    assert lineage.fewest_participants == 3
    assert lineage.app_hashes == {"ab" * 32}
    assert lineage.builders == {MAIN}
    assert lineage.epochs == (Epoch(11), Epoch(13))
    assert lineage.head.bundle == Digest.sha256_of(bundles(statements)[0])
    assert lineage.origin.provenance.is_initial
    assert lineage.head.signed_at == AT


def test_an_initial_model_alone_is_a_lineage_of_no_round() -> None:
    lineage = verify(bundles(chain(0)))
    assert (lineage.rounds, lineage.participants, lineage.epochs) == (0, frozenset(), None)
    assert lineage.fewest_participants == 0


def test_a_lineage_goes_on_in_the_run_that_the_first_arrays_came_from() -> None:
    first = chain(2)
    earlier, index = first[0]
    start = initial(run=2, tensors=earlier.tensors, previous=earlier.as_input(log_index=index))
    after = round_after(start, log_index=42)
    lineage = verify(bundles([(after, 42), (start, 40), *first]))
    assert lineage.runs == (RunId(2), RunId(1))
    assert lineage.rounds == 3


def test_a_replay_counts_as_rounds_and_names_what_it_stands_in_for() -> None:
    statements = chain(3)
    tainted, index = statements[0]
    clean, clean_index = statements[1]
    replay = replace(
        tainted,
        build_type=BuildType.REPLAYED_ROUND,
        run_id=RunId(9),
        tensors=sha("repaired"),
        builder=SpiffeId.of(DOMAIN, Role.SIGNER, "release"),
        previous=clean.as_input(log_index=clean_index),
        updates=tainted.updates[:2],
        tainted=tainted.as_input(log_index=index),
        without=(tainted.updates[2].public_name,),
    )
    lineage = verify(bundles([(replay, 99), *statements[1:]]))
    assert lineage.replaces == (tainted.as_input(log_index=index),)
    assert lineage.fewest_participants == 2


def test_no_lineage_is_missing_evidence() -> None:
    with pytest.raises(EvidenceMissing):
        verify([])


def test_a_lineage_that_ends_before_its_beginning_is_incomplete() -> None:
    lines = bundles(chain(3))
    for kept in range(1, 4):
        with pytest.raises(EvidenceMissing) as refusal:
            verify(lines[:kept])
        assert refusal.value.reason == "lineage-incomplete"


@pytest.mark.parametrize("left_out", [1, 2])
def test_a_gap_is_found(left_out: int) -> None:
    lines = bundles(chain(3))
    del lines[left_out]
    with pytest.raises(EvidenceInvalid) as refusal:
        verify(lines)
    assert refusal.value.reason == "lineage-broken"


@pytest.mark.parametrize(("one", "other"), [(0, 1), (1, 2), (1, 3), (2, 3)])
def test_statements_in_another_order_are_refused(one: int, other: int) -> None:
    lines = bundles(chain(3))
    lines[one], lines[other] = lines[other], lines[one]
    with pytest.raises((EvidenceInvalid, EvidenceMissing)):
        verify(lines)


def test_a_statement_twice_is_refused() -> None:
    lines = bundles(chain(3))
    for number in range(4):
        with pytest.raises(EvidenceInvalid):
            verify([*lines[: number + 1], *lines[number:]])


def test_another_statement_about_the_same_step_does_not_fit() -> None:
    statements = chain(3)
    fork, index = statements[2]
    for changed in (
        replace(fork, tensors=sha("fork")),
        replace(fork, model=Digest("fltrust-model-v1", sha("fork").value)),
    ):
        forked = [*statements[:2], (changed, index), statements[3]]
        with pytest.raises(EvidenceInvalid) as refusal:
            verify(bundles(forked))
        assert refusal.value.reason == "lineage-broken"


def test_the_same_statement_at_another_place_in_the_log_does_not_fit() -> None:
    statements = chain(3)
    moved = [*statements[:2], (statements[2][0], statements[2][1] + 1), statements[3]]
    with pytest.raises(EvidenceInvalid) as refusal:
        verify(bundles(moved))
    assert refusal.value.reason == "lineage-broken"


def test_the_lineage_of_another_model_is_refused() -> None:
    with pytest.raises(EvidenceInvalid) as refusal:
        verify(bundles(chain(3)), head=sha("another"))
    assert refusal.value.reason == "lineage-of-another-model"


def test_provenance_that_somebody_else_signed_is_refused() -> None:
    statements = chain(2)
    lines = bundles(statements)
    lines[1] = wrap(
        statements[1][0], log_index=statements[1][1], signer=SpiffeId.of(DOMAIN, Role.AGGREGATOR, "other")
    )
    with pytest.raises(EvidenceInvalid) as refusal:
        verify(lines)
    assert refusal.value.reason == "lineage-signer"


def test_provenance_of_another_trust_domain_is_refused() -> None:
    with pytest.raises(EvidenceInvalid) as refusal:
        verify_lineage(
            bundles(chain(1)), head=None, verify_bundle=believe, domain=TrustDomain("other.example")
        )
    assert refusal.value.reason == "lineage-domain"


def test_a_statement_cannot_stand_in_the_log_before_what_it_names() -> None:
    first, index = chain(0)[0]
    early = round_after(first, log_index=index + 2, sealed=SealedIn(Epoch(1), sha("r"), index + 5))
    with pytest.raises(EvidenceInvalid) as refusal:
        verify(bundles([(early, index + 2), (first, index)]))
    assert refusal.value.reason == "lineage-order"


def test_epochs_do_not_fall_in_a_run() -> None:
    statements = chain(1)
    before, index = statements[0]
    odd = round_after(before, log_index=index + 2, sealed=SealedIn(Epoch(1), sha("r"), index + 1))
    with pytest.raises(EvidenceInvalid) as refusal:
        verify(bundles([(odd, index + 2), *statements]))
    assert refusal.value.reason == "lineage-order"


def test_a_bundle_that_does_not_verify_is_refused_for_its_own_reason() -> None:
    def refuse(_bundle: bytes) -> module.SignedProvenance:
        raise SignatureInvalid("no")

    with pytest.raises(SignatureInvalid):
        verify_lineage(bundles(chain(1)), head=None, verify_bundle=refuse, domain=DOMAIN)


def test_more_after_the_beginning_is_refused() -> None:
    lines = bundles(chain(1))
    with pytest.raises(EvidenceInvalid) as refusal:
        verify([*lines, lines[-1]])
    assert refusal.value.reason == "lineage-surplus"


def test_a_lineage_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = bundles(chain(3))
    monkeypatch.setattr(module, "MAX_STEPS", 3)
    with pytest.raises(Oversized):
        verify(lines)
    monkeypatch.setattr(module, "MAX_STEPS", 4)
    monkeypatch.setattr(module, "MAX_LINE", 100)
    with pytest.raises(Oversized):
        verify(lines)


# --- the file


def test_what_is_written_is_read(tmp_path: Path) -> None:
    lines = bundles(chain(3))
    path = tmp_path / "m.safetensors.lineage.jsonl"
    write_lineage(path, iter(lines))
    assert list(read_lineage(path)) == lines
    assert path.stat().st_mode & 0o777 == 0o644
    assert path.read_bytes().count(b"\n") == 4


def test_it_lies_beside_a_file_and_inside_a_folder(tmp_path: Path) -> None:
    assert sidecar_paths(tmp_path / "m.safetensors").lineage == tmp_path / "m.safetensors.lineage.jsonl"
    assert sidecar_paths(tmp_path).lineage == tmp_path / "model.lineage.jsonl"


def test_a_missing_file_is_missing_evidence(tmp_path: Path) -> None:
    with pytest.raises(EvidenceMissing):
        list(read_lineage(tmp_path / "none"))


def test_a_line_past_the_bound_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_LINE", 10)
    path = tmp_path / "l"
    path.write_bytes(b"x" * 11 + b"\n")
    with pytest.raises(Oversized):
        list(read_lineage(path))
    path.write_bytes(b"x" * 10 + b"\n")
    assert list(read_lineage(path)) == [b"x" * 10]


def test_more_lines_than_the_bound_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_STEPS", 2)
    path = tmp_path / "l"
    path.write_bytes(b"{}\n" * 3)
    with pytest.raises(Oversized):
        list(read_lineage(path))


def test_a_bundle_with_a_line_break_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(Malformed):
        write_lineage(tmp_path / "l", [b"{\n}"])
    assert os.listdir(tmp_path) == []
