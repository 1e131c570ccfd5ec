from __future__ import annotations

import pytest
from update_world import World


@pytest.fixture(scope="session")
def world() -> World:
    return World()
