from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from authority_world import Authorities, Member, World

from fltrust.enrollment.approvals import ApprovalPolicy
from fltrust.identity import Role


@pytest.fixture(scope="session")
def ca() -> Authorities:
    return Authorities.make()


@pytest.fixture
def world(database_url: str, ca: Authorities) -> Iterator[World]:
    """An authority on SQLite, then on PostgreSQL."""
    world = World(database_url, ca=ca)
    yield world
    world.close()


@pytest.fixture
def aggregator(world: World) -> Member:
    return world.join("main", Role.AGGREGATOR)


WorldWith = Callable[[ApprovalPolicy], World]


@pytest.fixture
def world_with(tmp_path: Path, ca: Authorities) -> Iterator[WorldWith]:
    """Makes authorities under a policy of approvals, on SQLite."""
    tmp_path.chmod(0o700)
    yield from _worlds((f"sqlite:///{tmp_path / f'world-{number}.db'}" for number in range(100)), ca)


@pytest.fixture
def each_world_with(new_database: Callable[[], str], ca: Authorities) -> Iterator[WorldWith]:
    """The same on SQLite, then on PostgreSQL."""
    yield from _worlds(iter(new_database, None), ca)


def _worlds(urls: Iterator[str], ca: Authorities) -> Iterator[WorldWith]:
    made: list[World] = []

    def make(policy: ApprovalPolicy) -> World:
        made.append(World(next(urls), ca=ca, approvals=policy))
        return made[-1]

    yield make
    for world in made:
        world.close()
