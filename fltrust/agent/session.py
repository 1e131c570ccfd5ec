"""A short session with the coordinator, as the identity in a state folder: what commands use."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from fltrust.agent.credentials import Credentials, CredentialStore
from fltrust.agent.renewal import Renewer, next_renewal
from fltrust.agent.state import AgentState, passphrase_from_environment
from fltrust.client import CoordinatorClient
from fltrust.clock import Clock, SystemClock
from fltrust.errors import CertificateRefused, FltrustError, Refusal

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
            _renew(Renewer(store, client, clock=at, rng=rng), state)
        _follow_ca(store, client, Renewer(store, client, clock=at, rng=rng), state)
        yield client, store.current


def _follow_ca(
    store: CredentialStore, client: CoordinatorClient, renewer: Renewer, state: AgentState
) -> None:
    """Take over the roots of the moment; where our CA is revoked, get a certificate of the one in force.

    Whatever else stands in the way is said by the command's own call.
    """
    try:
        bundle = client.get_bundle()
    except CertificateRefused as error:
        if error.reason == Refusal.ISSUER_REVOKED:
            _renew(renewer, state)
    except FltrustError:
        pass
    else:
        current = store.current
        if bundle.domain == current.bundle.domain and bundle.sequence > current.bundle.sequence:
            store.rotate(replace(current, bundle=bundle))


def _renew(renewer: Renewer, state: AgentState) -> None:
    try:
        renewer.renew()
    except FltrustError as error:
        _log.warning("could not renew the certificate of %s: %s", state.spiffe_id, error)
