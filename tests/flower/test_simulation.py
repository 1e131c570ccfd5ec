"""Flower's simulation runtime with the same two words; Ray where it is installed, its grid always."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from app_world import QUICK, honest, instruction
from flwr.app import Context, RecordDict

from fltrust.errors import AgentUnavailable, PermissionDenied, Refusal
from fltrust.flower import agents as agents_module
from fltrust.flower._private import NodeInfo, become_server_app
from fltrust.flower.agents import simulation_socket
from fltrust.flower.policy import TrustPolicy
from fltrust.identity import NodeId, RunId
from fltrust.testing.local_grid import LocalGrid
from fltrust.testing.simulation import SimulationAgent, simulated_grid

_RUN = RunId(0xF1)
_APP = Path(__file__).with_name("simulated_app.py")


def _grid(simulation_run: RunId, nodes: int) -> LocalGrid:
    """Flower's simulation in small: random bytes for keys, and apps that find the agent by its socket."""
    app = honest()

    def node(node_id: int) -> object:
        context = Context(int(simulation_run), node_id, {}, RecordDict(), {})
        return lambda message: app(message, context)

    ids = [NodeId(100 + i) for i in range(nodes)]
    handles = {node_id: (os.urandom(32), node(int(node_id))) for node_id in ids}
    return LocalGrid(simulation_run, handles, aggregator_agent=None)  # type: ignore[arg-type]


def test_simulated_nodes_are_enrolled_on_sight_and_answer_by_the_socket(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FLTRUST_AGENT_SOCKET", raising=False)
    grid = _grid(_RUN, 3)
    with simulated_grid(grid, TrustPolicy(waits=QUICK)) as trusted:
        assert "protect NOTHING" in caplog.text
        ids = list(trusted.get_node_ids())
        assert ids == [100, 101, 102]
        replies = list(trusted.send_and_receive([instruction(i) for i in ids]))
        assert all(reply.has_content() for reply in replies)
        assert trusted.reports[0].receipt is not None
    grid.close()
    assert not simulation_socket(_RUN).parent.exists()


def test_the_agent_of_a_simulation_speaks_for_its_nodes_alone() -> None:
    become_server_app(int(_RUN))
    with SimulationAgent(_RUN, TrustPolicy()) as simulation:
        simulation.key_of(NodeInfo(node_id=1, public_key=b"random"))
        client = agents_module.AgentClient(simulation_socket(_RUN))
        with pytest.raises(PermissionDenied):
            client.identity()
        received = _received(NodeId(2))
        with pytest.raises(AgentUnavailable, match="node 2"):
            client.check_instruction(received)
        with pytest.raises(Exception) as caught:  # noqa: PT011 - whichever way it finds it malformed
            client.check_instruction(_received(NodeId(1)))
        assert getattr(caught.value, "reason", "") == Refusal.MALFORMED


def _received(node_id: NodeId) -> object:
    from fltrust.agent.ports import ReceivedInstruction
    from fltrust.identity import Digest
    from fltrust.updates import CONTENT_ALGORITHM, MODEL_ALGORITHM

    return ReceivedInstruction(
        signed=b"nonsense",
        content=Digest(CONTENT_ALGORITHM, bytes(32)),
        model=Digest(MODEL_ALGORITHM, bytes(32)),
        run_id=_RUN,
        node_id=node_id,
        message_type="train",
    )


@pytest.mark.slow
@pytest.mark.timeout(200)
@pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is not installed (fltrust[simulation])"
)
def test_flowers_simulation_runtime_runs_under_trust(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "RAY_DISABLE_DASHBOARD": "1",
        "REPORT": str(tmp_path / "report.json"),
    }
    environment.pop("FLTRUST_AGENT_SOCKET", None)
    done = subprocess.run(
        [sys.executable, str(_APP)], env=environment, capture_output=True, text=True, timeout=180, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads((tmp_path / "report.json").read_text())
    assert report == {"model": [3.0] * 4, "admitted": [3] * 6, "sealed": True}
    assert "protect NOTHING" in done.stderr
