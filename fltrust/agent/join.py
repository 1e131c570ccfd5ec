"""Join a federation: make the keys, prove they are ours, get the certificate, write the state."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from cryptography import x509

from fltrust.agent.credentials import Credentials
from fltrust.agent.evidence import Prover, patiently
from fltrust.agent.pending import (
    Collector,
    PendingJoin,
    collect_pending,
    copy_node_key,
    keep_pending,
    open_pending,
)
from fltrust.agent.state import AgentRecord, AgentState, StateDraft, default_home, state_folder
from fltrust.clock import Clock, SystemClock
from fltrust.enrollment.challenge import node_key_challenge
from fltrust.enrollment.state import refuse_if_taken
from fltrust.enrollment.types import EnrollRequest, Evidence, Issued, JoinToken, JoinTokenEvidence
from fltrust.errors import ApprovalPending, CertificateRefused, Malformed
from fltrust.identity import KeyId, Role
from fltrust.keys import FileSigner, Signer, create_node_key, generate, load, spki_der
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
    has_node_key: bool = True,
) -> AgentState:
    """Spend a join token and return the state of the identity that it was made for.

    With `prove`, other evidence is shown than the token's secret; the token says where, and may have none
    (`fltrust.agent.evidence.introduction`). `has_node_key` of False: whoever asks is no participant, and
    sends no node key. Where operators decide, the keys are kept for `collect`.

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
        asked = _Asked(enroll or _enroll_over_network)
        try:
            issued, is_participant = _enroll(  # 3
                token, csr, evidence, node_key if has_node_key else None, asked
            )
        except ApprovalPending as waiting:
            if not isinstance(signer, FileSigner):  # a key in hardware stays where it is: join again with it
                raise
            folder = keep_pending(
                base,
                request_id=waiting.request_id,
                token=token,
                csr_der=csr,
                signer=signer,
                node_key_path=draft.node_key_path if asked.with_node_key else None,
                passphrase=passphrase,
            )
            waiting.hint = f"its keys are kept in {folder}; when operators have decided: fltrust collect"
            raise
        return _finish(
            draft,
            token,
            issued,
            signer=signer,
            node_key=node_key.key_id if is_participant else None,
            target=state,
            base=base,
            passphrase=passphrase,
            clock=clock or SystemClock(),
        )


def collect(
    folder: Path,
    state: Path | None = None,
    *,
    passphrase: bytes | None = None,
    home: Path | None = None,
    ask: Collector | None = None,
    clock: Clock | None = None,
) -> AgentState:
    """Ask what became of a request that waits (`fltrust.agent.pending`); write its state if it was issued.

    Raises `ApprovalPending` while operators have yet to decide, `RequestDenied` when they said no: then
    the keys are removed. What comes back is verified as by `join`, steps 4 and 5.
    """
    pending = open_pending(folder, passphrase=passphrase)
    base = home or default_home()
    if state is not None:
        refuse_if_taken(state)

    def finish(pending: PendingJoin, issued: Issued) -> AgentState:
        with StateDraft(base if state is None else state.absolute().parent) as draft:
            node_key = copy_node_key(pending.folder, draft.node_key_path)
            return _finish(
                draft,
                pending.token,
                issued,
                signer=pending.signer,
                node_key=node_key,
                target=state,
                base=base,
                passphrase=passphrase,
                clock=clock or SystemClock(),
            )

    return collect_pending(pending, finish=finish, collect=ask or _collect_over_network)


def install(
    folder: Path,
    token: JoinToken,
    issued: Issued,
    state: Path | None = None,
    *,
    passphrase: bytes | None = None,
    home: Path | None = None,
    clock: Clock | None = None,
) -> AgentState:
    """Write the state of an identity whose keys lie in `folder` (`fltrust.agent.carried`), and whose
    certificate somebody carried here; verified as by `join`, steps 4 and 5."""
    if state is not None:
        refuse_if_taken(state)
    base = home or default_home()
    with StateDraft(base if state is None else state.absolute().parent) as draft:
        return _finish(
            draft,
            token,
            issued,
            signer=load(folder / "identity.key", passphrase=passphrase),
            node_key=copy_node_key(folder, draft.node_key_path),
            target=state,
            base=base,
            passphrase=passphrase,
            clock=clock or SystemClock(),
        )


def _finish(
    draft: StateDraft,
    token: JoinToken,
    issued: Issued,
    *,
    signer: Signer,
    node_key: KeyId | None,
    target: Path | None,
    base: Path,
    passphrase: bytes | None,
    clock: Clock,
) -> AgentState:
    """Steps 4 and 5 of `join`."""
    pinned = _pinned_bundle(token)
    credentials = Credentials.verified(  # 4
        signer, issued.chain_der, bundle=pinned, expect=None, clock=clock
    )
    who = credentials.spiffe_id
    if (who.role is Role.PARTICIPANT) != (node_key is not None):
        raise CertificateRefused(f"expected the certificate of another role, got one of {who}")
    if node_key is None:
        for path in (draft.node_key_path, draft.node_key_path.with_name("node.key.pub")):
            path.unlink(missing_ok=True)
    record = AgentRecord(spiffe_id=who, address=token.address, bootstrap=token.bootstrap, node_key=node_key)
    return draft.finish(  # 5
        state_folder(who, home=base) if target is None else target,
        record,
        signer=signer,
        chain=credentials.certificate.chain,
        bundle=pinned,
        passphrase=passphrase,
        replace=target is None,
    )


class _Asked:
    """Sends requests, and remembers whether the last had a node key."""

    def __init__(self, enroll: Enroller) -> None:
        self._enroll = enroll
        self.with_node_key = False

    def __call__(self, token: JoinToken, request: EnrollRequest) -> Issued:
        self.with_node_key = request.node_key is not None
        return self._enroll(token, request)


def _enroll(
    token: JoinToken, csr: bytes, evidence: Evidence, node_key: FileSigner | None, enroll: Enroller
) -> tuple[Issued, bool]:
    """Enroll as a participant; if the evidence is not a participant's, without a node key.

    Evidence does not say what it is for. A coordinator refuses a node key from other roles, and a
    refusal does not spend it.
    """
    if node_key is None:
        return patiently(lambda: enroll(token, EnrollRequest(evidence, csr))), False
    proof = node_key.sign(node_key_challenge(csr, evidence))
    with contextlib.suppress(Malformed):
        request = EnrollRequest(evidence, csr, spki_der(node_key.public_key), proof)
        return patiently(lambda: enroll(token, request)), True
    return patiently(lambda: enroll(token, EnrollRequest(evidence, csr))), False


def _enroll_over_network(token: JoinToken, request: EnrollRequest) -> Issued:
    from fltrust.client.bootstrap import enroll

    return enroll(token, request)


def _collect_over_network(token: JoinToken, request_id: str, csr_der: bytes) -> Issued:
    from fltrust.client.bootstrap import collect

    return collect(token, request_id, csr_der)


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
