"""What is given to `flower-supernode`: its own arguments, with those that are ours to give."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from fltrust.agent.client import SOCKET_VARIABLE
from fltrust.errors import Malformed

_SUPERLINK = "--superlink"
_OURS = {
    "--insecure": "the way to the superlink is always TLS",
    "--root-certificates": "the superlink is verified by the roots of the trust domain",
    "--auth-supernode-private-key": "the node key is the one that was enrolled by 'fltrust join'",
    "--auth-supernode-public-key": "the node key is the one that was enrolled by 'fltrust join'",
}
_QUESTIONS = frozenset({"-h", "--help", "-V", "--version"})
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
}
_TASK_POLL = ("FLWR_SUPEREXEC_TASK_POLL_INTERVAL", "0.05")  # Flower's own: a second


@dataclass(frozen=True, slots=True)
class SupernodeArgs:
    """`flower-supernode`'s own arguments, read as far as they concern us."""

    superlink: tuple[str, int] | None
    """Host and port of the real superlink; None where Flower is only asked for its help or version."""
    rest: tuple[str, ...]
    """Everything but ``--superlink``, as it was given."""

    @classmethod
    def parse(cls, given: Sequence[str]) -> Self:
        """Read them, or raise `Malformed`: for an option that is ours to give, for one cut short so that it
        might be one of those, and where ``--superlink`` is missing, given twice, or not HOST:PORT."""
        if _QUESTIONS & set(given):
            return cls(None, tuple(given))
        addresses: list[str] = []
        rest: list[str] = []
        tokens = iter(given)
        for token in tokens:
            name, equals, value = token.partition("=")
            _refuse_if_ours(name)
            if name == _SUPERLINK:
                addresses.append(value if equals else next(tokens, ""))
            else:
                rest.append(token)
        if len(addresses) != 1:
            raise Malformed(
                f"expected one {_SUPERLINK} HOST:PORT among Flower's arguments, got {len(addresses)}",
                hint="fltrust supernode -- --superlink fl.hospitals.example:9092 …",
            )
        return cls(parse_address(addresses[0]), tuple(rest))

    def behind_relay(self, address: str, *, root_certificates: Path, node_key: Path) -> tuple[str, ...]:
        """The arguments for a SuperNode that takes the relay at `address` for its SuperLink."""
        ours = ("--root-certificates", str(root_certificates), "--auth-supernode-private-key", str(node_key))
        return (_SUPERLINK, address, *ours, *self.rest)

    def straight(self, *, node_key: Path) -> tuple[str, ...]:
        """The arguments for a SuperNode that dials the superlink itself."""
        if self.superlink is None:
            return self.rest
        host, port = self.superlink
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        return (_SUPERLINK, address, "--auth-supernode-private-key", str(node_key), *self.rest)


def parse_address(text: str) -> tuple[str, int]:
    """Read ``HOST:PORT`` (IPv6 in brackets), as Flower takes it: no scheme, no path."""
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    bare = host[1:-1] if bracketed else host
    if (
        not colon
        or not bare
        or len(bare) > 255
        or any(sign in bare for sign in "/[]@ \t")
        or (":" in bare) != bracketed
        or not (port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 65536)
    ):
        raise Malformed(
            f"expected the superlink's address as HOST:PORT, got {text[:80]!r}",
            hint="without https:// and without a path",
        )
    return bare, int(port)


def supernode_environment(base: Mapping[str, str], *, agent_socket: Path) -> dict[str, str]:
    """The environment of the SuperNode, and so of the ClientApps behind it.

    They learn where the agent's socket is, and nothing that opens a key. Flower's telemetry, update check
    and installation at run time are off; calls to this machine go past any proxy.
    """
    environment = {k: v for k, v in base.items() if not (k.startswith("FLTRUST_") and "PASSPHRASE" in k)}
    environment[SOCKET_VARIABLE] = str(agent_socket)
    environment.update(_QUIET)
    environment.setdefault(*_TASK_POLL)
    for name in ("NO_PROXY", "no_proxy"):
        known = [item.strip() for item in environment.get(name, "").split(",") if item.strip()]
        environment[name] = ",".join(dict.fromkeys((*known, *_LOOPBACK)))
    # A SuperNode starts `flower-superexec` by name: the one beside our own Python must come first.
    path = environment.get("PATH", os.defpath)
    environment["PATH"] = os.pathsep.join((str(scripts_folder()), path))
    return environment


def scripts_folder() -> Path:
    """Where this Python's own commands lie."""
    return Path(sys.executable).parent


def _refuse_if_ours(name: str) -> None:
    if name in _OURS:
        raise Malformed(
            f"expected no {name} among Flower's arguments, fltrust gives it",
            reason="option-conflict",
            hint=_OURS[name],
        )
    # Flower's parser takes unambiguous beginnings of options; ours must not be passed by that way.
    if len(name) > 2 and any(full.startswith(name) and full != name for full in (_SUPERLINK, *_OURS)):
        raise Malformed(
            f"expected Flower's options in full, got {name!r}",
            reason="option-conflict",
            hint=f"it could be {next(full for full in (_SUPERLINK, *_OURS) if full.startswith(name))}",
        )
