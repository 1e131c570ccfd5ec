"""What `fltrust superlink` hands to Flower: its own arguments, held to loopback, and the environment."""

from __future__ import annotations

import ipaddress
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fltrust.agent.client import SOCKET_VARIABLE
from fltrust.errors import Malformed
from fltrust.flower import _private

_GRPC_VARIABLES = ("FLWR_INTERNAL_GRPC_FLEET_API", "FLWR_INTERNAL_GRPC_CONTROL_API")
_TLS_ARGUMENTS = ("--ssl-certfile", "--ssl-keyfile", "--ssl-ca-certfile")


def prepare_environment(agent_socket: Path) -> None:
    """Set what Flower and the ServerApp process read from the environment."""
    _private.keep_quiet()
    for name in _GRPC_VARIABLES:  # each would open a second way in, past this listener
        os.environ.pop(name, None)
    os.environ[SOCKET_VARIABLE] = str(agent_socket)
    os.environ.setdefault("FLWR_SUPEREXEC_TASK_POLL_INTERVAL", "0.05")
    for name in ("NO_PROXY", "no_proxy"):  # the loopback calls of Flower's clients honour proxies
        known = [item for item in os.environ.get(name, "").split(",") if item]
        os.environ[name] = ",".join(dict.fromkeys([*known, "127.0.0.1", "localhost", "::1"]))
    # Flower starts `flower-superexec` by name; it lies beside the Python that runs us.
    here = str(Path(sys.executable).parent)
    path = os.environ.get("PATH", "")
    if here not in path.split(os.pathsep):
        os.environ["PATH"] = os.pathsep.join([here, path]) if path else here


def read_flower_arguments(flower_args: Sequence[str]) -> Any:
    """Read Flower's own arguments with Flower's parser, and give the configuration that we run.

    1. No TLS files, no simulation: the first are the agent's, the second has no SuperNodes.
    2. ``--insecure`` is implied, for a loopback address and for no other.
    3. SuperNode authentication is on, whatever was said.
    """
    given = [argument.partition("=")[0] for argument in flower_args]
    for name in _TLS_ARGUMENTS:  # 1
        if name in given:
            raise Malformed(
                f"expected no {name}: SuperNodes meet the agent's certificate, Control and Runtime stay on "
                "loopback",
                hint="leave it out",
            )
    if "--simulation" in given:
        raise Malformed(
            "expected a deployment, got --simulation: it has no SuperNodes to protect",
            hint="run flower-superlink --simulation",
        )
    wanted = [a for a in flower_args if a not in ("--enable-supernode-auth", "--insecure")]
    config = _private.parse_superlink_arguments([*wanted, "--insecure"])
    if not is_loopback(config.host):  # 2
        raise Malformed(
            f"expected a loopback --host for Control and Runtime, got {config.host}",
            hint="use 127.0.0.1, and --fleet for the address that SuperNodes reach",
        )
    config.enable_supernode_auth = True  # 3
    return config


def is_loopback(address: str) -> bool:
    """Say whether this address is the machine's own; a name other than ``localhost`` is not trusted to be."""
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address.strip("[]")).is_loopback
    except ValueError:
        return False
