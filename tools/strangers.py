"""Environments of verifiers and registries that we did not write, each pinned, beside `.venv`.

    python -m tools.strangers            # make every one that is missing, and name them
    python -m tools.strangers mlflow     # only this one

The tests make the one they need on first use (`environment`, `node_modules`); a second call does
nothing until the pins or fltrust's own dependencies change.
"""

from __future__ import annotations

import fcntl
import hashlib
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PINS = ROOT / "tools" / "strangers"
HOME = ROOT / ".venv-strangers"

SIGSTORE = ("sigstore-4.5", "sigstore-4.4", "sigstore-4.3")
"""sigstore-python, the newest three minor versions."""
ORACLE = "oracle"
"""model-signing, the reference implementation of OMS, with what its wheel forgets to ask for."""
MLFLOW = "mlflow"
"""MLflow, and a base install of fltrust: nothing of Flower, torch or the coordinator."""
SPIFFE = "spiffe"
"""The SPIFFE project's client of the Workload API."""
ENVOY = "envoy"
"""Envoy; its binary lies beside the Python."""
PKILINT = "pkilint"
"""Checks certificates, CRLs and OCSP answers against the standards."""
CERTBOT = "certbot"
"""The ACME client."""
SCHEMATHESIS = "schemathesis"
"""Makes requests from an OpenAPI document and judges the answers."""
OPENBAO = "openbao"
"""OpenBao; its binary `bao` lies beside the Python."""
NODE = "node"
"""@sigstore/verify 3 and 4, and the Node.js that both run on."""

HARDWARE = "hardware"
"""Libraries of TPMs and of AWS KMS, moto, and a base install of fltrust (Debian: libtss2-dev to build)."""

WITH_FLTRUST = frozenset({HARDWARE, MLFLOW})
PYTHONS = (*SIGSTORE, ORACLE, MLFLOW, SPIFFE, ENVOY, PKILINT, CERTBOT, SCHEMATHESIS, OPENBAO, HARDWARE)


class CannotInstall(Exception):
    """The machine does not let this environment be made: no registry, no npm."""


def environment(name: str) -> Path:
    """The Python of a stranger's environment, made now if it is not there. Safe across processes."""
    folder, pins = HOME / name, PINS / f"{name}.txt"
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-compile"]
    with _made_once(name, [pins]) as missing:
        if missing:
            _run([sys.executable, "-m", "venv", "--without-pip", "--clear", str(folder)])
            _run([*pip, "--no-deps", "--requirement", str(pins)])
    if name in WITH_FLTRUST:
        with _made_once(f"{name}-fltrust", [pins, ROOT / "pyproject.toml"]) as missing:
            if missing:
                _run([*pip, "--constraint", str(pins), "--editable", str(ROOT)])
            if missing and name == MLFLOW:
                _run([str(python), "-c", "import mlflow.pyfunc, mlflow.server.fastapi_app"])  # compiles them
    return python


def node_modules() -> Path:
    """The folder with npm's packages and `bin/node`, made now if it is not there."""
    folder = HOME / NODE
    pins = [PINS / "package.json", PINS / "package-lock.json"]
    with _made_once(NODE, pins) as missing:
        if missing:
            npm = shutil.which("npm")
            if npm is None:
                raise CannotInstall("npm is not on this machine")
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            for pin in pins:
                shutil.copy(pin, folder)
            _run([npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"], cwd=folder)
    return folder / "node_modules"


def node() -> Path:
    """The Node.js that `node_modules` brings: new enough for every verifier there."""
    machine = {"x86_64": "x64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    binary = node_modules() / f"node-linux-{machine}" / "bin" / "node"
    if not binary.exists():
        raise CannotInstall(f"npm has no Node.js for {platform.system()} on {platform.machine()}")
    return binary


@contextmanager
def _made_once(name: str, sources: list[Path]) -> Iterator[bool]:
    """Hold the lock of what is made from `sources`; yields whether it is missing, then stamps it as made."""
    HOME.mkdir(exist_ok=True)
    wanted = hashlib.sha256(b"\0".join(path.read_bytes() for path in sources)).hexdigest()
    stamp = HOME / f"{name}.stamp"
    with (HOME / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        missing = not stamp.exists() or stamp.read_text() != wanted
        if missing:
            stamp.unlink(missing_ok=True)
        yield missing
        if missing:
            stamp.write_text(wanted)


def _run(command: list[str], cwd: Path = ROOT) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-12:])
        raise CannotInstall(f"{' '.join(command[:6])} … failed:\n{tail}")


def main() -> int:
    for name in sys.argv[1:] or (*PYTHONS, NODE):
        if name not in (*PYTHONS, NODE):
            raise SystemExit(f"no such stranger: {name}; there are {', '.join((*PYTHONS, NODE))}")
        print(f"{name}: {node() if name == NODE else environment(name)}", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
