"""A process with `run_superlink` in its main thread, and beside it the relays of its participants.

    python superlink_process.py FOLDER HOLD_SECONDS PORT NAME…

Writes FOLDER/ready.json when it listens: for each participant, how its flower-supernode is to be started.
Reads commands: ``revoke NAME``, ``counters``.
"""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "flower"))

from superlink_world import Domain, Host, Site

from fltrust.agent.credentials import CredentialStore
from fltrust.agent.relay import Relay
from fltrust.files import make_private_folder
from fltrust.flower.superlink import SuperlinkAddresses, SuperlinkOptions, run_superlink
from fltrust.identity import Role
from fltrust.revocation import EventKind


def main() -> None:
    folder, hold, port, names = Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3], sys.argv[4:]
    domain = Domain()
    store = CredentialStore(domain.issue(Role.AGGREGATOR, "main"))
    domain.say(EventKind.ENROLLED, store.spiffe_id)
    sites = {name: domain.enroll(name) for name in names}
    relays: list[Relay] = []

    def keep_fresh() -> None:
        while not ended.wait(5):
            domain.beat()

    def listen() -> None:
        for line in sys.stdin:
            command, _, name = line.strip().partition(" ")
            if command == "revoke":
                domain.say(EventKind.REVOKED, sites[name].spiffe_id)

    def on_ready(addresses: SuperlinkAddresses) -> None:
        ways = {name: start_relay(site, addresses) for name, site in sites.items()}
        (folder / "ready.part").write_text(json.dumps(ways))
        (folder / "ready.part").rename(folder / "ready.json")

    def start_relay(site: Site, addresses: SuperlinkAddresses) -> list[str]:
        run = folder / site.name
        make_private_folder(run)
        key = run / "node.key"
        key.touch(0o600)
        key.write_bytes(site.node_key.to_openssh())
        relay = Relay(
            ("127.0.0.1", addresses.fleet[1]),
            credentials=CredentialStore(site.credentials),
            view=domain.view,
            run_folder=run,
        )
        relay.start()
        relays.append(relay)
        return [
            *("--superlink", relay.address),
            *("--root-certificates", str(relay.root_certificates)),
            *("--auth-supernode-private-key", str(key)),
        ]

    ended = threading.Event()
    for work in (keep_fresh, listen):
        threading.Thread(target=work, daemon=True).start()
    try:
        run_superlink(
            ["--port", port],
            host=Host(store.spiffe_id, store, domain.view, folder / "agent.sock"),
            options=SuperlinkOptions(fleet_host="127.0.0.1", fleet_port=0, hold_seconds=hold),
            on_ready=on_ready,
        )
    finally:
        ended.set()
        for relay in relays:
            relay.stop()


if __name__ == "__main__":
    main()
