"""The agent's unix socket: private, bounded, and answering what its role may be asked.

One thread accepts, one thread serves each connection: it can share a process with an asyncio
loop and is never held up by it. Private keys are on this side alone; nothing that is sent holds one.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import struct
import threading
from collections.abc import Collection, Mapping
from pathlib import Path

from fltrust.agent.counters import RefusalCounter
from fltrust.agent.feedlog import FeedLog
from fltrust.agent.handlers import FOLLOW, Handler, frame_limit
from fltrust.agent.sockets import prepare_folder, remove_stale
from fltrust.errors import (
    AgentUnavailable,
    FltrustError,
    LimitExceeded,
    PermissionDenied,
    StorageUnavailable,
)
from fltrust.identity import Epoch
from fltrust.wire.errors import agent_error_to_pb
from fltrust.wire.framing import receive, send
from fltrust.wire.pb import agent_pb2 as pb
from fltrust.wire.trust import item_to_pb

_log = logging.getLogger("fltrust.agent")

MAX_CONNECTIONS = 64
REQUEST_TIMEOUT = 15.0
"""Seconds for a frame to come in or go out, and for which a connection may be idle."""

_FOLLOW_TICK = 0.5
_BEGIN_TIMEOUT = 30.0
_PEER = struct.Struct("3i")  # struct ucred: pid, uid, gid


class AgentServer:
    """Serves `handlers` on the socket at `path` from `start` to `stop`.

    1. The socket's folder belongs to us and is closed to others (or, with foreign `allowed_uids`,
       lets them through to the socket and nothing else).
    2. The kernel names the peer's uid (SO_PEERCRED); one that is not allowed is refused.
    3. At most `MAX_CONNECTIONS` at once; each frame is bounded before it is read and timed.
    4. A request that is not in `handlers` is refused.

    `log`, where there is one, answers Follow. Refusals of the socket's own are counted.
    """

    def __init__(
        self,
        path: Path,
        *,
        handlers: Mapping[str, Handler],
        log: FeedLog | None = None,
        allowed_uids: Collection[int] | None = None,
        max_connections: int = MAX_CONNECTIONS,
        request_timeout: float = REQUEST_TIMEOUT,
    ) -> None:
        self.path = path
        self._handlers = handlers
        self._feed = log
        self._allowed = frozenset(allowed_uids if allowed_uids is not None else {os.geteuid()})
        self._limit = frame_limit(handlers)
        self._timeout = request_timeout
        self._slots = threading.BoundedSemaphore(max_connections)
        self._refusals = RefusalCounter()
        self._listener: socket.socket | None = None
        self._inode: int | None = None
        self._connections: dict[socket.socket, threading.Thread] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._acceptor: threading.Thread | None = None

    @property
    def refusals(self) -> Mapping[str, int]:
        return self._refusals.snapshot()

    def start(self) -> None:
        """Listen. The socket of an agent that died is replaced; of one that lives, `Conflict`."""
        if not hasattr(socket, "SO_PEERCRED"):
            raise AgentUnavailable(
                "expected a system that names the peer of a unix socket (SO_PEERCRED), this one does not",
                hint="run the agent on Linux",
            )
        shared = bool(self._allowed - {os.geteuid()})
        prepare_folder(self.path.parent, shared=shared)  # 1
        remove_stale(self.path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.bind(str(self.path))
            self.path.chmod(0o666 if shared else 0o600)
            listener.listen(128)
        except OSError as error:
            listener.close()
            raise StorageUnavailable(f"could not listen on {self.path}: {error.strerror or error}") from error
        self._inode = self.path.stat().st_ino
        self._listener = listener
        self._acceptor = threading.Thread(target=self._accept, name="fltrust-agent-accept", daemon=True)
        self._acceptor.start()

    def stop(self, timeout: float = 5.0) -> None:
        """Refuse new connections, end those that are open, remove the socket. Idempotent."""
        self._stopping.set()
        listener, self._listener = self._listener, None
        if listener is None:
            return
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)  # wakes the accepting thread
        listener.close()
        with contextlib.suppress(OSError):
            if self.path.stat().st_ino == self._inode:
                self.path.unlink()
        with self._lock:
            open_now = dict(self._connections)
        for connection in open_now:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in (self._acceptor, *open_now.values()):
            if thread is not None and thread is not threading.current_thread():
                thread.join(timeout)

    def _accept(self) -> None:
        listener = self._listener
        while listener is not None and not self._stopping.is_set():
            try:
                connection, _ = listener.accept()
            except OSError as error:
                if self._stopping.wait(0.05):
                    return
                _log.warning("could not accept a connection on %s: %s", self.path, error)  # e.g. EMFILE
                continue
            connection.settimeout(self._timeout)
            if not self._slots.acquire(blocking=False):  # 3
                self._refuse(
                    connection,
                    LimitExceeded(
                        "expected fewer connections to the agent at once, it has its limit",
                        reason="too-many-connections",
                        hint="try again in a moment",
                    ),
                )
                connection.close()
                continue
            thread = threading.Thread(
                target=self._serve, args=(connection,), name="fltrust-agent-connection", daemon=True
            )
            with self._lock:
                self._connections[connection] = thread
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            self._check_peer(connection)  # 2
            while not self._stopping.is_set():
                request = receive(connection, pb.AgentRequest, limit=self._limit)
                if request is None:
                    return
                if request.WhichOneof("request") == FOLLOW and self._feed is not None:
                    self._follow(connection, self._feed, Epoch(request.follow.after_epoch))
                    return
                send(connection, self._answer(request), limit=self._limit)
        except FltrustError as error:
            self._refuse(connection, error)
        except OSError:
            # Timed out or gone: a peer that does not speak is not answered.
            self._refusals.count("connection-lost")
        except Exception:  # this connection's trouble is not the agent's
            _log.exception("a connection to the agent failed")
        finally:
            connection.close()
            with self._lock:
                self._connections.pop(connection, None)
            self._slots.release()

    def _answer(self, request: pb.AgentRequest) -> pb.AgentResponse:
        """The handler's answer, or its refusal as one: a refused request does not end the connection."""
        asked = request.WhichOneof("request")
        try:
            handler = self._handlers.get(asked or "")  # 4
            if handler is None:
                self._refusals.count(PermissionDenied.default_reason)
                raise PermissionDenied(
                    f"expected a request of {', '.join(sorted(self._handlers))}, got {asked or 'none'}",
                    hint="is this the agent of another role?",
                )
            return handler(request)
        except Exception as error:  # told to the caller, whatever it is
            return pb.AgentResponse(error=agent_error_to_pb(error))

    def _follow(self, connection: socket.socket, log: FeedLog, position: Epoch) -> None:
        log.begin(_BEGIN_TIMEOUT)
        heard: float | None = None
        while not self._stopping.is_set() and not _is_closed(connection):
            items, heard = log.after(position, heard=heard, timeout=_FOLLOW_TICK)
            for item in items:
                send(connection, pb.AgentResponse(follow=item_to_pb(item)), limit=self._limit)
                position = item.epoch

    def _check_peer(self, connection: socket.socket) -> None:
        data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
        _pid, uid, _gid = _PEER.unpack(data)
        if uid not in self._allowed:
            _log.warning("refused a process of uid %d on %s", uid, self.path)
            raise PermissionDenied(
                f"expected a process of uid {', '.join(map(str, sorted(self._allowed)))}, got one of {uid}",
                reason="foreign-uid",
                hint="run the app as the agent's user, or allow its uid where the agent is started",
            )

    def _refuse(self, connection: socket.socket, error: FltrustError) -> None:
        """Say why, as far as the peer listens."""
        self._refusals.count(error.reason)
        with contextlib.suppress(OSError, FltrustError):
            send(connection, pb.AgentResponse(error=agent_error_to_pb(error)), limit=self._limit)
            connection.shutdown(socket.SHUT_WR)


def _is_closed(connection: socket.socket) -> bool:
    """Whether the peer of a stream that only we write to has closed it (or broke the rule and wrote)."""
    poll = select.poll()  # not `select`: a superlink has more than 1,024 files open
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(0))
