"""The agent of one identity, put together: keys, renewal, the trust view, and the socket.

Used by `fltrust supernode` (a participant's) and `fltrust superlink` (an aggregator's). It lives in threads of
its own, so it may share a process with an asyncio loop.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from fltrust.clock import Clock, SystemClock
from fltrust.errors import Revoked
from fltrust.identity import SpiffeId
from fltrust.revocation.view import ReachPolicy, TrustView

if TYPE_CHECKING:
    from fltrust.agent.credentials import CredentialStore
    from fltrust.agent.ports import AggregatorAgent, ParticipantAgent


class AgentHost:
    """Runs the agent whose state lies in `state_dir` between `start` and `stop`.

    `on_revoked` is called once, in a thread of the agent's, when this identity learns that it
    is revoked; from then on every request is refused. A second agent on the same state is
    refused (`Conflict`).
    """

    def __init__(
        self,
        state_dir: Path,
        *,
        passphrase: bytes | None = None,
        clock: Clock | None = None,
        policy: ReachPolicy | None = None,
        socket_path: Path | None = None,
        allowed_uids: Collection[int] | None = None,
        on_revoked: Callable[[Revoked], None] | None = None,
        rng: random.Random | None = None,
    ) -> None:
        """Read the state; nothing runs yet. `policy` says how old the trust view may be;
        `allowed_uids` may use the socket (by default this process's own uid alone)."""
        self._clock = clock or SystemClock()
        raise NotImplementedError

    def start(self) -> None:
        """Follow the feed, renew, and answer on the socket. Works while the coordinator is away."""
        raise NotImplementedError

    def stop(self) -> None:
        """End every thread and remove the socket. Idempotent."""
        raise NotImplementedError

    def wait_ready(self, timeout: float) -> None:
        """Return once the trust view is current; raise what stands in the way after `timeout` seconds."""
        raise NotImplementedError

    @property
    def spiffe_id(self) -> SpiffeId:
        raise NotImplementedError

    @property
    def credentials(self) -> CredentialStore:
        """The current certificate and key, and TLS contexts that follow each rotation."""
        raise NotImplementedError

    @property
    def view(self) -> TrustView:
        raise NotImplementedError

    @property
    def socket_path(self) -> Path:
        """What `FLTRUST_AGENT_SOCKET` must say for the app process."""
        raise NotImplementedError

    @property
    def node_key_path(self) -> Path:
        """A participant's Flower node key, for ``--auth-supernode-private-key``; ``.pub`` lies beside it."""
        raise NotImplementedError

    @property
    def agent(self) -> ParticipantAgent | AggregatorAgent:
        """What answers on the socket, for callers in this process."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
