"""The commands of docs/how-to/verify-a-model.md run as they stand, from top to bottom."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg
from safetensors.numpy import save_file

from fltrust.artifacts import sign
from fltrust.flower import TrustedClientApp, TrustedStrategy
from fltrust.identity import Role
from fltrust.testing import LocalFederation

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "verify-a-model.md"
DOMAIN = "hospitals.example"


def lay_out(folder: Path) -> None:
    """What the reader has at hand: a model from a federation, signed, and the operator's trust file."""
    app = TrustedClientApp()

    @app.train()
    def train(message: Message, context: object) -> Message:
        (weights,) = message.content["arrays"].to_numpy_ndarrays()
        new = {"arrays": ArrayRecord([weights + 1]), "metrics": MetricRecord({"num-examples": 1})}
        return Message(RecordDict(new), reply_to=message)

    with LocalFederation(app, participants=3, domain=DOMAIN) as federation:
        result = TrustedStrategy(FedAvg(fraction_evaluate=0.0)).start(
            federation.grid, initial_arrays=ArrayRecord([np.zeros(4, "f4")]), num_rounds=2
        )
        (folder / "digits").mkdir()
        (folder / "digits" / "config.json").write_text("{}\n")
        arrays = {name: array.numpy() for name, array in result.arrays.items()}
        save_file(arrays, folder / "digits" / "model.safetensors")
        desk = federation.coordinator.session(federation.coordinator.enroll("release-signer", Role.SIGNER))
        sign(folder / "digits", desk=desk, lineage=desk)
        (folder / "trust.json").write_bytes(desk.trust_file())


def test_the_commands_of_the_page_run_as_they_stand(tmp_path: Path) -> None:
    lay_out(tmp_path)
    script = "\n".join(re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(), flags=re.DOTALL | re.MULTILINE))
    assert "fltrust verify" in script
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PATH": path, "FLTRUST_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "spiffe://hospitals.example/signer/release-signer" in done.stdout
    assert json.loads((tmp_path / "verdict.json").read_text())
    assert (tmp_path / "served" / "model.safetensors").exists()
    assert "error [file-changed]" in done.stderr
