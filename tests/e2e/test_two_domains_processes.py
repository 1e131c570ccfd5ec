"""Two trust domains, each with its own coordinator and CA, in one round of real Flower processes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from examples.lab import Lab
from examples.lab.federation import BIN
from examples.lab.processes import Process, free_port, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(180)]

APP = Path(__file__).resolve().parent / "apps" / "tiny"
WARD = "spiffe://clinic.example/participant/ward-1"
WHY = ("--reason", "agreed by both boards")


@dataclass
class TwoDomains:
    """The hospitals run the rounds; the clinic's one site is their guest."""

    hospitals: Lab
    clinic: Lab
    ward: Process | None = None

    def federate(self) -> None:
        """What the operators of both sides type, in the order of the how-to."""
        for ours, theirs in ((self.hospitals, self.clinic), (self.clinic, self.hospitals)):
            given = ours.folder / f"{theirs.domain}.json"
            theirs.fltrust("federation", "bundle", "--out", str(given))
            lend = ("--lend", "ward-1") if ours is self.clinic else ()
            ours.fltrust(
                *("federation", "federate", theirs.domain, "--bundle", str(given)),
                *("--coordinator", f"127.0.0.1:{theirs.coordinator_port}"),
                *("--endpoint", f"https://127.0.0.1:{theirs.services_port}/spiffe/bundle"),
                *lend,
                *WHY,
            )
        node_key = self.clinic.state("ward-1") / "node.key.pub"
        self.hospitals.fltrust("federation", "admit", WARD, "--node-key", str(node_key), *WHY)

    def start_ward(self) -> Process:
        """The guest's SuperNode: its own agent and state, the host's superlink."""
        self.ward = self.clinic.start(
            "site-ward-1",
            *(str(BIN / "fltrust"), "-v", "supernode", "--state", str(self.clinic.state("ward-1"))),
            *("--host-domain", self.hospitals.domain, "--"),
            *("--superlink", f"127.0.0.1:{self.hospitals.fleet_port}", "--port", str(free_port())),
            *("--node-config", "partition-id=1"),
        )
        self.hospitals.sites["ward-1"] = self.ward
        return self.ward

    def state_of_clinic(self) -> str:
        (row,) = self.hospitals.fltrust_json("federation", "list")
        return str(row["state"])

    def train_rounds(self, run_id: str) -> list[dict[str, Any]]:
        rows = self.hospitals.fltrust_json("rounds", "show", run_id)
        return [row for row in rows if row["phase"] == "train"]


@pytest.fixture
def domains(tmp_path: Path) -> Iterator[TwoDomains]:
    for name in ("hospitals", "clinic"):
        (tmp_path / name).mkdir()
    with (
        Lab(tmp_path / "hospitals", domain="hospitals.example", services=True) as hospitals,
        Lab(tmp_path / "clinic", domain="clinic.example", services=True) as clinic,
    ):
        yield TwoDomains(hospitals, clinic)
    assert hospitals.brood.left_behind() == clinic.brood.left_behind() == []


def test_a_site_of_another_domain_trains_until_its_own_domain_revokes_it(domains: TwoDomains) -> None:
    hospitals, clinic = domains.hospitals, domains.clinic
    hospitals.start_coordinator()
    clinic.start_coordinator()
    clinic.join("ward-1")
    domains.federate()
    hospitals.join("main", "aggregator")
    hospitals.join("site-a")
    hospitals.start_superlink()
    hospitals.start_site("site-a", "partition-id=0")
    domains.start_ward()
    hospitals.wait_for_sites(2)
    assert domains.state_of_clinic() == "followed"

    report = hospitals.folder / "report.json"
    run = hospitals.run(APP, config={"report": str(report), "num-server-rounds": 3, "min-nodes": 1})
    wait_for(
        lambda: any(len(row["admitted"]) == 2 for row in domains.train_rounds(run.run_id)),
        "a round with both",
        seconds=60,
        every=0.2,
    )
    clinic.fltrust("revoke", "ward-1", *("--reason", "key-compromise"))
    wait_for(lambda: not domains.ward or not domains.ward.is_running(), "the ward's site to stop", seconds=30)
    run.wait(90)
    rows = domains.train_rounds(run.run_id)
    assert sorted(rows[0]["admitted"]) == ["site-a", WARD], json.dumps(rows)
    assert rows[-1]["admitted"] == ["site-a"], json.dumps(rows)

    done = hospitals.fltrust("rounds", "verify", run.run_id, "--json")
    assert json.loads(done.stdout)["good"] is True
    (row,) = [r for r in hospitals.fltrust_json("participants", "list") if r["spiffe_id"] == WARD]
    assert row["standing"] == "revoked"
