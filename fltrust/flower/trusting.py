"""From the grid that Flower gives to a `TrustedGrid`: which agent, which nodes, in which runtime."""

from __future__ import annotations

import atexit
import importlib
import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, runtime_checkable

from flwr.serverapp import Grid

from fltrust.agent.client import AgentClient
from fltrust.agent.ports import AggregatorAgent
from fltrust.clock import Clock
from fltrust.errors import AgentUnavailable, FltrustError
from fltrust.flower import _private
from fltrust.flower.grid import TrustedGrid
from fltrust.flower.policy import TrustPolicy
from fltrust.identity import RunId

_log = logging.getLogger("fltrust.flower")

_closing: set[RunId] = set()
"""Runs that this process closes when it ends."""


@runtime_checkable
class BringsItsAgent(Protocol):
    """A grid that comes with the aggregator's agent and clock, as the federations of `fltrust.testing` do."""

    @property
    def aggregator_agent(self) -> AggregatorAgent: ...

    @property
    def clock(self) -> Clock: ...


@contextmanager
def trusted_grid(grid: Grid, policy: TrustPolicy, *, is_legacy: bool = False) -> Iterator[TrustedGrid]:
    """A started `TrustedGrid` around `grid`, closed at the end of the block.

    1. A grid that is a `TrustedGrid` already is used as it is.
    2. A grid of `fltrust.testing` brings its agent and its clock.
    3. In Flower's simulation runtime, a simulation's agent is started here, and protects nothing.
    4. Otherwise the agent is the one that `fltrust superlink` runs; `AgentUnavailable` if there is none.
       The run is closed when this process ends, so that several strategies can share it.
    """
    if isinstance(grid, TrustedGrid):  # 1
        yield grid
        return
    if isinstance(grid, BringsItsAgent):  # 2
        agent: AggregatorAgent = grid.aggregator_agent
        with TrustedGrid(grid, agent=agent, policy=policy, clock=grid.clock, is_legacy=is_legacy) as trusted:
            yield trusted
        return
    if _private.is_simulation_grid(grid):  # 3
        with _simulated_grid(grid, policy, is_legacy) as trusted:
            yield trusted
        return
    client = AgentClient.from_environment()  # 4
    _close_at_exit(client, RunId(grid.run.run_id))
    with TrustedGrid(grid, agent=client, policy=policy, is_legacy=is_legacy) as trusted:
        yield trusted


def _close_at_exit(agent: AggregatorAgent, run_id: RunId) -> None:
    """At the end of the ServerApp's process, agents stop signing for its run."""
    if run_id not in _closing:
        _closing.add(run_id)
        atexit.register(_close_run, agent, run_id)


def _close_run(agent: AggregatorAgent, run_id: RunId) -> None:
    try:
        agent.close_run(run_id)
    except FltrustError as error:
        _log.warning("run %d could not be closed: %s", run_id, error)


def _simulated_grid(grid: Grid, policy: TrustPolicy, is_legacy: bool) -> AbstractContextManager[TrustedGrid]:
    """Found by name: putting a coordinator together is the business of the room above this one."""
    try:
        simulation = importlib.import_module("fltrust.testing.simulation")
    except ImportError as error:
        raise AgentUnavailable(
            f"a simulation needs a coordinator in this process, and {error.name} is not installed",
            hint="pip install 'fltrust[simulation]'",
        ) from error
    made: AbstractContextManager[TrustedGrid] = simulation.simulated_grid(grid, policy, is_legacy=is_legacy)
    return made
