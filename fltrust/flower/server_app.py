"""`TrustedServerApp`: one word around a `ServerApp` in the manner of earlier Flower."""

from __future__ import annotations

from collections.abc import Callable

from flwr.app import Context
from flwr.server import Server, ServerAppComponents, ServerConfig
from flwr.server.client_manager import ClientManager
from flwr.server.strategy import Strategy
from flwr.serverapp import Grid, ServerApp

from fltrust.errors import Conflict
from fltrust.flower.grid import TrustedGrid
from fltrust.flower.legacy import under_trust
from fltrust.flower.policy import TrustPolicy
from fltrust.flower.trusting import trusted_grid


class TrustedServerApp(ServerApp):
    """Write it where you wrote `ServerApp`, if yours is ``ServerApp(server_fn=…)`` or calls the grid itself.

        app = TrustedServerApp(server_fn=server_fn)

    The whole app runs over a `TrustedGrid`. With a strategy of `flwr.serverapp.strategy`, `TrustedStrategy`
    is enough; both together do no harm. Without a `policy` the ``fltrust-…`` keys of the run config
    are one; see `TrustPolicy.from_config`.
    """

    def __init__(
        self,
        server: Server | None = None,
        config: ServerConfig | None = None,
        strategy: Strategy | None = None,
        client_manager: ClientManager | None = None,
        server_fn: Callable[[Context], ServerAppComponents] | None = None,
        *,
        policy: TrustPolicy | None = None,
    ) -> None:
        self._policy = policy
        self._trusted: TrustedGrid | None = None
        parts = ServerAppComponents(server, config, strategy, client_manager)
        is_legacy = server_fn is not None or any((server, config, strategy, client_manager))
        if server_fn is not None and any((server, config, strategy, client_manager)):
            raise ValueError("give either server_fn or its parts, not both")
        self._make_parts = server_fn or (lambda _context: parts)
        super().__init__(server_fn=self._legacy_parts if is_legacy else None)
        self._is_legacy = is_legacy

    def __call__(self, grid: Grid, context: Context) -> None:
        policy = self._policy or TrustPolicy.from_config(context.run_config)
        with trusted_grid(grid, policy, is_legacy=self._is_legacy) as trusted:
            self._trusted = trusted
            try:
                super().__call__(trusted, context)
            finally:
                self._trusted = None

    def _legacy_parts(self, context: Context) -> ServerAppComponents:
        if self._trusted is None:
            raise Conflict("expected server_fn to be called by the app itself")
        return under_trust(self._make_parts(context), self._trusted)
