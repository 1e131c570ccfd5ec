"""Sign a sensitive operation with the operator's own key, send it, and tell what became of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from fltrust.cli.output import print_json, say

if TYPE_CHECKING:
    from fltrust.agent.credentials import Credentials
    from fltrust.client.coordinator import CoordinatorClient
    from fltrust.enrollment.operation_ports import OperationRecord

Reason = Annotated[str, typer.Option("--reason", help="Why; every operator who decides reads it.")]
Within = Annotated[str, typer.Option("--within", help="How long other operators have to decide.")]


def propose(
    client: CoordinatorClient,
    me: Credentials,
    kind: str,
    parameters: Mapping[str, object],
    *,
    reason: str,
    within: str,
) -> OperationRecord:
    """Propose an operation in exact words, signed; executed at once where no quorum is asked."""
    import secrets

    from fltrust.cli.times import parse_duration
    from fltrust.clock import SystemClock
    from fltrust.enrollment.operation import Operation, Verdict, sign_decision

    now = SystemClock().now()
    operation = Operation(
        domain=me.spiffe_id.domain,
        operation_id=secrets.token_hex(16),
        kind=kind,
        parameters=parameters,
        proposer=me.spiffe_id,
        reason=reason.strip(),
        proposed_at=now,
        expires_at=now + parse_duration(within),
    )
    signed = sign_decision(
        operation,
        Verdict.PROPOSE,
        reason=reason,
        signer=me.signer,
        chain=me.chain_der,
        operator=me.spiffe_id,
        at=now,
    )
    return client.propose_operation(operation.to_payload(), signed)


def tell(record: OperationRecord, done: str, *, as_json: bool) -> None:
    """Say that it was done, or who has yet to decide."""
    import json

    from fltrust.enrollment.operation_ports import OperationState

    if as_json:
        result = json.loads(record.result) if record.result else None
        print_json(
            {
                "operation": record.operation_id,
                "kind": record.kind,
                "state": record.state.value,
                "needed": record.needed,
                "expires": record.expires_at,
                "result": result,
            }
        )
        return
    if record.state is OperationState.EXECUTED:
        say(done)
        return
    others = "operator" if record.needed == 1 else "operators"
    say(f"Proposed as {record.operation_id}; {record.needed} more {others} must approve it:")
    say(f"  fltrust operations approve {record.operation_id} --reason …")
