from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from superlink_world import Domain, RunningSuperlink, running_superlink
from supernode_world import App, RunningSupernode, SiteHost, beating, wait_for

from fltrust.errors import Revoked
from fltrust.flower.supernode import Mode

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


@dataclass
class House:
    domain: Domain
    superlink: RunningSuperlink
    host: SiteHost
    app: App

    def start(self, mode: Mode) -> RunningSupernode:
        node = RunningSupernode(self.host, self.superlink, mode)
        wait_for(lambda: self.app.nodes() or node.result is not None)
        assert node.result is None, node.result
        return node


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    domain = Domain()
    with running_superlink(domain, tmp_path) as superlink, beating(domain):
        host = SiteHost(domain, domain.enroll("site-a"), tmp_path / "site-a")
        yield House(domain, superlink, host, App(superlink))


@pytest.mark.parametrize("mode", ["sidecar", "direct"])
def test_an_unmodified_supernode_trains_across_rotations_and_leaves_nothing_behind(
    house: House, mode: Mode
) -> None:
    node = house.start(mode)
    node_id = house.app.nodes()[0]
    for turn in range(3):
        reply = house.app.answer(house.app.ask(node_id, "megabytes 12"))
        assert reply.content["weights"]["0"].numpy().nbytes == 12_000_000  # type: ignore[index, union-attr]
        house.host.rotate()
        assert turn >= 0
    seen = reply.content["seen"]
    assert seen["socket"] == str(house.host.socket_path)
    assert seen["passphrase"] == ""
    node.end()
    assert node.result == 0
    assert not node.processes()
    assert not house.host.started


def test_a_revoked_participant_is_stopped_with_its_training(house: House) -> None:
    node = house.start("sidecar")
    house.app.ask(house.app.nodes()[0], "sleep 300")
    wait_for(lambda: any("flwr-clientapp" in line for line in node.processes().values()))
    house.host.revoke()
    node.join()
    assert isinstance(node.result, Revoked)
    assert not node.processes()
