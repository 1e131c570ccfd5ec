"""The workload socket: gRPC on a unix socket that its owner alone may use."""

from __future__ import annotations

import contextlib
import logging
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc

from fltrust.agent.sockets import MAX_SOCKET_PATH, remove_stale
from fltrust.agent.workloads.calls import MAX_REQUEST
from fltrust.agent.workloads.keeper import WorkloadKeeper
from fltrust.agent.workloads.sds import sds_routes
from fltrust.agent.workloads.spiffe_api import spiffe_routes
from fltrust.errors import Malformed, StorageUnavailable

MAX_STREAMS = 32
"""Calls open at once, each of which has a thread; more are refused (RESOURCE_EXHAUSTED)."""

_GRACE = 0.5
_log = logging.getLogger("fltrust.agent")


class WorkloadServer:
    """Serves the Workload API and SDS on the socket at `path`, from `start` to `stop`.

    Whoever may open the socket gets the workload's key. So its folder is ours and nobody else may write
    there, and the socket is for our own user alone (0600): gRPC does not tell who calls.
    """

    def __init__(self, path: Path, keeper: WorkloadKeeper) -> None:
        self.path = path
        self._keeper = keeper
        self._server: grpc.Server | None = None
        self._inode: int | None = None

    def start(self) -> None:
        """Listen. The socket of an agent that died is replaced; of one that lives, `Conflict`."""
        path = self.path.absolute()
        if len(os.fsencode(path)) > MAX_SOCKET_PATH:
            raise Malformed(f"expected a path of at most {MAX_SOCKET_PATH} bytes for a socket, got {path}")
        _prepare_folder(path.parent)
        remove_stale(path)
        server = grpc.server(
            ThreadPoolExecutor(MAX_STREAMS, thread_name_prefix="fltrust-workload"),
            handlers=[_Routes(self._keeper)],
            maximum_concurrent_rpcs=MAX_STREAMS,
            options=[
                ("grpc.max_receive_message_length", MAX_REQUEST),
                ("grpc.max_metadata_size", 8 * 1024),
                ("grpc.absolute_max_metadata_size", 16 * 1024),
            ],
        )
        before = os.umask(0o177)  # from its first moment on the socket is for us alone
        try:
            server.add_insecure_port(f"unix:{path}")
        except RuntimeError as error:
            raise StorageUnavailable(f"could not listen on {path}: {error}") from None
        finally:
            os.umask(before)
        path.chmod(0o600)
        self._inode = path.stat().st_ino
        server.start()
        self._server = server
        _log.info("the workload %s is served on %s", self._keeper.spiffe_id, path)

    def stop(self) -> None:
        """End every call and remove the socket. Idempotent."""
        server, self._server = self._server, None
        if server is None:
            return
        server.stop(_GRACE).wait(5 * _GRACE)
        with contextlib.suppress(OSError):
            if self.path.stat().st_ino == self._inode:
                self.path.unlink()


class _Routes(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # generic in the stubs alone
    """The methods that are served; every other one is UNIMPLEMENTED."""

    def __init__(self, keeper: WorkloadKeeper) -> None:
        self._routes = {**spiffe_routes(keeper), **sds_routes(keeper)}

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        return self._routes.get(details.method)


def _prepare_folder(folder: Path) -> None:
    """Make the folder (0700); one that is there must be ours, and writable by nobody else."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise StorageUnavailable(f"could not prepare {folder}: {error.strerror or error}") from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise StorageUnavailable(
            f"expected {folder} to be a folder of uid {os.geteuid()} that nobody else may write to",
            hint="choose a folder of the agent's own for the workload socket",
        )
