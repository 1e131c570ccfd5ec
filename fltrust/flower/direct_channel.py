"""How a SuperNode in direct mode gets its certificate: from the agent, in memory, at each rotation.

One socket pair. The agent writes JSON, one message a line; the child only reads. The key travels there and
nowhere else: not through a file, an argument or the environment, and not to the ClientApps behind it.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from fltrust.agent.credentials import Credentials, CredentialStore
from fltrust.clock import Clock
from fltrust.errors import Malformed
from fltrust.identity import SpiffeId
from fltrust.keys.file import from_pem
from fltrust.pki.bundle import MAX_BUNDLE, bundle_from_json, bundle_to_json, certificates_from_pem
from fltrust.pki.verify import MAX_CHAIN

_MAX_MESSAGE = 2 * MAX_BUNDLE


class DirectChannel:
    """The agent's end, from before the child is started until it has ended."""

    def __init__(self, store: CredentialStore, *, aggregator: SpiffeId | None) -> None:
        self._store = store
        self._aggregator = aggregator
        self._ours, self._theirs = socket.socketpair()
        self._lock = threading.Lock()
        self._unsubscribe: Callable[[], None] | None = None

    @property
    def child_fd(self) -> int:
        """The descriptor to pass on to the child."""
        return self._theirs.fileno()

    def started(self) -> None:
        """The child has its end: give it the current credentials, and each that follows."""
        self._theirs.close()
        self._unsubscribe = self._store.on_rotate(self._send)
        self._send(self._store.current)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._unsubscribe is not None:
            self._unsubscribe()
        self._ours.close()
        self._theirs.close()

    def _send(self, credentials: Credentials) -> None:
        shown = credentials.transport or credentials
        message = {
            "key": shown.file_signer.to_pem(None).decode("ascii"),
            "chain": shown.chain_pem.decode("ascii"),
            "bundle": bundle_to_json(credentials.bundle).decode(),
            "aggregator": None if self._aggregator is None else str(self._aggregator),
        }
        with self._lock, suppress(BrokenPipeError, ConnectionResetError):  # the child has ended
            self._ours.sendall(json.dumps(message).encode() + b"\n")


class DirectCredentials:
    """The child's end: a `CredentialStore` that follows the agent's, and whom to expect at the superlink."""

    def __init__(self, fd: int, *, clock: Clock) -> None:
        """Take the descriptor over and wait for the first credentials."""
        connection = socket.socket(fileno=fd)
        connection.set_inheritable(False)  # `pass_fds` made it so; a ClientApp must not have it
        self._clock = clock
        self._lines = connection.makefile("rb")
        first = self._receive(None)
        if first is None:
            raise Malformed("expected credentials from the agent, it has closed the channel")
        credentials, self.aggregator = first
        self.store = CredentialStore(credentials)
        threading.Thread(target=self._follow, name="fltrust-direct", daemon=True).start()

    def _follow(self) -> None:
        while (received := self._receive(self.store.spiffe_id)) is not None:
            self.store.rotate(received[0])

    def _receive(self, expect: SpiffeId | None) -> tuple[Credentials, SpiffeId | None] | None:
        line = self._lines.readline(_MAX_MESSAGE)
        if not line.endswith(b"\n"):
            return None
        message: dict[str, Any] = json.loads(line)
        credentials = Credentials.verified(
            from_pem(message["key"].encode(), passphrase=None, where=Path("channel")),
            certificates_from_pem(message["chain"].encode(), limit=MAX_CHAIN),
            bundle=bundle_from_json(message["bundle"].encode()),
            expect=expect,
            clock=self._clock,
        )
        named = message["aggregator"]
        return credentials, None if named is None else SpiffeId.parse(named)
