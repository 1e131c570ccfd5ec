"""What an operator and the sites type, as methods."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from examples.lab.processes import MARK, Brood, Process, free_port, is_listening, wait_for
from examples.lab.root import RootAtHand
from fltrust.agent.state import AgentState
from fltrust.pki.leaf import ca_key_id

BIN = Path(sys.executable).parent
DIGITS = Path(__file__).resolve().parent.parent / "digits"
_OFF = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "NO_PROXY": "127.0.0.1,localhost",
    "PYTHONUNBUFFERED": "1",
    "OMP_NUM_THREADS": "1",  # several small torch processes share few cores
}


@dataclass(frozen=True, slots=True)
class Run:
    """One `flwr run --stream`: its id, and the process that streams its log."""

    run_id: str
    process: Process

    def wait(self, seconds: float) -> str:
        """Wait for its end; the streamed log."""
        self.process.wait(seconds)
        return self.process.text()


class _Federation:
    """What a federation with fltrust and one without have in common."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.brood = Brood()
        self.control_port = free_port()
        self.fleet_port = free_port()
        self.superlink: Process | None = None
        self.sites: dict[str, Process] = {}
        for name in ("logs", "flwr"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        self.environment: dict[str, str] = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("FLWR_", "FLTRUST_"))},
            "FLTRUST_DEBUG": "1",
            **_OFF,
            "PATH": f"{BIN}:{os.environ.get('PATH', '')}",
            "FLWR_HOME": str(folder / "flwr"),
            MARK: self.brood.mark,
        }
        self._write_flower_config()

    def _write_flower_config(self) -> None:
        (self.folder / "flwr" / "config.toml").write_text(
            f'[superlink]\ndefault = "lab"\n\n[superlink.lab]\naddress = "127.0.0.1:{self.control_port}"\n'
            "insecure = true\n"
        )

    def start(self, name: str, *arguments: str, **environment: str) -> Process:
        """Start one process whose log is `logs/<name>.log`."""
        log = self.folder / "logs" / f"{name}.log"
        return self.brood.add(
            Process(arguments, log=log, environment={**self.environment, **environment}, cwd=self.folder)
        )

    def run(
        self, app: Path = DIGITS, *, name: str = "run", config: Mapping[str, str | int | float] | None = None
    ) -> Run:
        """`flwr run APP lab --stream`; returns once the run has its id."""
        fields = " ".join(f"{k}={json.dumps(v)}" for k, v in (config or {}).items())
        options = ["--run-config", fields] if fields else []
        process = self.start(name, str(BIN / "flwr"), "run", str(app), "lab", "--stream", *options)
        pattern = re.compile(r"run (?:ID[: ]*)?(\d{5,})", re.IGNORECASE)

        def found() -> bool:
            if not process.is_running() and not pattern.search(process.text()):
                raise RuntimeError(f"flwr run ended\n{process.tail()}")
            return pattern.search(process.text()) is not None

        wait_for(found, "the run id", seconds=60)
        match = pattern.search(process.text())
        assert match is not None
        return Run(match.group(1), process)

    def wait_for_sites(self, count: int, seconds: float = 60) -> None:
        """Return once `count` of the sites are online: Flower gives each its node id then."""

        def online() -> bool:
            for name, site in self.sites.items():
                if not site.is_running():
                    raise RuntimeError(f"{name} ended\n{site.tail()}")
            return sum("SuperNode ID" in s.text() for s in self.sites.values()) >= count

        wait_for(online, f"{count} SuperNodes online", seconds=seconds)

    def command(
        self, *arguments: str, check: bool = True, stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end and give its output."""
        done = subprocess.run(
            arguments, input=stdin, capture_output=True, text=True, env=self.environment, timeout=120
        )
        if check and done.returncode != 0:
            raise RuntimeError(
                f"{' '.join(arguments[:4])}: exit {done.returncode}\n{done.stdout}{done.stderr}"
            )
        return done

    def close(self) -> None:
        """End every process. Idempotent."""
        self.brood.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Lab(_Federation):
    """A federation under trust."""

    def __init__(
        self,
        folder: Path,
        *,
        domain: str = "hospitals.example",
        lifetime: str = "1h",
        database: str | None = None,
        services: bool = False,
    ) -> None:
        super().__init__(folder)
        self.domain = domain
        self.services_port = free_port()
        self.bootstrap_port, self.coordinator_port = free_port(), free_port()
        self.public_port = free_port()
        self.coordinator: Process | None = None
        self.events = folder / "events.jsonl"
        self.passphrase = b"a passphrase for the lab"
        passphrase = folder / "passphrase"
        passphrase.write_bytes(self.passphrase + b"\n")
        passphrase.chmod(0o600)
        self.environment |= {
            "FLTRUST_HOME": str(folder / "home"),
            "FLTRUST_COORDINATOR": str(folder / "coordinator"),
            "FLTRUST_CA_PASSPHRASE_FILE": str(passphrase),
            "FLTRUST_ROOT_PASSPHRASE_FILE": str(passphrase),
            "FLTRUST_EVENT_LOG": str(self.events),
        }
        (folder / "home").mkdir(mode=0o700)
        options = ["--database", database] if database else []
        options += ["--services", f"127.0.0.1:{self.services_port}"] if services else []
        self.fltrust(
            "coordinator",
            "init",
            "--trust-domain",
            domain,
            "--bootstrap",
            f"127.0.0.1:{self.bootstrap_port}",
            "--address",
            f"127.0.0.1:{self.coordinator_port}",
            "--public",
            f"127.0.0.1:{self.public_port}",
            "--participant-lifetime",
            lifetime,
            *options,
        )

    def fltrust(
        self, *arguments: str, check: bool = True, stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """`fltrust …`, to its end."""
        return self.command(str(BIN / "fltrust"), *arguments, check=check, stdin=stdin)

    def fltrust_json(self, *arguments: str) -> Any:
        """`fltrust … --json`, parsed."""
        return json.loads(self.fltrust(*arguments, "--json").stdout)

    def state(self, name: str, role: str = "participant") -> Path:
        return self.folder / "home" / self.domain / f"{role}-{name}"

    def root_at_hand(self) -> RootAtHand:
        """What a ceremony with the root's key would answer."""
        return RootAtHand(self)

    def bundle(self, name: str, role: str = "participant") -> int:
        """The sequence of the trust bundle that an agent has."""
        return AgentState.open(self.state(name, role)).load_bundle().sequence

    def issuer(self, name: str, role: str = "participant") -> str:
        """The key identifier of the CA behind an agent's certificate."""
        issuing = AgentState.open(self.state(name, role)).load_chain()[1]
        return str(ca_key_id(issuing.public_key()))

    def start_coordinator(self) -> Process:
        self.coordinator = self.start("coordinator", str(BIN / "fltrust"), "-v", "coordinator", "serve")
        self._wait_listening(self.coordinator, self.bootstrap_port, self.coordinator_port)
        return self.coordinator

    def join(self, name: str, role: str = "participant", *, replace: bool = False) -> None:
        """Token at the operator's, join at the site's."""
        options = ["--replace"] if replace else []
        token = self.fltrust("token", "create", name, "--role", role, *options).stdout
        if replace and self.state(name, role).exists():
            shutil.rmtree(self.state(name, role))
        self.fltrust("join", stdin=token)

    def start_superlink(self, name: str = "main", *options: str, **environment: str) -> Process:
        self.superlink = self.start(
            "superlink",
            *(str(BIN / "fltrust"), "-v", "superlink", "--state", str(self.state(name, "aggregator"))),
            *("--fleet", f"127.0.0.1:{self.fleet_port}", *options, "--", "--port", str(self.control_port)),
            **environment,
        )
        self._wait_listening(self.superlink, self.control_port, self.fleet_port)
        return self.superlink

    def start_site(self, name: str, node_config: str = "", *options: str, **environment: str) -> Process:
        flower = ["--superlink", f"127.0.0.1:{self.fleet_port}", "--port", str(free_port())]
        if node_config:
            flower += ["--node-config", node_config]
        self.sites[name] = self.start(
            f"site-{name}",
            *(
                str(BIN / "fltrust"),
                "-v",
                "supernode",
                "--state",
                str(self.state(name)),
                *options,
                "--",
                *flower,
            ),
            **environment,
        )
        return self.sites[name]

    def _wait_listening(self, process: Process, *ports: int) -> None:
        def ready() -> bool:
            if not process.is_running():
                raise RuntimeError(f"{process.log.stem} ended\n{process.tail()}")
            return all(is_listening(port) for port in ports)

        wait_for(ready, f"{process.log.stem} to listen", seconds=60)


class StockLab(_Federation):
    """The same federation without fltrust: plain Flower, nothing verified."""

    def start_superlink(self) -> Process:
        self.superlink = self.start(
            "superlink",
            *(str(BIN / "flower-superlink"), "--insecure", "--host", "127.0.0.1"),
            *("--port", str(self.control_port)),
        )
        wait_for(lambda: is_listening(self.control_port), "the SuperLink to listen", seconds=60)
        return self.superlink

    def start_site(self, name: str, node_config: str = "") -> Process:
        options = ["--node-config", node_config] if node_config else []
        self.sites[name] = self.start(
            f"site-{name}",
            *(str(BIN / "flower-supernode"), "--insecure", "--superlink", f"127.0.0.1:{self.control_port}"),
            *("--port", str(free_port()), *options),
        )
        return self.sites[name]


def without_fltrust(app: Path, to: Path) -> Path:
    """Copy an app with its two words taken out again: what it was before fltrust."""
    shutil.copytree(app, to, ignore=shutil.ignore_patterns("__pycache__"))
    for source in to.rglob("*.py"):
        text = source.read_text().replace("from fltrust.flower import TrustedStrategy\n", "")
        text = text.replace(
            "from fltrust.flower import TrustedClientApp\n", "from flwr.clientapp import ClientApp\n"
        )
        text = text.replace("TrustedStrategy(", "(").replace("TrustedClientApp", "ClientApp")
        source.write_text(text)
    return to
