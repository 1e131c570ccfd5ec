"""`fltrust supernode`: the participant's agent, and an unmodified `flower-supernode` behind it.

sidecar   flower-supernode ── TLS on 127.0.0.1 ──► relay (this process) ── mutual TLS ──► superlink
direct    flower-supernode, with our TLS context in the place of Flower's ── mutual TLS ──► superlink

The sidecar is the default: it knows nothing of Flower but its command line (docs/decisions/0003).
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, Protocol

from fltrust.agent.credentials import CredentialStore
from fltrust.agent.relay import Relay
from fltrust.agent.upstream import RelayCredentials
from fltrust.errors import Malformed, NotFound, Revoked, Unavailable
from fltrust.flower.child import Child
from fltrust.flower.direct_channel import DirectChannel
from fltrust.flower.supernode_args import SupernodeArgs, scripts_folder, supernode_environment
from fltrust.identity import SpiffeId, TrustDomain
from fltrust.revocation.events import TrustEvent
from fltrust.revocation.view import TrustView

Mode = Literal["sidecar", "direct"]

READY_TIMEOUT = 10.0
"""Seconds between two complaints that the coordinator is out of reach at the start."""

LOOK_INTERVAL = 1.0
LAST_WORD = 1.0
"""Seconds between two looks whether we are revoked, and for a last one when the SuperNode has failed."""

_log = logging.getLogger("fltrust.supernode")


class SupernodeHost(Protocol):
    """The participant's agent, as far as the SuperNode needs it; `AgentHost` is one."""

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def wait_ready(self, timeout: float) -> None: ...

    @property
    def spiffe_id(self) -> SpiffeId: ...

    @property
    def revoked(self) -> Revoked | None:
        """How this participant learned that it is revoked, if it did."""
        ...

    @property
    def acting_domain(self) -> TrustDomain:
        """In whose rounds it takes part: its own domain's, or a host's."""
        ...

    @property
    def credentials(self) -> CredentialStore: ...

    @property
    def relay_credentials(self) -> RelayCredentials:
        """What the relay shows and trusts: the host's roots, where there is a host."""
        ...

    @property
    def view(self) -> TrustView: ...

    @property
    def socket_path(self) -> Path: ...

    @property
    def node_key_path(self) -> Path: ...


def run_supernode(
    flower_args: Sequence[str],
    *,
    host: SupernodeHost,
    mode: Mode = "sidecar",
    aggregator: SpiffeId | None = None,
    environment: Mapping[str, str] | None = None,
    check_peer_uid: bool = True,
) -> int:
    """Run until flower-supernode ends, and return its exit code (128 and the number for a signal).

    Starts `host`, and stops it at the end. `flower_args` are `flower-supernode`'s own, with the real
    superlink in ``--superlink``; refuses (`Malformed`) those that are ours to give. `aggregator` is who must
    answer there; None takes any aggregator of the domain in good standing. While the coordinator is out of
    reach at the start, it waits. SIGINT, SIGTERM, SIGHUP and SIGQUIT are passed on. Nothing that Flower
    started is left behind.

    A participant that is revoked while it runs is stopped, and `Revoked` raised. One on hold goes on:
    its connections are cut until it is released.
    """
    args = SupernodeArgs.parse(flower_args)
    base = os.environ if environment is None else environment
    if args.superlink is None:
        with Child((_flower_supernode(), *args.rest), environment=base) as child:
            return child.wait()
    if aggregator is not None and aggregator.domain != host.acting_domain:
        raise Malformed(f"expected an aggregator of {host.acting_domain}, got {aggregator}")
    if mode == "direct" and host.acting_domain != host.spiffe_id.domain:
        raise Malformed(
            f"expected the relay for a superlink of {host.acting_domain}, got --direct",
            hint="leave --direct out: Flower's own client trusts one domain, its own",
        )
    host.start()
    try:
        _await_ready(host)
        inherited = supernode_environment(base, agent_socket=host.socket_path)
        if mode == "direct":
            return _run_direct(args, host, aggregator, inherited)
        relay = Relay(
            args.superlink,
            credentials=host.relay_credentials,
            view=host.view,
            run_folder=host.node_key_path.parent / "run",
            aggregator=aggregator,
            check_peer_uid=check_peer_uid,
        )
        return _run_behind(relay, args, host, inherited)
    finally:
        host.stop()


def _run_behind(
    relay: Relay, args: SupernodeArgs, host: SupernodeHost, environment: Mapping[str, str]
) -> int:
    with relay:
        ours = args.behind_relay(
            relay.address, root_certificates=relay.root_certificates, node_key=host.node_key_path
        )
        with Child((_flower_supernode(), *ours), environment=environment) as child:
            return _supervise(child, host)


def _run_direct(
    args: SupernodeArgs, host: SupernodeHost, aggregator: SpiffeId | None, environment: Mapping[str, str]
) -> int:
    with DirectChannel(host.credentials, aggregator=aggregator) as channel:
        fd = channel.child_fd
        command = (sys.executable, "-m", "fltrust.flower.supernode_direct", str(fd))
        ours = args.straight(node_key=host.node_key_path)
        with Child((*command, *ours), environment=environment, pass_fds=(fd,)) as child:
            channel.started()
            return _supervise(child, host)


def _supervise(child: Child, host: SupernodeHost) -> int:
    """Wait for the child; stop it as soon as the agent knows that this participant is revoked."""
    ended, stopping = threading.Event(), threading.Event()

    def look(event: TrustEvent | None = None) -> None:
        del event
        if host.revoked is None or stopping.is_set():
            return
        stopping.set()
        _log.error("%s is revoked: flower-supernode is stopped", host.spiffe_id)
        # In a thread of its own: the feed must not wait for a SuperNode that is slow to go.
        threading.Thread(target=child.stop, name="fltrust-stop", daemon=True).start()

    def keep_looking() -> None:
        # The feed is not the only messenger: a renewal may be refused first.
        while not ended.wait(LOOK_INTERVAL):
            look()

    unsubscribe = host.view.subscribe(look)
    threading.Thread(target=keep_looking, name="fltrust-look", daemon=True).start()
    try:
        look()
        code = child.wait()
    finally:
        ended.set()
        unsubscribe()
    if not child.was_told_to_end:
        # The superlink may have sent it home a moment before the agent was told why.
        host.view.wait_until(lambda _: host.revoked is not None, LAST_WORD)
    if host.revoked is not None:
        raise host.revoked
    if not child.was_told_to_end:
        _log.warning("flower-supernode ended on its own (%d): what it wrote last says why", code)
    return code


def _await_ready(host: SupernodeHost) -> None:
    while True:
        try:
            host.wait_ready(READY_TIMEOUT)
            return
        except Unavailable as error:
            _log.warning("waiting for the coordinator: %s", error)


def _flower_supernode() -> str:
    path = scripts_folder() / "flower-supernode"
    if not path.exists():
        raise NotFound(
            f"expected Flower's command at {path}, found none", hint="pip install 'fltrust[flower]'"
        )
    return str(path)
