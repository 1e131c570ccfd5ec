"""`run_superlink` in a process of its own, with unmodified flower-supernodes and `flwr run`."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

BIN = Path(sys.executable).parent
PROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "tiny"
version = "1.0.0"
license = "Apache-2.0"
dependencies = ["flwr"]

[tool.flwr.app]
publisher = "lab"

[tool.flwr.app.components]
serverapp = "tiny.app:server"
clientapp = "tiny.app:client"

[tool.flwr.app.config]
rounds = 1
nodes = 2
"""
APP = """
import time

import numpy as np
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg

client = ClientApp()
server = ServerApp()


@client.train()
def train(message, context):
    arrays = [a + 1 for a in message.content["arrays"].to_numpy_ndarrays()]
    metrics = MetricRecord({"num-examples": 1})
    return Message(RecordDict({"arrays": ArrayRecord(arrays), "metrics": metrics}), reply_to=message)


@server.main()
def main(grid, context):
    nodes, rounds = context.run_config["nodes"], context.run_config["rounds"]
    strategy = FedAvg(fraction_evaluate=0.0, min_train_nodes=nodes, min_available_nodes=nodes)
    began = time.monotonic()
    result = strategy.start(
        grid=grid, initial_arrays=ArrayRecord([np.zeros(3)]), num_rounds=rounds, timeout=60
    )
    print("RESULT", float(result.arrays.to_numpy_ndarrays()[0][0]), round(time.monotonic() - began, 2))
"""


def environment(folder: Path, **extra: str) -> dict[str, str]:
    quiet = ("FLWR_TELEMETRY_ENABLED=0", "FLWR_DISABLE_UPDATE_CHECK=1")
    return {
        **{key: value for key, value in os.environ.items() if not key.startswith(("FLWR_", "FLTRUST_"))},
        **dict(item.split("=") for item in quiet),
        "FLWR_HOME": str(folder / "home"),
        "PATH": f"{BIN}:{os.environ.get('PATH', '')}",
        **extra,
    }


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


@contextmanager
def process(*command: str, folder: Path, name: str) -> Iterator[subprocess.Popen[str]]:
    with (folder / f"{name}.log").open("w") as log:
        child = subprocess.Popen(
            command,
            env=environment(folder),
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            yield child
        finally:
            child.terminate()
            try:
                child.wait(15)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


@contextmanager
def federation(folder: Path, *names: str, hold: float = 15) -> Iterator[subprocess.Popen[str]]:
    """A SuperLink and the SuperNodes of `names`, each node behind its relay."""
    (port, *node_ports) = free_ports(1 + len(names))
    (folder / "home").mkdir()
    (folder / "home" / "config.toml").write_text(
        f'[superlink]\ndefault = "lab"\n[superlink.lab]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'
    )
    script = str(Path(__file__).with_name("superlink_process.py"))
    command = (sys.executable, script, str(folder), str(hold), str(port), *names)
    with ExitStack() as stack:
        superlink = stack.enter_context(process(*command, folder=folder, name="superlink"))
        ready = folder / "ready.json"
        while not ready.exists():
            assert superlink.poll() is None, (folder / "superlink.log").read_text()
            time.sleep(0.05)
        ways: dict[str, list[str]] = json.loads(ready.read_text())
        for name, node_port in zip(names, node_ports, strict=True):
            arguments = (*ways[name], "--port", str(node_port))
            stack.enter_context(process(str(BIN / "flower-supernode"), *arguments, folder=folder, name=name))
        yield superlink


def run_app(folder: Path, **config: Any) -> str:
    app = folder / "app"
    (app / "tiny").mkdir(parents=True)
    (app / "pyproject.toml").write_text(PROJECT)
    (app / "tiny" / "__init__.py").touch()
    (app / "tiny" / "app.py").write_text(APP)
    changes = " ".join(f"{key}={value}" for key, value in config.items())
    command = [str(BIN / "flwr"), "run", str(app), "lab", "--stream"]
    done = subprocess.run(
        [*command, *(["--run-config", changes] if changes else [])],
        env=environment(folder),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    return done.stdout + done.stderr


@pytest.mark.e2e
@pytest.mark.slow
def test_unmodified_supernodes_take_part_and_everything_ends_with_the_superlink(tmp_path: Path) -> None:
    with federation(tmp_path, "site-a", "site-b") as superlink:
        said = run_app(tmp_path)
        assert "RESULT 1.0" in said, said + (tmp_path / "superlink.log").read_text()
        children = Path(f"/proc/{superlink.pid}/task/{superlink.pid}/children").read_text().split()
        assert children  # flower-superexec
        superlink.send_signal(signal.SIGTERM)
        assert superlink.wait(20) == 0
        for child in children:
            assert (
                not Path(f"/proc/{child}").exists() or "zombie" in Path(f"/proc/{child}/status").read_text()
            )
