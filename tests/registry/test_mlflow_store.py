"""The gated store opened by its URI: settings, advisory mode, and the small install that it needs."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow_world import SIDE, Trained, environment, mlflow_python, trained

from tools.strangers import CannotInstall

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]  # the first run installs MLflow


@pytest.fixture(scope="module")
def made() -> Iterator[Trained]:
    with trained() as made:
        yield made


@pytest.fixture(scope="module")
def found(made: Trained, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What MLflow's process said: in advisory mode, without any setting, without a word on who may sign."""
    folder = tmp_path_factory.mktemp("models")
    models = {name: folder / name for name in ("signed", "unsigned", "by-the-intern")}
    for model in models.values():
        model.mkdir()
        (model / "MLmodel").write_text("flavors: {}\n")
    made.sign(models["signed"])
    made.sign(models["by-the-intern"], name="intern")
    (folder / "trust.json").write_bytes(made.trust_file())
    trust = {"FLTRUST_TRUST": str(folder / "trust.json")}
    advisory = {"FLTRUST_IDENTITY": f"spiffe://{made.domain}/signer/release", "FLTRUST_MODE": "advisory"}
    sources = {name: model.as_uri() for name, model in models.items()}
    cases = [
        {"db": f"fltrust+sqlite:///{folder}/{number}.db", "variables": variables, "sources": sources}
        for number, variables in enumerate(({**trust, **advisory}, {}, trust))
    ]
    done = subprocess.run(
        [python(), SIDE / "direct.py"],
        input=json.dumps(cases),
        capture_output=True,
        text=True,
        timeout=200,
        env=environment(),
    )
    assert done.returncode == 0, done.stderr[-3000:]
    answer = json.loads(done.stdout.splitlines()[-1])
    assert isinstance(answer, dict)
    return answer


def python() -> Path:
    try:
        return mlflow_python()
    except CannotInstall as error:
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI must not skip: {error}")
        pytest.skip(f"not to be had on this machine: {error}")


def test_advisory_mode_lets_everything_in_and_marks_it(found: dict[str, Any]) -> None:
    tags = found["attempts"][0]
    assert tags["signed"]["fltrust.attestation"] == "verified"
    assert set(tags["unsigned"]) == {"fltrust.attestation", "fltrust.reason", "fltrust.verified-at"}
    assert (tags["unsigned"]["fltrust.attestation"], tags["unsigned"]["fltrust.reason"]) == (
        "refused",
        "unsigned",
    )
    intern = tags["by-the-intern"]
    assert (intern["fltrust.attestation"], intern["fltrust.reason"]) == ("refused", "untrusted-signer")


def test_without_settings_the_registry_stays_closed(found: dict[str, Any]) -> None:
    assert all("FLTRUST_TRUST" in answer["error"] for answer in found["attempts"][1].values())
    assert all("who may sign" in answer["error"] for answer in found["attempts"][2].values())


def test_the_gate_needs_the_base_install_alone(found: dict[str, Any]) -> None:
    absent = {"torch", "flwr", "sigstore", "model-signing", "grpcio-health-checking", "psycopg", "httptools"}
    assert "fltrust" in found["installed"]
    assert not absent & set(found["installed"])
    assert found["entry points"] == ["fltrust+postgresql", "fltrust+sqlite", "models"]
