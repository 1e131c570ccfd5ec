"""Join a federation: make the keys, prove they are ours, get the certificate, write the state."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from cryptography import x509

from fltrust.agent.credentials import Credentials
from fltrust.agent.evidence import Prover, patiently
from fltrust.agent.state import AgentRecord, AgentState, StateDraft, default_home, state_folder
from fltrust.clock import Clock, SystemClock
from fltrust.enrollment.challenge import node_key_challenge
from fltrust.enrollment.state import refuse_if_taken
from fltrust.enrollment.types import EnrollRequest, Evidence, Issued, JoinToken, JoinTokenEvidence
from fltrust.errors import CertificateRefused, Malformed
from fltrust.identity import Role
from fltrust.keys import FileSigner, Signer, create_node_key, generate, spki_der
from fltrust.pki import TrustBundle, create_csr, make_bundle
from fltrust.pki.issuing import domain_of_ca

Enroller = Callable[[JoinToken, EnrollRequest], Issued]
"""Sends the request to the token's coordinator, over a channel that the token's root authenticates."""


def join(
    token: JoinToken,
    state: Path | None = None,
    *,
    passphrase: bytes | None = None,
    home: Path | None = None,
    enroll: Enroller | None = None,
    clock: Clock | None = None,
    key: Signer | None = None,
    prove: Prover | None = None,
) -> AgentState:
    """Spend a join token and return the state of the identity that it was made for.

    With `prove`, other evidence is shown than the token's secret; the token says where, and may have none
    (`fltrust.agent.evidence.introduction`).

    1. The folder `state` is free (by default the state goes under `home`, by the name that comes back),
       and the disk takes the keys, before the token is spent.
    2. A certificate key (unless `key` is given, which may be in hardware) and a Flower node key are made;
       both sign the request.
    3. The token's coordinator issues; the connection was authenticated by the token's root.
    4. What came back verifies against that root alone, is of its trust domain, and is for our key.
    5. The state takes its place, whole. An earlier one of the same name under `home` is put aside,
       unless its agent is running (`Conflict`).

    A join that is interrupted leaves no state. After 3 the token is spent, whatever happens then.
    Raises `TokenRefused`, `CertificateRefused`, `CoordinatorUnavailable`, `StorageUnavailable`, `Conflict`.
    """
    pinned = _pinned_bundle(token)
    if state is not None:
        refuse_if_taken(state)  # 1
    base = home or default_home()
    with StateDraft(base if state is None else state.absolute().parent) as draft:
        node_key = create_node_key(draft.node_key_path)  # 2
        signer = key or generate()
        shown = prove or (lambda _csr, _domain: JoinTokenEvidence(token.secret))
        csr = create_csr(signer)
        evidence = shown(csr, pinned.domain)
        issued, is_participant = _enroll(  # 3
            token, csr, evidence, node_key, enroll or _enroll_over_network
        )
        credentials = Credentials.verified(  # 4
            signer, issued.chain_der, bundle=pinned, expect=None, clock=clock or SystemClock()
        )
        who = credentials.spiffe_id
        if (who.role is Role.PARTICIPANT) != is_participant:
            raise CertificateRefused(f"expected the certificate of another role, got one of {who}")
        if not is_participant:
            for path in (draft.node_key_path, draft.node_key_path.with_name("node.key.pub")):
                path.unlink()
        record = AgentRecord(
            spiffe_id=who,
            address=token.address,
            bootstrap=token.bootstrap,
            node_key=node_key.key_id if is_participant else None,
        )
        return draft.finish(  # 5
            state_folder(who, home=base) if state is None else state,
            record,
            signer=signer,
            chain=credentials.certificate.chain,
            bundle=pinned,
            passphrase=passphrase,
            replace=state is None,
        )


def _enroll(
    token: JoinToken, csr: bytes, evidence: Evidence, node_key: FileSigner, enroll: Enroller
) -> tuple[Issued, bool]:
    """Enroll as a participant; if the evidence is not a participant's, without a node key.

    Evidence does not say what it is for. A coordinator refuses a node key from other roles, and a
    refusal does not spend it.
    """
    proof = node_key.sign(node_key_challenge(csr, evidence))
    with contextlib.suppress(Malformed):
        request = EnrollRequest(evidence, csr, spki_der(node_key.public_key), proof)
        return patiently(lambda: enroll(token, request)), True
    return patiently(lambda: enroll(token, EnrollRequest(evidence, csr))), False


def _enroll_over_network(token: JoinToken, request: EnrollRequest) -> Issued:
    from fltrust.client.bootstrap import enroll

    return enroll(token, request)


def _pinned_bundle(token: JoinToken) -> TrustBundle:
    """The one root that the token names; roots that the response adds are learned at renewal."""
    try:
        root = x509.load_der_x509_certificate(token.root_der)
    except ValueError:
        raise Malformed(
            "expected a root certificate in the join token, found something else",
            hint="paste the whole line that 'fltrust token create' printed",
        ) from None
    return make_bundle(domain_of_ca(root), [root], sequence=0)
