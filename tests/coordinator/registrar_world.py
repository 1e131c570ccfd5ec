"""Operators who decide together, and what they sign."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from authority_world import DOMAIN, Member, World

from fltrust.enrollment.approvals import ApprovalPolicy
from fltrust.enrollment.challenge import node_key_challenge
from fltrust.enrollment.operation import Operation, Verdict, sign_decision
from fltrust.enrollment.operation_ports import OperationRecord
from fltrust.enrollment.types import EnrollRequest, ManualEvidence
from fltrust.identity import Name
from fltrust.keys import FileSigner, generate, spki_der
from fltrust.pki import create_csr

WorldWith = Callable[..., World]
"""Makes a world under a policy of approvals."""


def colleague(world: World, name: str) -> Member:
    """One more operator, from the machine itself."""
    signer, issued = world.authority.bootstrap_operator(Name(name))
    return world._member(signer, issued)


def ask(
    signer: FileSigner, node: FileSigner | None = None, *, note: str = "", source: str = "a"
) -> EnrollRequest:
    """A request without evidence."""
    csr, evidence = create_csr(signer), ManualEvidence(note)
    if node is None:
        return EnrollRequest(evidence, csr, source=source)
    proof = node.sign(node_key_challenge(csr, evidence))
    return EnrollRequest(evidence, csr, spki_der(node.public_key), proof, source=source)


def operation(
    world: World, proposer: Member, kind: str, parameters: dict[str, object], **changes: Any
) -> Operation:
    now = world.clock.now()
    fields: dict[str, Any] = {
        "domain": DOMAIN,
        "operation_id": secrets.token_hex(16),
        "kind": kind,
        "parameters": parameters,
        "proposer": proposer.spiffe_id,
        "reason": "as was decided",
        "proposed_at": now,
        "expires_at": now + timedelta(days=1),
    }
    return Operation(**{**fields, **changes})


def signed(
    world: World, member: Member, wanted: Operation, verdict: Verdict, *, reason: str = "looked at it"
) -> bytes:
    return sign_decision(
        wanted,
        verdict,
        reason=reason,
        signer=member.signer,
        chain=member.chain,
        operator=member.spiffe_id,
        at=world.clock.now(),
    )


def propose(world: World, member: Member, wanted: Operation) -> OperationRecord:
    return world.session(member).propose_operation(
        wanted.to_payload(), signed(world, member, wanted, Verdict.PROPOSE)
    )


def decide(
    world: World, member: Member, wanted: Operation, verdict: Verdict = Verdict.APPROVE
) -> OperationRecord:
    return world.session(member).decide_operation(wanted.operation_id, signed(world, member, wanted, verdict))


def four_eyes(**options: Any) -> ApprovalPolicy:
    return ApprovalPolicy(operations=options.pop("operations", 1), **options)


def key_pair() -> tuple[FileSigner, FileSigner]:
    return generate(), generate()
