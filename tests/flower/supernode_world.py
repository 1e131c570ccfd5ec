"""A real flower-supernode behind our launcher, a small ClientApp in it, and the ServerApp's side."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flwr.app import Message
from flwr.cli.build import build_fab_from_files
from flwr.supercore.constant import NOOP_FEDERATION_ID, TaskType
from flwr.supercore.fab import Fab
from flwr.superlink.grid.http_grid import HttpGrid
from superlink_world import CLOCK, Domain, RunningSuperlink, Site, free_port, instruction_for

from fltrust.agent.credentials import CredentialStore
from fltrust.errors import Revoked
from fltrust.flower import _private
from fltrust.flower.supernode import Mode, run_supernode
from fltrust.identity import SpiffeId, TrustDomain
from fltrust.revocation import EventKind
from fltrust.revocation.view import TrustView

CLIENT_APP = b"""
import os
import time

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message, context):
    word, _, number = message.content["task"]["text"].partition(" ")
    if word == "sleep":
        time.sleep(float(number))
    seen = {
        "pid": os.getpid(),
        "socket": os.environ.get("FLTRUST_AGENT_SOCKET", ""),
        "passphrase": os.environ.get("FLTRUST_PASSPHRASE_FILE", ""),
        "open": ",".join(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else "",
    }
    content = RecordDict({"seen": ConfigRecord(seen)})
    if word == "megabytes":
        count = int(number) * 1_000_000 // 4
        content["weights"] = ArrayRecord([np.random.default_rng(7).random(count, dtype=np.float32)])
    return Message(content, reply_to=message)
"""

PROJECT = b"""
[project]
name = "probe"
version = "1.0.0"
description = "answers with what it sees"
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "fltrust"

[tool.flwr.app.components]
serverapp = "probe.server:app"
clientapp = "probe.client:app"
"""


@dataclass
class SiteHost:
    """A participant's agent, in the shape that the launcher takes it; the view is the domain's own."""

    domain: Domain
    site: Site
    folder: Path
    started: bool = False
    revoked: Revoked | None = None
    credentials: CredentialStore = field(init=False)

    def __post_init__(self) -> None:
        self.credentials = CredentialStore(self.site.credentials)
        self.folder.mkdir(mode=0o700)
        self.node_key_path.write_bytes(self.site.node_key.to_openssh())
        self.node_key_path.chmod(0o600)

    @property
    def spiffe_id(self) -> SpiffeId:
        return self.site.spiffe_id

    @property
    def acting_domain(self) -> TrustDomain:
        return self.spiffe_id.domain

    @property
    def relay_credentials(self) -> CredentialStore:
        return self.credentials

    @property
    def view(self) -> TrustView:
        return self.domain.view

    @property
    def socket_path(self) -> Path:
        return self.folder / "run" / "agent.sock"

    @property
    def node_key_path(self) -> Path:
        return self.folder / "node.key"

    def start(self) -> None:
        self.started = True

    def stop(self) -> None:
        self.started = False

    def wait_ready(self, timeout: float) -> None:
        del timeout

    def rotate(self) -> None:
        self.credentials.rotate(self.domain.issue(self.site.spiffe_id.role, self.site.name))

    def revoke(self) -> None:
        self.revoked = Revoked(f"{self.spiffe_id} was revoked")
        self.domain.say(EventKind.REVOKED, self.spiffe_id)


class RunningSupernode:
    """`run_supernode` in a thread. `result` is its exit code or what it raised."""

    def __init__(self, host: SiteHost, superlink: RunningSuperlink, mode: Mode, *more: str) -> None:
        self.host = host
        self.result: int | BaseException | None = None
        self._thread = threading.Thread(
            target=self._run, args=(superlink, mode, more), name="supernode", daemon=True
        )
        self._thread.start()

    def _run(self, superlink: RunningSuperlink, mode: Mode, more: tuple[str, ...]) -> None:
        address = f"127.0.0.1:{superlink.fleet_port}"
        arguments = ["--superlink", address, "--port", str(free_port()), *more]
        environment = {**os.environ, "FLTRUST_PASSPHRASE_FILE": "/nowhere"}
        try:
            self.result = run_supernode(arguments, host=self.host, mode=mode, environment=environment)
        except BaseException as error:
            self.result = error

    def processes(self) -> dict[int, str]:
        """The command lines of everything that Flower runs for this node, by pid."""
        mark = str(self.host.folder)
        found = {}
        for entry in Path("/proc").iterdir():
            try:
                is_ours = entry.name.isdigit() and mark in (entry / "environ").read_text()
                line = (entry / "cmdline").read_text().replace("\0", " ")
            except OSError:
                continue
            if is_ours and line:
                found[int(entry.name)] = line
        return found

    def end(self) -> None:
        """End it: the launcher runs in a thread and takes no signals, so the child is told directly."""
        for pid, line in self.processes().items():
            if "flower-supernode" in line or "supernode_direct" in line:
                os.kill(pid, 15)
        self.join()

    def join(self) -> None:
        self._thread.join(30)
        assert not self._thread.is_alive()


class App:
    """A run of the probe app, from the ServerApp's side."""

    def __init__(self, superlink: RunningSuperlink) -> None:
        self.superlink = superlink
        state = superlink.state()
        fab, _ = build_fab_from_files(
            {
                "pyproject.toml": PROJECT,
                "probe/__init__.py": b"",
                "probe/client.py": CLIENT_APP,
                "probe/server.py": b"from flwr.serverapp import ServerApp\n\napp = ServerApp()\n",
            }
        )
        fab_hash = hashlib.sha256(fab).hexdigest()
        state.store_fab(Fab(fab_hash, fab, {}))
        self.run_id: int = state.create_run(
            "fltrust/probe", "1.0.0", fab_hash, {}, NOOP_FEDERATION_ID, None, "", TaskType.SERVER_APP
        )
        run = state.get_run_info(run_ids=[self.run_id])[0]
        token = state.claim_task(run.primary_task_id)
        assert token
        assert state.activate_task(run.primary_task_id)
        self.grid = HttpGrid(f"127.0.0.1:{superlink.loopback_port}", insecure=True, token=token)
        self.grid.set_run(run)

    def nodes(self) -> list[int]:
        return list(self.grid.get_node_ids())

    def ask(self, node_id: int, text: str) -> str:
        _private.become_server_app(self.run_id)  # Flower keeps it for the process: other tests have runs, too
        return str(next(iter(self.grid.push_messages([instruction_for(node_id, text)]))))

    def answer(self, message_id: str, *, seconds: float = 60.0) -> Message:
        replies: list[Any] = []

        def arrived() -> bool:
            replies.extend(self.grid.pull_messages([message_id]))
            return bool(replies)

        wait_for(arrived, seconds=seconds)
        reply: Message = replies[0]
        assert not reply.has_error(), reply.error
        return reply


@contextmanager
def beating(domain: Domain) -> Iterator[None]:
    """Keep the view of the domain fresh, as a coordinator's heartbeats do."""
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(1.0):
            domain.beat()

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def wait_for(what: Callable[[], object], *, seconds: float = 60.0) -> None:
    """Wait until `what()` holds; fails after a bound that only a hang reaches."""
    end = CLOCK.monotonic() + seconds
    while not what():
        assert CLOCK.monotonic() < end, "waited in vain"
        time.sleep(0.05)
