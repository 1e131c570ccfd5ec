"""The real coordinator, killed again and again while it is at work: what it acknowledged is never lost."""

from __future__ import annotations

import random
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest
from server_world import credentials_of, request

from fltrust.client import ClientSettings, CoordinatorClient, Credentials, TrustFollower, enroll
from fltrust.clock import SystemClock
from fltrust.coordinator.process import CoordinatorSettings, initialise
from fltrust.enrollment.state import AgentState
from fltrust.errors import FltrustError
from fltrust.identity import Digest, Epoch, KeyId, Name, NodeId, Role, RunId, SpiffeId, TrustDomain
from fltrust.keys import FileSigner, generate
from fltrust.pki import chain_to_pem
from fltrust.revocation.events import EventKind, FeedHeartbeat, RevocationReason, TrustEvent
from fltrust.revocation.ports import RevocationTarget
from fltrust.revocation.view import TrustView
from fltrust.rounds.types import CohortMember, RoundKey
from fltrust.updates import Phase

DOMAIN = TrustDomain("hospitals.example")
KILLS = 6
QUICK = ClientSettings(timeout=5.0, attempts=1)
PATIENT = ClientSettings(timeout=30.0, attempts=30)
SERVE = """
import sys
from pathlib import Path
from fltrust.coordinator.process import serve
serve(Path(sys.argv[1]), issuing_passphrase=b"issuing", on_ready=lambda line: print(line, flush=True))
"""


class Coordinator:
    """The coordinator as a process of its own, on ports that stay the same."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bootstrap, self.address = (f"127.0.0.1:{port}" for port in free_ports(2))
        settings = CoordinatorSettings(domain=DOMAIN, bootstrap=self.bootstrap, address=self.address)
        self.made = initialise(
            folder, settings, operator=Name("root"), root_passphrase=b"root", issuing_passphrase=b"issuing"
        )
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        log = (self.folder / "stderr").open("a")
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVE, str(self.folder)], stdout=subprocess.PIPE, stderr=log, text=True
        )
        assert self.process.stdout is not None
        said = self.process.stdout.readline()
        assert str(DOMAIN) in said, (self.folder / "stderr").read_text()

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(20)

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(20)

    def operator(self, settings: ClientSettings) -> CoordinatorClient:
        signer, chain = AgentState.open(self.made.operator_state, passphrase=None).load_identity()
        from fltrust.pki import load_bundle

        credentials = Credentials(chain_to_pem(chain), signer.to_pem(None), load_bundle(self.folder / "ca"))
        return CoordinatorClient(self.address, lambda: credentials, DOMAIN, settings=settings)


def free_ports(count: int) -> list[int]:
    taken = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(s.getsockname()[1]) for s in taken]
    for one in taken:
        one.close()
    return ports


@dataclass
class Acknowledged:
    """What the coordinator said is done, by what it said."""

    enrolled: list[SpiffeId] = field(default_factory=list)
    events: list[TrustEvent] = field(default_factory=list)
    receipts: dict[RoundKey, bytes] = field(default_factory=dict)


class Workers:
    """Callers that go on through every absence, and note what was acknowledged."""

    def __init__(self, coordinator: Coordinator, operator: CoordinatorClient) -> None:
        self.coordinator = coordinator
        self.operator = operator
        self.done = Acknowledged()
        self._stop = threading.Event()
        self._main = self._join("main", Role.AGGREGATOR)
        self._threads = [
            threading.Thread(target=self._repeat, args=(step,))
            for step in (self._enroll_and_revoke, self._enroll_and_revoke, self._rounds())
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    def _repeat(self, step: Callable[[], None]) -> None:
        while not self._stop.is_set():
            try:
                step()
            except FltrustError:
                self._stop.wait(0.05)  # it is away: what was asked is not acknowledged

    def _join(self, name: str, role: Role = Role.PARTICIPANT) -> CoordinatorClient:
        token = self.operator.create_token(role, Name(name), ttl=timedelta(minutes=5))
        signer: FileSigner = generate()
        issued = enroll(
            token, request(token, signer, generate() if role is Role.PARTICIPANT else None), timeout=5
        )
        self.done.enrolled.append(issued.spiffe_id)
        credentials = credentials_of(issued, signer)
        return CoordinatorClient(self.coordinator.address, lambda: credentials, DOMAIN, settings=QUICK)

    def _enroll_and_revoke(self) -> None:
        name = f"s{random.getrandbits(60):x}"
        self._join(name).close()
        target = RevocationTarget(name=(Role.PARTICIPANT, Name(name)))
        self.done.events += self.operator.revoke(target, reason=RevocationReason.KEY_COMPROMISE)

    def _rounds(self) -> Callable[[], None]:
        runs: Iterator[int] = iter(range(1, 1_000_000))
        self._join("steady").close()
        steady = SpiffeId(DOMAIN, Role.PARTICIPANT, Name("steady"))
        node_key = self.operator.get_enrollment(steady).node_key
        assert node_key is not None
        member = CohortMember(steady, NodeId(1), KeyId.of_spki(node_key), Digest.sha256_of(b"i"))

        def step() -> None:
            key = RoundKey(RunId(next(runs)), 1, 1, Phase.TRAIN)
            opened = self._main.open_round(key, (member,))
            assert opened.refused == ()
            refused = ((member.participant, "no-reply"),)
            self.done.receipts[key] = self._main.seal_round(key, (), refused)

        return step


@pytest.mark.slow
def test_nothing_acknowledged_is_lost_when_the_coordinator_is_killed_in_a_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLTRUST_HOME", str(tmp_path / "home"))
    coordinator = Coordinator(tmp_path / "coordinator")
    coordinator.start()
    pause = threading.Event()
    try:
        operator = coordinator.operator(QUICK)
        seen: list[TrustEvent] = []
        view = TrustView(SystemClock())
        view.subscribe(seen.append)
        with TrustFollower(operator, view, max_pause=0.2):
            workers = Workers(coordinator, operator)
            workers.start()
            for _ in range(KILLS):
                pause.wait(random.uniform(0.3, 0.9))
                coordinator.kill()
                coordinator.start()
            pause.wait(0.5)
            workers.stop()
            done = workers.done
            auditor = coordinator.operator(PATIENT)
            auditor.get_bundle()
            feed = everything(auditor)
            assert view.wait_until(lambda state: state.epoch == len(feed), 30)
        # Every epoch once, in order; what a watcher saw between the crashes is what stands now.
        assert [int(event.epoch) for event in feed] == list(range(1, len(feed) + 1))
        assert seen == feed
        # What was acknowledged is there, word for word.
        assert done.events
        assert done.enrolled
        assert done.receipts
        assert [event for event in done.events if event not in feed] == []
        listed = {enrollment.spiffe_id for enrollment in auditor.list_enrollments()}
        assert set(done.enrolled) <= listed
        enrolled = {event.subject for event in feed if event.kind is EventKind.ENROLLED}
        assert set(done.enrolled) <= enrolled
        for key, receipt in done.receipts.items():
            assert auditor.get_round(key.run_id, key.step).receipt == receipt
        auditor.close()
        operator.close()
    finally:
        coordinator.stop()
    assert coordinator.process is not None
    assert coordinator.process.returncode == 0


def everything(client: CoordinatorClient) -> list[TrustEvent]:
    """The whole feed, up to the first heartbeat."""
    found: list[TrustEvent] = []
    watch = client.watch(Epoch(0))
    for item in watch:
        if isinstance(item, FeedHeartbeat):
            break
        found.append(item)
    watch.close()
    return found
