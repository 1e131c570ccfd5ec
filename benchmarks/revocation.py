"""How soon a round goes on after a revocation is acknowledged, in real processes."""

from __future__ import annotations

import json
import tempfile
import time
from datetime import datetime
from pathlib import Path

from examples.demo.tail import Tail
from examples.lab import Lab
from fltrust.agent.session import connect
from fltrust.enrollment.homes import find_state
from fltrust.identity import Name, Role
from fltrust.revocation.events import RevocationReason
from fltrust.revocation.ports import RevocationTarget

APP = Path(__file__).resolve().parent.parent / "tests" / "e2e" / "apps" / "tiny"
SITES = ("site-a", "site-b", "site-c", "site-d")
"""The last three sleep in one round each, and are revoked in it."""


def measure() -> dict[str, float]:
    """Seconds from the coordinator's acknowledgement to the seal of the round; the slowest of three."""
    with tempfile.TemporaryDirectory() as name, Lab(Path(name)) as lab:
        lab.start_coordinator()
        lab.join("main", "aggregator")
        lab.start_superlink()
        for number, site in enumerate(SITES):
            lab.join(site)
            lab.start_site(site, f"sleep-in-round={number} sleep-seconds=300")
        lab.wait_for_sites(len(SITES))
        lab.run(
            APP, config={"num-server-rounds": 3, "min-nodes": 1, "report": str(lab.folder / "report.json")}
        )
        tail = Tail(lab.events)
        with connect(find_state(Role.OPERATOR, home=lab.folder / "home")) as (client, _):
            taken = []
            for server_round in (1, 2, 3):
                _wait_for_the_sleeper(tail, server_round)
                target = RevocationTarget(name=(Role.PARTICIPANT, Name(SITES[server_round])))
                client.revoke(target, reason=RevocationReason.KEY_COMPROMISE)
                acknowledged = time.time()
                tail.wait(
                    lambda r=server_round: bool(tail.find("round-sealed", round=r)), "the seal", seconds=30
                )
                sealed = datetime.fromisoformat(tail.find("round-sealed", round=server_round)[0]["at"])
                taken.append(max(0.0, sealed.timestamp() - acknowledged))
    return {"round_released_s": max(taken), "round_released_fastest_s": min(taken)}


def _wait_for_the_sleeper(tail: Tail, server_round: int) -> None:
    others = len(SITES) - server_round
    tail.wait(
        lambda: (
            len(tail.find("update-verified", round=server_round)) == others
            and bool(tail.find("instruction-accepted", round=server_round, participant=SITES[server_round]))
        ),
        f"round {server_round} to wait for {SITES[server_round]}",
        seconds=60,
    )


if __name__ == "__main__":
    print(json.dumps(measure(), indent=2))
