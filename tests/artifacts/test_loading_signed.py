"""Loading by trust file and identity: the signature is judged first, then the bytes, once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from fltrust.artifacts import sign
from fltrust.artifacts.loading import AdvisoryWarning, load_safetensors, load_torch
from fltrust.artifacts.policy import Mode, Policy
from fltrust.artifacts.recipe import load_trust
from fltrust.errors import EvidenceMissing, FltrustError, PolicyNotMet, Tampered, UntrustedSigner
from fltrust.testing.desk import ScratchDesk


@pytest.fixture(scope="module")
def desk() -> ScratchDesk:
    return ScratchDesk()


@pytest.fixture
def file(tmp_path: Path, desk: ScratchDesk) -> Path:
    path = tmp_path / "model.safetensors"
    save_file({"w": torch.arange(4.0)}, path)
    sign(path, desk=desk, trust=load_trust(desk.trust_file()))
    return path


@pytest.fixture
def folder(tmp_path: Path, desk: ScratchDesk) -> Path:
    path = tmp_path / "model"
    (path / "unet").mkdir(parents=True)
    save_file({"w": torch.ones(4)}, path / "unet" / "weights.safetensors")
    torch.save({"w": torch.ones(4)}, path / "weights.pt")
    sign(path, desk=desk, trust=load_trust(desk.trust_file()))
    return path


def _load(path: Path, desk: ScratchDesk, **options: object) -> dict[str, torch.Tensor]:
    settings = {"trust": desk.trust_file(), "identity": str(desk.caller), "framework": "torch", **options}
    return load_safetensors(path, **settings)  # type: ignore[arg-type]


def test_a_signed_file_is_loaded(file: Path, desk: ScratchDesk) -> None:
    assert _load(file, desk)["w"].tolist() == [0, 1, 2, 3]
    assert load_safetensors(file, trust=desk.trust_file(), identity=str(desk.caller))["w"].dtype == "float32"


def test_a_file_in_a_signed_directory_has_its_signed_name(folder: Path, desk: ScratchDesk) -> None:
    path = folder / "unet" / "weights.safetensors"
    assert _load(path, desk)["w"].tolist() == [1] * 4
    assert _load(path, desk, model=folder)["w"].tolist() == [1] * 4

    path.rename(folder / "unet" / "other.safetensors")
    with pytest.raises(Tampered) as caught:
        _load(folder / "unet" / "other.safetensors", desk)
    assert caught.value.reason == "file-added"


def test_a_file_outside_the_model_is_refused(file: Path, folder: Path, desk: ScratchDesk) -> None:
    with pytest.raises(Tampered):
        _load(file, desk, model=folder)


def test_a_changed_file_is_refused(file: Path, desk: ScratchDesk) -> None:
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)

    with pytest.raises(Tampered):
        _load(file, desk)


def test_the_signature_may_lie_elsewhere(file: Path, desk: ScratchDesk, tmp_path: Path) -> None:
    moved = tmp_path / "kept.sig"
    Path(f"{file}.sig").rename(moved)

    assert "w" in _load(file, desk, signature=moved)
    with pytest.raises(EvidenceMissing) as caught:
        _load(file, desk)
    assert caught.value.reason == "unsigned"


def test_a_signer_whom_the_caller_does_not_name_is_refused(file: Path, desk: ScratchDesk) -> None:
    with pytest.raises(UntrustedSigner):
        _load(file, desk, identity="spiffe://hospitals.example/signer/other")
    with pytest.raises(UntrustedSigner):
        _load(file, desk, identity=None)
    with pytest.raises(FltrustError):
        _load(file, desk, trust=ScratchDesk().trust_file())


def test_what_an_advisory_policy_would_refuse_is_told_and_loaded(file: Path, desk: ScratchDesk) -> None:
    demanding = replace(Policy(), formats=frozenset({".onnx"}))
    with pytest.raises(PolicyNotMet):
        _load(file, desk, policy=demanding)

    with pytest.warns(AdvisoryWarning, match="onnx"):
        found = _load(file, desk, policy=replace(demanding, mode=Mode.ADVISORY))

    assert "w" in found


def test_a_pickle_is_loaded_only_where_the_policy_allows_it(folder: Path, desk: ScratchDesk) -> None:
    def load(policy: Policy) -> dict[str, torch.Tensor]:
        found = load_torch(
            folder / "weights.pt", trust=desk.trust_file(), identity=str(desk.caller), policy=policy
        )
        assert isinstance(found, dict)
        return found

    assert load(replace(Policy(), allow_pickles=True))["w"].tolist() == [1] * 4
    with pytest.raises(PolicyNotMet) as caught:
        load(replace(Policy(), allow_pickles=False))
    assert caught.value.reason == "pickle"
