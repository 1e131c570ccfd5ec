"""What a gate is told by its environment, and what it says when it was told too little."""

from __future__ import annotations

from pathlib import Path

import pytest

from fltrust.artifacts.policy import Mode
from fltrust.errors import FltrustError, Malformed
from fltrust.registry.mlflow_store import open_gated_store
from fltrust.registry.settings import MAX_DOWNLOAD, GateSettings, is_set
from fltrust.registry.verdict import Judge
from fltrust.testing import FakeClock

ENOUGH = {"FLTRUST_TRUST": "/trust.json", "FLTRUST_IDENTITY": "spiffe://hospitals.example/signer/release"}


def test_a_trust_file_and_a_name_are_enough() -> None:
    found = GateSettings.from_environment(ENOUGH)
    assert found == GateSettings(trust=Path("/trust.json"), identity=ENOUGH["FLTRUST_IDENTITY"])
    assert (found.mode, found.max_download) == (None, MAX_DOWNLOAD)
    assert is_set(ENOUGH)


def test_every_variable_is_read() -> None:
    more = {"FLTRUST_POLICY": "/p.toml", "FLTRUST_MODE": "advisory", "FLTRUST_MAX_DOWNLOAD": "1000"}
    found = GateSettings.from_environment({**ENOUGH, **more, "FLTRUST_ISSUER": "https://idp.example"})
    assert (found.policy, found.mode, found.max_download) == (Path("/p.toml"), Mode.ADVISORY, 1000)
    assert found.issuer == "https://idp.example"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"FLTRUST_TRUST": ""}, "FLTRUST_TRUST"),
        ({"FLTRUST_IDENTITY": ""}, "who may sign"),
        ({"FLTRUST_MODE": "off"}, "FLTRUST_MODE"),
        ({"FLTRUST_MAX_DOWNLOAD": "64GiB"}, "FLTRUST_MAX_DOWNLOAD"),
        ({"FLTRUST_MAX_DOWNLOAD": "0"}, "FLTRUST_MAX_DOWNLOAD"),
    ],
)
def test_too_little_or_something_odd_is_refused(change: dict[str, str], words: str) -> None:
    with pytest.raises(Malformed, match=words):
        GateSettings.from_environment({**ENOUGH, **change})


@pytest.mark.parametrize("mode", [None, Mode.ENFORCE])
def test_what_cannot_be_judged_is_refused(mode: Mode | None, tmp_path: Path) -> None:
    settings = GateSettings(trust=tmp_path / "missing", identity=ENOUGH["FLTRUST_IDENTITY"], mode=mode)
    verdict = Judge(settings, clock=FakeClock()).judge(tmp_path, of="digits")
    assert not verdict.is_let_in
    assert isinstance(verdict.refusal, FltrustError)
    assert verdict.tags()["fltrust.attestation"] == "refused"


def test_a_fault_of_ours_is_a_refusal_even_where_the_gate_only_advises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fault(*_: object, **__: object) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr("fltrust.registry.verdict.verify", fault)
    settings = GateSettings(trust=tmp_path, identity=ENOUGH["FLTRUST_IDENTITY"], mode=Mode.ADVISORY)
    verdict = Judge(settings, clock=FakeClock()).judge(tmp_path, of="digits")
    assert not verdict.is_let_in
    assert "RuntimeError" in verdict.message()


def test_the_entry_point_is_importable_without_mlflow() -> None:
    assert callable(open_gated_store)
