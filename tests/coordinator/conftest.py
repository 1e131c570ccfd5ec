from __future__ import annotations

from collections.abc import Iterator

import pytest
from authority_world import Authorities, Member, World

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
