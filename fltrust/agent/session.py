"""A short session with the coordinator, as the identity in a state folder: what commands use."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fltrust.agent.credentials import Credentials, CredentialStore
from fltrust.agent.renewal import Renewer, next_renewal
from fltrust.agent.state import AgentState, passphrase_from_environment
from fltrust.client import CoordinatorClient
from fltrust.clock import Clock, SystemClock
from fltrust.errors import FltrustError

_log = logging.getLogger("fltrust.agent")


@contextmanager
def connect(
    state_dir: Path, *, passphrase: bytes | None = None, clock: Clock | None = None
) -> Iterator[tuple[CoordinatorClient, Credentials]]:
    """Speak to the coordinator until the block ends; yields the client and who is speaking.

    A certificate past two thirds of its life is renewed first.
    `passphrase` is by default that of the environment. A renewal that fails is logged: the old
    certificate is good until it expires.
    """
    at = clock or SystemClock()
    state = AgentState.open(state_dir, passphrase=passphrase or passphrase_from_environment())
    store = CredentialStore.load(state, clock=at)
    with CoordinatorClient(state.record.address, lambda: store.current, state.spiffe_id.domain) as client:
        rng = random.SystemRandom()
        certificate = store.current.certificate
        if at.now() >= next_renewal(certificate.not_before, certificate.not_after, rng=rng):
            try:
                Renewer(store, client, clock=at, rng=rng).renew()
            except FltrustError as error:
                _log.warning("could not renew the certificate of %s: %s", state.spiffe_id, error)
        yield client, store.current
