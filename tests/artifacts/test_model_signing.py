"""Signing: nothing half, nothing that does not verify, nothing of the model touched."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest
from signed_world import EntryKind, SignedWorld, safetensors

from fltrust.artifacts.ports import StepOfRun
from fltrust.artifacts.signing import sign
from fltrust.errors import (
    EvidenceInvalid,
    EvidenceMissing,
    FltrustError,
    Malformed,
    StorageUnavailable,
    UntrustedSigner,
)
from fltrust.identity import RunId
from fltrust.testing.desk import ScratchDesk


@pytest.fixture
def world(tmp_path: Path) -> SignedWorld:
    return SignedWorld.make(tmp_path)


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def test_signature_and_lineage_lie_beside_the_model_for_everybody_to_read(world: SignedWorld) -> None:
    world.record_lineage()
    signed = world.sign()
    assert names(world.folder) == ["m.safetensors", "m.safetensors.lineage.jsonl", "m.safetensors.sig"]
    for path in (signed.signature, signed.lineage):
        assert path is not None
        assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert signed.statement.lineage is not None
    assert signed.statement.lineage.aggregate == world.tensors
    assert signed.statement.lineage.count == 3


def test_a_model_that_no_round_made_is_signed_without_lineage(world: SignedWorld) -> None:
    signed = world.sign()
    assert signed.lineage is None
    assert signed.statement.lineage is None
    assert names(world.folder) == ["m.safetensors", "m.safetensors.sig"]


def test_a_step_may_be_named_and_must_be_known(world: SignedWorld) -> None:
    world.record_lineage()
    place = StepOfRun(RunId(1), 2)
    with pytest.raises(EvidenceMissing) as caught:
        world.sign(run=place)
    assert caught.value.reason == "lineage-missing"
    world.desk.lineages[place] = world.desk.lineages[world.tensors]
    assert world.sign(run=place).lineage is not None


def test_a_step_whose_tensors_are_others_is_not_this_model(world: SignedWorld) -> None:
    world.record_lineage()
    place = StepOfRun(RunId(1), 2)
    world.desk.lineages[place] = world.desk.lineages[world.tensors]
    world.model.write_bytes(safetensors(b"\0\0\0@" * 4))
    with pytest.raises(EvidenceInvalid) as caught:
        world.sign(run=place)
    assert caught.value.reason == "lineage-of-another-model"
    assert names(world.folder) == ["m.safetensors"]


def test_a_model_of_another_format_is_bound_to_a_step_by_the_signers_word(tmp_path: Path) -> None:
    world = SignedWorld.make(tmp_path)
    world.record_lineage()
    place = StepOfRun(RunId(1), 2)
    world.desk.lineages[place] = world.desk.lineages[world.tensors]
    world.model = tmp_path / "m.onnx"
    world.model.write_bytes(b"onnx")
    world.sign(run=place)
    found = world.verify()
    assert found.rounds == 2
    assert any("signer's word" in warning for warning in found.warnings)


def test_what_does_not_verify_is_not_written(world: SignedWorld) -> None:
    with pytest.raises(UntrustedSigner):
        sign(world.model, desk=world.desk, lineage=ScratchDesk())
    assert names(world.folder) == ["m.safetensors"]


def test_without_a_trust_file_nothing_is_written(world: SignedWorld) -> None:
    with pytest.raises(Malformed):
        sign(world.model, desk=world.desk)
    assert names(world.folder) == ["m.safetensors"]


def test_a_desk_that_signs_something_else_is_found_out(world: SignedWorld) -> None:
    class Other:
        """Countersigns a statement of its own."""

        def certify_signer(self, csr_der: bytes) -> tuple[bytes, ...]:
            return world.desk.certify_signer(csr_der)

        def countersign(self, *_: Any, **__: Any) -> bytes:
            return world.desk.sign(b'{"something":"else"}')

    with pytest.raises(EvidenceInvalid):
        sign(world.model, desk=Other(), lineage=world.desk)
    assert names(world.folder) == ["m.safetensors"]


@pytest.mark.parametrize("failing", [1, 2])
def test_a_disk_that_fills_leaves_no_signature_of_half_a_pair(
    world: SignedWorld, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    world.record_lineage()
    calls = 0

    def full(source: Any, target: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == failing:
            raise OSError(28, "No space left on device")
        real(source, target)

    real = os.replace
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(StorageUnavailable):
        world.sign()
    left = names(world.folder)
    assert "m.safetensors.sig" not in left
    assert not [name for name in left if name.startswith(".")]


def test_a_signature_may_be_written_elsewhere(world: SignedWorld, tmp_path: Path) -> None:
    world.record_lineage()
    elsewhere = tmp_path / "out"
    elsewhere.mkdir()
    signed = world.sign(out=elsewhere / "release.sig")
    assert names(elsewhere) == ["release.lineage.jsonl", "release.sig"]
    assert names(world.folder) == ["m.safetensors", "out"]
    assert world.verify(signature=signed.signature).rounds == 2
    assert world.verify(signature=signed.signature, lineage=signed.lineage).rounds == 2


def test_signing_again_replaces_the_signature(world: SignedWorld) -> None:
    first = world.sign().bundle
    again = world.sign(entry_kind=EntryKind.DSSE).bundle
    assert first != again
    assert world.verify().bundle == again


def test_the_key_signs_one_statement_and_is_gone(world: SignedWorld) -> None:
    one, two = (world.sign().evidence.certificate for _ in range(2))
    assert one != two


def test_what_was_ignored_is_stated_and_not_forgiven(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "a.txt").write_text("a")
    (folder / "cache").write_text("c")
    world = SignedWorld.make(tmp_path)
    world.model = folder
    signed = world.sign(ignore=("cache",))
    assert signed.statement.ignored == ("cache",)
    with pytest.raises(FltrustError) as caught:
        world.verify()
    assert caught.value.reason == "file-added"
