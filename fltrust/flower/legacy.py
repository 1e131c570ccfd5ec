"""Legacy ServerApps (``server_fn``, a `Server`, a strategy of ``flwr.server.strategy``) under trust.

They exchange every message by itself, in a pool of threads, so each reply has a seal of its own. Two
things are mended here: a participant that is revoked after its seal and before the aggregation is
dropped, and nothing waits a day for clients that will not come.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

from flwr.server import ServerAppComponents, SimpleClientManager
from flwr.server.strategy import FedAvg

from fltrust.errors import QuorumNotMet
from fltrust.flower.grid import TrustedGrid

_log = logging.getLogger("fltrust.flower")


def under_trust(components: ServerAppComponents, grid: TrustedGrid) -> ServerAppComponents:
    """The same components, changed in place: aggregation filters, and waits for clients are bounded."""
    server = components.server
    if server is None:
        components.strategy = components.strategy or FedAvg()
        components.client_manager = components.client_manager or SimpleClientManager()
        strategy: Any = components.strategy
        manager: Any = components.client_manager
    else:
        strategy, manager = server.strategy, server.client_manager()
    strategy.aggregate_fit = _standing_only(strategy.aggregate_fit, grid, has_quorum=True)
    strategy.aggregate_evaluate = _standing_only(strategy.aggregate_evaluate, grid, has_quorum=False)
    manager.wait_for = _bounded(manager.wait_for, grid)
    return components


def _standing_only(
    aggregate: Callable[..., Any], grid: TrustedGrid, *, has_quorum: bool
) -> Callable[..., Any]:
    """`aggregate` of those alone who stand well at this moment; the others count as failures.

    With `has_quorum`, too few raise `QuorumNotMet` or leave the model as it is, as policy says.
    """

    @functools.wraps(aggregate)
    def wrapped(server_round: int, results: list[Any], failures: list[Any]) -> Any:
        standing = [result for result in results if grid.stands_well(result[0].node_id)]
        fallen = [result for result in results if not grid.stands_well(result[0].node_id)]
        for client, _ in fallen:
            _log.warning("round %d: node %s fell after it answered", server_round, client.cid)
        asked = len(results) + len(failures)
        if has_quorum and not grid.meets_quorum(server_round=server_round, got=len(standing), asked=asked):
            return None, {}
        return aggregate(server_round, standing, [*failures, *fallen])

    return wrapped


def _bounded(wait_for: Callable[..., bool], grid: TrustedGrid) -> Callable[..., bool]:
    """Flower's default is to wait a day; a caller that is less patient is left alone."""

    @functools.wraps(wait_for)
    def wrapped(num_clients: int, timeout: int = 86_400) -> bool:
        seconds = int(grid.longest_node_wait.total_seconds())
        if timeout <= seconds:
            return wait_for(num_clients, timeout)
        if wait_for(num_clients, seconds):
            return True
        raise QuorumNotMet(
            f"the strategy has waited {seconds} s for {num_clients} clients in good standing",
            hint="lower min_fit_clients or min_available_clients, or let more sites join",
        )

    return wrapped
