"""A node comes back after its certificate ran out: with that certificate, while the coordinator grants it."""

from __future__ import annotations

import logging
from collections.abc import Callable

from cryptography.hazmat.primitives.serialization import Encoding

from fltrust.agent.credentials import Credentials, CredentialStore
from fltrust.agent.state import AgentState
from fltrust.clock import Clock
from fltrust.enrollment.challenge import node_key_challenge
from fltrust.enrollment.lapsed import LapsedEvidence, lapsed_challenge
from fltrust.enrollment.token import SECRET_BYTES
from fltrust.enrollment.types import EnrollRequest, Issued, JoinToken
from fltrust.errors import CertificateRefused, FltrustError, Refusal
from fltrust.identity import Role
from fltrust.keys import FileSigner, generate, spki_der
from fltrust.pki import create_csr

_log = logging.getLogger("fltrust.agent")

Ask = Callable[[JoinToken, EnrollRequest], Issued]
"""Asks the coordinator's bootstrap port; of the token only the addresses and the root are used."""


def load_or_revive(state: AgentState, *, clock: Clock, ask: Ask | None = None) -> CredentialStore:
    """The credentials in `state`; a certificate that ran out is replaced first, if the coordinator does so.

    Where it does not, or is out of reach, the expiry is raised with why.
    """
    try:
        return CredentialStore.load(state, clock=clock)
    except CertificateRefused as expired:
        if expired.reason != Refusal.CERTIFICATE_EXPIRED:
            raise
        try:
            revive(state, clock=clock, ask=ask)
        except FltrustError as error:
            expired.hint = f"asking to come back with it was refused: {error}"
            raise expired from error
    _log.info("%s was away while its certificate ran out, and has a new one", state.spiffe_id)
    return CredentialStore.load(state, clock=clock)


def revive(state: AgentState, *, clock: Clock, ask: Ask | None = None) -> None:
    """Get a certificate for a new key with the one that ran out, and write it into `state`.

    1. The old key signs the new request; a participant's node key proves that it is the one enrolled.
    2. The coordinator issues, over a channel that the newest root in `state` authenticates.
    3. What comes back verifies, is ours and for the new key; only then the old pair is replaced.
    """
    old, chain = state.load_identity()
    bundle = state.load_bundle()
    signer = generate() if isinstance(old, FileSigner) else old  # a key in hardware is never left for a file
    csr = create_csr(signer)
    der = tuple(certificate.public_bytes(Encoding.DER) for certificate in chain)
    evidence = LapsedEvidence(der, old.sign(lapsed_challenge(csr, der[0], bundle.domain)))  # 1
    request = EnrollRequest(evidence, csr)
    if state.spiffe_id.role is Role.PARTICIPANT:
        node = state.load_node_key()
        proof = node.sign(node_key_challenge(csr, evidence))
        request = EnrollRequest(evidence, csr, spki_der(node.public_key), proof)
    root = bundle.roots[-1].public_bytes(Encoding.DER)
    where = JoinToken(state.record.bootstrap, state.record.address, root, bytes(SECRET_BYTES))
    issued = (ask or _over_network)(where, request)  # 2
    if issued.bundle.domain == bundle.domain and issued.bundle.sequence > bundle.sequence:
        bundle = issued.bundle
    credentials = Credentials.verified(  # 3
        signer, issued.chain_der, bundle=bundle, expect=state.spiffe_id, clock=clock
    )
    state.store_identity(signer, credentials.certificate.chain, bundle)


def _over_network(where: JoinToken, request: EnrollRequest) -> Issued:
    from fltrust.client.bootstrap import enroll

    return enroll(where, request)
