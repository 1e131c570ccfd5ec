"""Whole federations in real processes: what works, what is lost, and what goes on."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from examples.demo.tail import Tail, short
from examples.lab import Lab, Run
from examples.lab.processes import wait_for
from fltrust.agent.state import AgentState
from fltrust.pki import root_fingerprint

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(240)]

APPS = Path(__file__).resolve().parent / "apps"
BENCH_APP = Path(__file__).resolve().parents[2] / "benchmarks" / "app"


class Federation:
    """A lab with sites, and what its runs left behind."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.tail = Tail(lab.events)
        self.report = lab.folder / "report.json"

    def start(self, sites: Mapping[str, str], *superlink_options: str) -> None:
        self.lab.start_coordinator()
        self.lab.join("main", "aggregator")
        self.lab.start_superlink("main", *superlink_options)
        for name, node_config in sites.items():
            self.lab.join(name)
            self.lab.start_site(name, node_config)
        self.lab.wait_for_sites(len(sites))

    def run(self, app: str = "tiny", **config: Any) -> Run:
        name = f"run-{time.monotonic_ns()}"
        return self.lab.run(APPS / app, name=name, config={"report": str(self.report), **config})

    def give_second_keys(self, *sites: str) -> Path:
        """As operators would, with the sites' agents running; returns the second chain's root."""
        folder, lab = self.lab.folder / "second", self.lab
        secret = self.lab.folder / "second-secret"
        secret.write_text("correct horse")
        secret.chmod(0o600)
        chain = ("--folder", str(folder), "--passphrase-file", str(secret))
        lab.fltrust("second", "init", "--trust-domain", lab.domain, *chain)
        root = folder / "root.pem"
        for site in sites:
            state = ("--state", str(lab.state(site)))
            request, certificate = lab.folder / f"{site}.json", lab.folder / f"{site}.pem"
            first_root = str(root_fingerprint(AgentState.open(lab.state(site)).load_bundle().roots[0]))
            lab.fltrust("second", "request", "--out", str(request), *state)
            issue = ("second", "issue", str(request), "--out", str(certificate))
            lab.fltrust(*issue, "--root", first_root, *chain)
            lab.fltrust("second", "install", str(certificate), "--second-root", str(root), *state)
        return root

    def means(self) -> dict[str, float]:
        """The model's mean after each round: it grows by one in every round that learnt."""
        found: dict[str, float] = json.loads(self.report.read_text())
        return found

    def train_rounds(self, run: Run) -> list[dict[str, Any]]:
        rows = self.lab.fltrust_json("rounds", "show", run.run_id)
        return [row for row in rows if row["phase"] == "train"]

    def wait(self, event: str, *, seconds: float = 60, **fields: object) -> None:
        self.tail.wait(lambda: bool(self.tail.find(event, **fields)), f"{event} {fields}", seconds=seconds)

    def verify(self, run: Run) -> dict[str, Any]:
        done = self.lab.fltrust("rounds", "verify", run.run_id, "--json")
        report: dict[str, Any] = json.loads(done.stdout)
        return report


PEOPLE = (("site-a", "participant"), ("site-b", "participant"), ("main", "aggregator"))


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[Federation]:
    with Lab(tmp_path) as lab:
        yield Federation(lab)
    assert lab.brood.left_behind() == []


def test_two_sites_train_and_evaluate_and_the_record_verifies_anywhere(federation: Federation) -> None:
    """Signed twice, with second keys that their running agents were given."""
    federation.start({"site-a": "partition-id=0", "site-b": "partition-id=1"})
    second_root = federation.give_second_keys("site-a", "site-b")
    run = federation.run(**{"fraction-evaluate": 1.0, "fltrust-second-root": str(second_root)})
    log = run.wait(120)
    assert federation.means() == {"0": 0.0, "1": 1.0, "2": 2.0}, log[-3000:]
    rows = federation.lab.fltrust_json("rounds", "show", run.run_id)
    assert [(r["phase"], len(r["admitted"]), r["refused"]) for r in rows] == [
        ("train", 2, {}),
        ("evaluate", 2, {}),
        ("train", 2, {}),
        ("evaluate", 2, {}),
    ]
    assert federation.verify(run)["good"] is True
    # Elsewhere: nothing but the file and the root's fingerprint.
    record = federation.lab.folder / "record.jsonl"
    wrote = federation.lab.fltrust("rounds", "export", run.run_id, "--to", str(record)).stderr
    root = re.search(r"sha256:[0-9a-f]{64}", wrote)
    assert root is not None
    assert federation.lab.coordinator is not None
    federation.lab.coordinator.stop()
    offline = ("rounds", "verify", run.run_id, "--record", str(record), "--root")
    assert "verified" in federation.lab.fltrust(*offline, root.group()).stdout
    twice = federation.lab.fltrust(*offline, root.group(), "--second-root", str(second_root)).stdout
    assert twice.count("2 signed twice") == 4
    assert federation.lab.fltrust(*offline, "sha256:" + "00" * 32, check=False).returncode == 3


def test_a_legacy_app_runs_with_the_same_two_words(federation: Federation) -> None:
    federation.start({"site-a": "", "site-b": ""})
    run = federation.run("legacy", **{"num-server-rounds": 2})
    log = run.wait(150)
    assert federation.means() == {"0": 0.0, "1": 1.0, "2": 2.0}, log[-3000:]
    # Earlier Flower sends to each client on its own: an exchange each.
    admitted = [(r["round"], site) for r in federation.train_rounds(run) for site in r["admitted"]]
    assert sorted(admitted) == [(n, site) for n in (1, 2) for site in ("site-a", "site-b")]
    assert federation.verify(run)["good"] is True


def test_a_sleeper_that_is_revoked_does_not_hold_up_the_round(federation: Federation) -> None:
    federation.start({"site-a": "", "site-b": "", "site-c": "sleep-in-round=1 sleep-seconds=200"})
    run = federation.run()
    federation.wait("instruction-accepted", participant="site-c")
    for honest in ("site-a", "site-b"):
        federation.wait("update-verified", participant=honest, round=1)
    assert not federation.tail.find("round-sealed")
    (event,) = federation.lab.fltrust_json("revoke", "site-c", "--reason", "key-compromise")
    revoked = time.monotonic()
    federation.wait("round-sealed", round=1, seconds=10)
    assert time.monotonic() - revoked < 5
    run.wait(60)
    assert federation.means()["2"] == 2.0
    first, second = federation.train_rounds(run)
    assert (sorted(first["admitted"]), first["refused"]) == (["site-a", "site-b"], {"site-c": "revoked"})
    assert first["epoch"] >= event["epoch"]
    assert (sorted(second["admitted"]), second["refused"]) == (["site-a", "site-b"], {})
    assert federation.lab.sites["site-c"].wait(30) == 4  # its agent stops it, and says why


def test_a_site_whose_upload_stalls_is_revoked_and_the_round_goes_on(federation: Federation) -> None:
    federation.start({"site-a": "", "site-b": "", "site-c": ""})
    lab = federation.lab
    run = lab.run(
        BENCH_APP,
        config={
            "report": str(federation.report),
            "nodes": 2,
            "num-server-rounds": 2,
            "fraction-evaluate": 0.0,
            "model-bytes": 60_000_000,
        },
    )
    federation.wait("node-activated", participant="site-c")
    (activated,) = federation.tail.find("node-activated", participant="site-c")
    federation.wait("update-signed", participant="site-c", round=1)
    assert lab.superlink is not None
    announced = f"Push replies from node_id={activated['node_id']}"
    wait_for(lambda: announced in lab.superlink.text(), "the announcement", seconds=30, every=0.01)
    stopped = lab.sites["site-c"].freeze()
    try:
        for honest in ("site-a", "site-b"):
            federation.wait("update-verified", participant=honest, round=1)
        assert not federation.tail.find("update-verified", participant="site-c")
        assert not federation.tail.find("round-sealed")
        lab.fltrust("revoke", "site-c")
        federation.wait("round-sealed", round=1, seconds=10)
        log = run.wait(90)
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGKILL)
    first, second = federation.train_rounds(run)
    assert (sorted(first["admitted"]), first["refused"]) == (["site-a", "site-b"], {"site-c": "revoked"}), log
    assert sorted(second["admitted"]) == ["site-a", "site-b"]


def test_certificates_the_issuing_ca_and_the_root_are_replaced_and_no_round_fails(
    federation: Federation,
) -> None:
    lab = federation.lab
    settings = lab.folder / "coordinator" / "coordinator.toml"
    settings.write_text(
        # An instruction is looked at once the app's process is up: the third of its life that the
        # aggregator's certificate has left at the least must be longer than that, on a busy machine, too.
        settings.read_text().replace("participant = 3600", "participant = 12\naggregator = 45")
    )
    federation.start({"site-a": "always-sleep=5", "site-b": "always-sleep=5"})
    ca = lab.root_at_hand()
    run = federation.run(**{"num-server-rounds": 8})
    federation.wait("round-sealed", round=1)
    first = ca.issuing()
    ca.roll_issuing(ca.root)  # another issuing CA under the same root
    root, signer = ca.add_root()
    known = ca.bundle_sequence()
    wait_for(
        lambda: all(lab.bundle(name, role) >= known for name, role in PEOPLE),
        "everybody has the new root",
        seconds=90,
    )
    ca.roll_issuing(root, signer)  # and one under the new root
    log = run.wait(240)
    assert federation.means().get("8") == 8.0, log[-6000:]
    assert [len(r["admitted"]) for r in federation.train_rounds(run)] == [2] * 8
    federation.tail.poll()
    renewed = {short(e["identity"]) for e in federation.tail.find("certificate-renewed")}
    assert renewed >= {"site-a", "site-b", "main"}
    issuers = {lab.issuer(name, role) for name, role in PEOPLE}
    assert issuers == {ca.issuing()} != {first}
    assert federation.verify(run)["good"] is True


def test_a_coordinator_that_is_killed_and_comes_back_costs_no_round(federation: Federation) -> None:
    federation.start({"site-a": "sleep-in-round=1 sleep-seconds=6", "site-b": ""})
    run = federation.run()
    federation.wait("update-verified", participant="site-b", round=1)
    assert federation.lab.coordinator is not None
    federation.lab.coordinator.kill()
    time.sleep(8)  # site-a's update arrives, and the seal finds nobody
    assert not federation.tail.find("round-sealed")
    federation.lab.start_coordinator()
    log = run.wait(120)
    assert federation.means() == {"0": 0.0, "1": 1.0, "2": 2.0}, log[-3000:]
    assert [len(r["admitted"]) for r in federation.train_rounds(run)] == [2, 2]


def test_every_process_can_be_killed_and_started_again_between_runs(federation: Federation) -> None:
    lab = federation.lab
    federation.start({"site-a": "", "site-b": ""})
    federation.run(**{"num-server-rounds": 1}).wait(90)
    assert federation.means()["1"] == 1.0
    processes = [lab.coordinator, lab.superlink, *lab.sites.values()]
    for process in processes:
        assert process is not None
        process.kill()
    lab.brood.end()
    federation.report.unlink()
    lab.start_coordinator()
    lab.start_superlink()
    for site in ("site-a", "site-b"):
        lab.start_site(site)
    lab.wait_for_sites(2)
    run = federation.run(**{"num-server-rounds": 1})
    log = run.wait(90)
    assert federation.means()["1"] == 1.0, log[-3000:]
    assert federation.verify(run)["good"] is True
