"""`TrustedServerApp`: one word around a `ServerApp` in the manner of earlier Flower."""

from __future__ import annotations

from typing import Any

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fltrust.flower.policy import TrustPolicy
from fltrust.flower.trusting import trusted_grid


class TrustedServerApp(ServerApp):
    """Write it where you wrote `ServerApp`, for ``ServerApp(server_fn=…)`` and apps that call the grid.

        app = TrustedServerApp(server_fn=server_fn)

    The whole app runs over a `TrustedGrid`. With a strategy of `flwr.serverapp.strategy`, `TrustedStrategy`
    is enough; both together do no harm.
    """

    def __init__(self, *args: Any, policy: TrustPolicy | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._policy = policy

    def __call__(self, grid: Grid, context: Context) -> None:
        policy = self._policy or TrustPolicy.from_config(context.run_config)
        with trusted_grid(grid, policy) as trusted:
            super().__call__(trusted, context)
