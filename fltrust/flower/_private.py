"""The one place where Flower's private API is touched.

Everything here may move with any release of Flower. `SYMBOLS` names each thing we lean on, with the
parameters we pass; `problems()` says in a sentence which of them is gone, and a test asks it on every
installed version. Add a section per user of the module; keep each section to what it needs.

`flwr.proto`, `flwr.app`, `flwr.serverapp`, `flwr.clientapp` and the names Flower documents are not listed:
they are its wire format and its public API.
"""

from __future__ import annotations

import importlib
import inspect
import logging
import os
import ssl
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from flwr.app import Message, Metadata, RecordDict
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode
from flwr.proto.node_pb2 import NodeInfo
from flwr.supercore.run import Run, RunNotRunningException
from flwr.supercore.task_identity import TaskIdentity

from fltrust.errors import Conflict, Unavailable

__all__ = [
    "APP_SYMBOLS",
    "SUPERLINK_NODE_ID",
    "SUPERLINK_SYMBOLS",
    "SUPERNODE_SYMBOLS",
    "SYMBOLS",
    "ErrorCode",
    "NodeInfo",
    "NodeTable",
    "Run",
    "RunNotRunningException",
    "Symbol",
    "become_server_app",
    "copy_message",
    "create_superlink_app",
    "is_simulation_grid",
    "is_transport_error",
    "keep_quiet",
    "object_dividers",
    "parse_superlink_arguments",
    "problems",
    "public_key_header",
    "require",
    "run_supernode_with",
    "set_message_id",
    "superlink_log_config",
]


@dataclass(frozen=True, slots=True)
class Symbol:
    """One private name, `module:name`, and what we need of it; `parameters` are those we pass or override."""

    where: str
    used_for: str
    parameters: tuple[str, ...] = ()

    def problem(self) -> str | None:
        """Say what is wrong with this name in the installed Flower, or None if nothing is."""
        module, _, name = self.where.partition(":")
        try:
            found: Any = importlib.import_module(module)
            for part in name.split("."):
                found = getattr(found, part)
        except (ImportError, AttributeError) as error:
            return f"Flower {_version()} has no {self.where}, needed for {self.used_for}: {error}"
        if self.parameters:
            missing = set(self.parameters) - set(inspect.signature(found).parameters)
            if missing:
                return (
                    f"{self.where} of Flower {_version()} takes no {', '.join(sorted(missing))}, "
                    f"needed for {self.used_for}"
                )
        return None


# --- the table ---------------------------------------------------------------------------------

_SUPERLINK = "flwr.superlink.cli.flower_superlink"
_LINK_STATE = "flwr.server.superlink.linkstate:LinkState"

SUPERLINK_SYMBOLS: tuple[Symbol, ...] = (
    Symbol(f"{_SUPERLINK}:_parse_superlink_lifespan_config", "reading flower-superlink's own arguments"),
    Symbol(f"{_SUPERLINK}:SuperLinkLifespan", "Flower's services", ("config", "state_factory")),
    Symbol("flwr.superlink.main:create_app", "Flower's app", ("config", "superlink_lifespan_class")),
    Symbol("flwr.supercore.http_logging:get_uvicorn_log_config", "Flower's log format", ("log_level",)),
    Symbol("flwr.supercore.logger:console_handler", "Flower's log level"),
    Symbol("flwr.supercore.telemetry:FLWR_TELEMETRY_ENABLED", "keeping telemetry off"),
    Symbol("flwr.supercore.constant:FLEET_HTTP_PUBLIC_KEY_HEADER", "the header with the node key"),
    Symbol("flwr.supercore.constant:HEAD_BODY_DIVIDER", "the head of an uploaded object"),
    Symbol("flwr.supercore.constant:HEAD_VALUE_DIVIDER", "the head of an uploaded object"),
    Symbol("flwr.common.constant:NOOP_FLWR_AID", "the owner of registered nodes"),
    Symbol("flwr.common.constant:NOOP_ACCOUNT_NAME", "the owner of registered nodes"),
    Symbol(
        f"{_LINK_STATE}.create_node",
        "registering enrolled nodes",
        ("owner_aid", "owner_name", "public_key", "heartbeat_interval"),
    ),
    Symbol(f"{_LINK_STATE}.delete_node", "unregistering revoked nodes", ("owner_aid", "node_id")),
    Symbol(f"{_LINK_STATE}.deactivate_node", "letting a restarted node in again", ("node_id",)),
    Symbol(f"{_LINK_STATE}.get_node_id_by_public_key", "binding node ids to keys", ("public_key",)),
    Symbol(f"{_LINK_STATE}.get_node_info", "finding revoked nodes in a kept database", ("node_ids",)),
    Symbol(f"{_LINK_STATE}.delete_messages", "ending the turn of a forger", ("message_ins_ids",)),
)

APP_SYMBOLS: tuple[Symbol, ...] = (
    Symbol("flwr.common.constant:SUPERLINK_NODE_ID", "the sender of instructions"),
    Symbol("flwr.common.constant:ErrorCode", "reading Flower's error replies"),
    Symbol("flwr.supercore.run:Run", "a run without processes"),
    Symbol("flwr.supercore.run:RunNotRunningException", "noticing that a run was stopped"),
    Symbol("flwr.supercore.task_identity:TaskIdentity", "making messages without processes"),
    Symbol("flwr.superlink.grid:InMemoryGrid", "telling Flower's simulation from a deployment"),
)

_FLEET_CLIENT = "flwr.supernode.fleet_http_connection:FleetHttpClient"

SUPERNODE_SYMBOLS: tuple[Symbol, ...] = (
    Symbol("flwr.supernode.cli:flower_supernode", "running Flower's own SuperNode"),
    Symbol(
        _FLEET_CLIENT,
        "a SuperNode without the sidecar",
        ("base_url", "interceptors", "verify", "retry_invoker"),
    ),
    Symbol(
        f"{_FLEET_CLIENT}.from_server_address",
        "a SuperNode without the sidecar",
        ("server_address", "insecure", "root_certificates", "interceptors", "retry_invoker"),
    ),
)

SYMBOLS: tuple[Symbol, ...] = (*SUPERLINK_SYMBOLS, *APP_SYMBOLS, *SUPERNODE_SYMBOLS)
"""Everything we lean on; each section adds its own."""


def problems(symbols: Sequence[Symbol] = SYMBOLS) -> tuple[str, ...]:
    """Say, one sentence each, what of `symbols` the installed Flower does not have as we need it."""
    return tuple(text for symbol in symbols if (text := symbol.problem()) is not None)


def require(symbols: Sequence[Symbol]) -> None:
    """Raise `Unavailable` with the first of `problems`, so that a new Flower fails with a sentence."""
    found = problems(symbols)
    if found:
        raise Unavailable(found[0], hint="install a Flower that fltrust was tested with: flwr>=1.40,<1.43")


def _version() -> str:
    return version("flwr")


# --- every process of ours ---------------------------------------------------------------------


def keep_quiet() -> None:
    """Turn telemetry, the update check and run-time installation of dependencies off, here and below."""
    os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
    os.environ["FLWR_DISABLE_UPDATE_CHECK"] = "1"
    os.environ["FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION"] = "1"
    telemetry: Any = sys.modules.get("flwr.supercore.telemetry")
    if telemetry is not None:  # it read the environment when it was imported
        telemetry.FLWR_TELEMETRY_ENABLED = "0"


# --- apps: what the client app, the grid and the local federation need -------------------------


def become_server_app(run_id: int) -> None:
    """Let this process create messages of run `run_id`, as Flower's own runtimes do."""
    TaskIdentity.task_id = 1
    TaskIdentity.run_id = run_id
    TaskIdentity.node_id = SUPERLINK_NODE_ID


def set_message_id(message: Message, message_id: str) -> None:
    message.metadata.__dict__["_message_id"] = message_id


def copy_message(message: Message, content: RecordDict) -> Message:
    """The same message around another content, as the other end of a wire would build it."""
    meta = message.metadata
    copied = Metadata(
        run_id=meta.run_id,
        message_id=meta.message_id,
        src_node_id=meta.src_node_id,
        dst_node_id=meta.dst_node_id,
        reply_to_message_id=meta.reply_to_message_id,
        group_id=meta.group_id,
        created_at=meta.created_at,
        ttl=meta.ttl,
        message_type=meta.message_type,
        src_task_id=meta.src_task_id,
        dst_task_id=meta.dst_task_id,
    )
    make: Any = Message  # Flower's own internal form is not among its overloads
    copy: Message = make(metadata=copied, content=content)
    return copy


def is_simulation_grid(grid: object) -> bool:
    """Whether this is the grid of Flower's simulation runtime."""
    module = sys.modules.get("flwr.superlink.grid")
    cls: Any = getattr(module, "InMemoryGrid", None)
    return cls is not None and isinstance(grid, cls)


def is_transport_error(error: BaseException) -> bool:
    """Whether a pull failed on its way to the SuperLink, rather than over what it fetched."""
    httpx: Any = sys.modules.get("httpx")
    if httpx is not None and isinstance(error, httpx.HTTPError):
        return True
    return isinstance(error, OSError)


# --- superlink ---------------------------------------------------------------------------------


def parse_superlink_arguments(arguments: Sequence[str]) -> Any:
    """Read flower-superlink's own arguments with Flower's own parser; returns its configuration.

    Flower's parser reads `sys.argv` and ends the process (`SystemExit`) on ``--help`` and on mistakes.
    """
    parse = importlib.import_module(_SUPERLINK)._parse_superlink_lifespan_config
    logger = logging.getLogger("flwr")
    kept = sys.argv
    sys.argv = ["flower-superlink", *arguments]
    logger.addFilter(_is_true_of_us)
    try:
        return parse()
    finally:
        logger.removeFilter(_is_true_of_us)
        sys.argv = kept


def _is_true_of_us(record: logging.LogRecord) -> bool:
    """Drop two warnings of Flower's that would mislead: its TLS and its node authentication are ours."""
    text = record.getMessage()
    return not text.startswith(("Option `--insecure` was set", "SuperNode authentication is disabled"))


def create_superlink_app(config: Any) -> Any:
    """Build Flower's own ASGI app; its lifespan starts and stops Flower's other services."""
    lifespan = importlib.import_module(_SUPERLINK).SuperLinkLifespan
    return importlib.import_module("flwr.superlink.main").create_app(config, lifespan)


def superlink_log_config() -> dict[str, Any]:
    """Give uvicorn the log format and level that flower-superlink gives it."""
    level = importlib.import_module("flwr.supercore.logger").console_handler.level
    config = importlib.import_module("flwr.supercore.http_logging").get_uvicorn_log_config(level)
    found: dict[str, Any] = config
    return found


class NodeTable:
    """Flower's registry of nodes and instructions, of an app made by `create_superlink_app`.

    Every call may wait for Flower's database: call it in a worker thread.
    """

    def __init__(self, app: Any) -> None:
        constant = importlib.import_module("flwr.common.constant")
        self._owner: tuple[str, str] = (constant.NOOP_FLWR_AID, constant.NOOP_ACCOUNT_NAME)
        self._factory = app.state.linkstate_factory

    def find(self, public_key_pem: bytes) -> int | None:
        """Return the id of the node registered under this key, if it is not unregistered."""
        found: int | None = self._state.get_node_id_by_public_key(public_key_pem)
        return found

    def register(self, public_key_pem: bytes) -> int:
        """Register a node; `Conflict` if the key was registered before, even if unregistered since."""
        try:
            node_id: int = self._state.create_node(*self._owner, public_key_pem, 0)
        except ValueError as error:
            raise Conflict(
                f"expected a node key that the SuperLink never saw, got a used one: {error}",
                hint="a revoked node must come back with a new node key: run 'fltrust join' anew",
            ) from error
        if node_id == 0:
            raise Unavailable("the SuperLink could not register the node", hint="try again")
        return node_id

    def unregister(self, node_id: int) -> bool:
        """Take the node out for good; what waits for it is answered 'unavailable'. False if it was out."""
        try:
            self._state.delete_node(self._owner[0], node_id)
        except ValueError:
            return False
        except TypeError:
            # The in-memory registry trips over a node that was never activated, after taking it out.
            return True
        return True

    def free(self, node_id: int) -> bool:
        """Mark a node as offline, so that its restarted process may activate it at once."""
        return bool(self._state.deactivate_node(node_id))

    def list_keys(self) -> tuple[tuple[int, bytes], ...]:
        """Give (node id, public key in PEM) of every node that is not unregistered."""
        nodes = self._state.get_node_info()
        return tuple(
            (node.node_id, node.public_key) for node in nodes if not node.HasField("unregistered_at")
        )

    def drop_instruction(self, message_id: str) -> None:
        """Forget an instruction and its reply; the ServerApp's next pull says 'unavailable' at once."""
        self._state.delete_messages(message_ins_ids={message_id})

    @property
    def _state(self) -> Any:
        return self._factory.state()


def public_key_header() -> bytes:
    """Give the lower-case name of the header that carries the node key."""
    name: str = importlib.import_module("flwr.supercore.constant").FLEET_HTTP_PUBLIC_KEY_HEADER
    return name.lower().encode("ascii")


def object_dividers() -> tuple[bytes, bytes]:
    """Give what stands between the head and the body of an object, and between the values in its head."""
    constant = importlib.import_module("flwr.supercore.constant")
    body: bytes = constant.HEAD_BODY_DIVIDER
    value: str = constant.HEAD_VALUE_DIVIDER
    return body, value.encode("ascii")


# --- supernode, in direct mode -----------------------------------------------------------------


def run_supernode_with(context: ssl.SSLContext) -> None:
    """Run Flower's own SuperNode on this process's arguments, its Fleet client speaking TLS by `context`."""
    require(SUPERNODE_SYMBOLS)
    connection: Any = importlib.import_module("flwr.supernode.fleet_http_connection")
    flower_client: Any = connection.FleetHttpClient

    class TrustedFleetClient(flower_client):  # type: ignore[misc]  # the base is found at run time
        @classmethod
        def from_server_address(
            cls,
            server_address: str,
            insecure: bool,
            root_certificates: bytes | str | None,
            interceptors: Sequence[Any],
            *,
            retry_invoker: Any = None,
        ) -> Any:
            del root_certificates
            if insecure:
                raise Conflict("expected a SuperNode with TLS, this one was started with --insecure")
            return cls(
                f"https://{server_address}",
                interceptors=interceptors,
                verify=context,
                retry_invoker=retry_invoker,
            )

    connection.FleetHttpClient = TrustedFleetClient
    importlib.import_module("flwr.supernode.cli").flower_supernode()
