"""A federation that trained a model, and a real MLflow server with the gate before its registry."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg
from safetensors.numpy import save_file

from fltrust import artifacts
from fltrust.flower import TrustedClientApp, TrustedStrategy
from fltrust.identity import Name, Role
from fltrust.revocation.events import RevocationReason
from fltrust.revocation.ports import RevocationTarget
from fltrust.testing import LocalFederation
from tools import strangers

SIDE = Path(__file__).parent / "mlflow_side"
SITES = ("site-a", "site-b", "site-c")
PREDICTION = [16.0, 16.0]
"""Of the trained model for a row of ones: two rounds in which the sites add 1, 2 and 3 to zeros."""


def make_app() -> TrustedClientApp:
    app = TrustedClientApp()

    @app.train()
    def train(message: Message, context: Any) -> Message:
        weights, bias = message.content["arrays"].to_numpy_ndarrays()
        new = ArrayRecord([weights + 1 + context.node_config["partition-id"], bias])
        content = {"arrays": new, "metrics": MetricRecord({"num-examples": 10})}
        return Message(RecordDict(content), reply_to=message)

    return app


@dataclass
class Trained:
    """What a federation gives out: arrays, and a coordinator at which signers sign."""

    federation: LocalFederation
    weights: dict[str, np.ndarray]
    signers: dict[str, Any] = field(default_factory=dict)

    @property
    def domain(self) -> str:
        return str(self.federation.coordinator.bundle.domain)

    def sign(self, folder: Path, *, name: str = "release") -> None:
        if name not in self.signers:
            coordinator = self.federation.coordinator
            self.signers[name] = coordinator.session(coordinator.enroll(name, Role.SIGNER))
        desk = self.signers[name]
        artifacts.sign(folder, desk=desk, lineage=desk)

    def trust_file(self) -> bytes:
        return bytes(self.federation.coordinator.as_operator().trust_file())

    def revoke_long_since(self, site: str) -> None:
        """Revoke a site as compromised for an hour: all that contains its updates is tainted."""
        coordinator = self.federation.coordinator
        coordinator.as_operator().revoke(
            RevocationTarget(name=(Role.PARTICIPANT, Name(site))),
            reason=RevocationReason.KEY_COMPROMISE,
            compromised_since=coordinator.clock.now() - timedelta(hours=1),
        )


@contextmanager
def trained() -> Iterator[Trained]:
    with LocalFederation(make_app(), participants=SITES) as federation:
        start = ArrayRecord([np.zeros((4, 2), "f4"), np.zeros(2, "f4")])
        result = TrustedStrategy(FedAvg(fraction_evaluate=0.0)).start(
            federation.grid, initial_arrays=start, num_rounds=2
        )
        yield Trained(federation, {key: array.numpy() for key, array in result.arrays.items()})


def environment(**more: str) -> dict[str, str]:
    """The machine's own, without anything of ours or MLflow's, and nothing that phones home."""
    kept = {
        k: v for k, v in os.environ.items() if not k.startswith(("FLTRUST_", "MLFLOW_", "FLWR_", "_MLFLOW"))
    }
    quiet = {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "GIT_PYTHON_REFRESH": "quiet",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # one process less
    }
    return {**kept, **quiet, "PYTHONWARNINGS": "ignore", **more}


class Client:
    """MLflow's own client in a process of its own; `FLTRUST_*` is not set there until `gate` sets it."""

    def __init__(self, python: Path, log: Path) -> None:
        self._log = log.open("wb")
        self._process = subprocess.Popen(
            [python, SIDE / "client.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=environment(),
        )

    def do(self, step: str, **arguments: str) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([step, arguments]) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"MLflow's client ended: {Path(self._log.name).read_text()[-3000:]}"
        return json.loads(line)

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._log.close()


@dataclass
class Server:
    """`mlflow server`, over HTTP. What is asked here is asked with the standard library: any client."""

    url: str
    folder: Path
    process: subprocess.Popen[bytes]

    @property
    def trust(self) -> Path:
        return self.folder / "trust.json"

    def wait_until_up(self) -> None:
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                with urllib.request.urlopen(f"{self.url}/health", timeout=5):
                    return
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.2)
        raise AssertionError(
            f"mlflow server did not start:\n{(self.folder / 'server.log').read_text()[-3000:]}"
        )

    def versions(self, name: str) -> list[dict[str, Any]]:
        query = urllib.parse.urlencode({"filter": f"name='{name}'"})
        url = f"{self.url}/api/2.0/mlflow/model-versions/search?{query}"
        with urllib.request.urlopen(url, timeout=60) as answer:
            found = json.loads(answer.read()).get("model_versions", [])
        assert isinstance(found, list)
        return found

    def call(self, path: str, **body: Any) -> tuple[int, dict[str, Any]]:
        request = urllib.request.Request(
            f"{self.url}/api/2.0/mlflow/{path}",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    def upload(self, model: Path) -> tuple[str, str]:
        """Log the folder as artifact ``model`` of a new run, over HTTP; the run's id and the source."""
        _, answer = self.call("runs/create", experiment_id="0")
        info = answer["run"]["info"]
        root = info["artifact_uri"].removeprefix("mlflow-artifacts:/")
        for file in sorted(p for p in model.rglob("*") if p.is_file()):
            target = f"{root}/model/{file.relative_to(model).as_posix()}"
            request = urllib.request.Request(
                f"{self.url}/api/2.0/mlflow-artifacts/artifacts/{target}",
                data=file.read_bytes(),
                method="PUT",
            )
            with urllib.request.urlopen(request, timeout=60):
                pass
        return info["run_id"], f"{info['artifact_uri']}/model"

    def register(self, name: str, model: Path, **more: Any) -> tuple[int, dict[str, Any]]:
        run_id, source = self.upload(model)
        self.call("registered-models/create", name=name)
        return self.call("model-versions/create", name=name, source=source, run_id=run_id, **more)

    def stored(self, source: str) -> Path:
        """Where the server keeps what a source names."""
        return self.folder / "artifacts" / source.removeprefix("mlflow-artifacts:/")


@contextmanager
def starting_server(python: Path, folder: Path, **variables: str) -> Iterator[Server]:
    port = _free_port()
    database = f"sqlite:///{folder / 'mlflow.db'}"
    command = [
        python.parent / "mlflow",
        "server",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--workers",
        "1",
    ]
    command += ["--backend-store-uri", database, "--registry-store-uri", f"fltrust+{database}"]
    command += ["--artifacts-destination", folder / "artifacts"]
    log = (folder / "server.log").open("wb")
    process = subprocess.Popen(
        command, cwd=folder, stdout=log, stderr=log, start_new_session=True, env=environment(**variables)
    )
    found = Server(f"http://127.0.0.1:{port}", folder, process)
    try:
        yield found
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(15)
        log.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def save_as_mlflow_does(client: Client, made: Trained, folder: Path) -> Path:
    """A model as `mlflow.pyfunc.save_model` writes it, around the trained weights."""
    data = folder / "data" / "model.safetensors"
    data.parent.mkdir()
    save_file(made.weights, data)
    path, code = folder / "unsigned", SIDE / "tiny_loader.py"
    answer = client.do("save", path=str(path), loader="tiny_loader", data=str(data), code=str(code))
    assert answer is None, answer
    return path


def copied(model: Path, target: Path) -> Path:
    shutil.copytree(model, target)
    return target


def mlflow_python() -> Path:
    return strangers.environment(strangers.MLFLOW)
