"""`fltrust operations`: what is too sensitive for one operator, signed by each."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fltrust.cli.options import AsJson, State
from fltrust.cli.output import Row, print_json, print_rows, say, shown
from fltrust.cli.propose import Reason, Within
from fltrust.cli.session import operator_session
from fltrust.errors import Malformed

if TYPE_CHECKING:
    from fltrust.agent.credentials import Credentials
    from fltrust.client.coordinator import CoordinatorClient
    from fltrust.enrollment.operation import Operation, Verdict
    from fltrust.enrollment.operation_ports import OperationRecord, SignedDecision

app = typer.Typer(help="Sensitive operations, which each operator signs.", no_args_is_help=True)

OperationId = Annotated[str, typer.Argument(metavar="ID", help="As 'fltrust operations list' shows.")]

_COLUMNS = {
    "id": "ID",
    "kind": "KIND",
    "state": "STATE",
    "proposer": "PROPOSED BY",
    "needed": "NEEDS",
    "reason": "REASON",
    "expires": "EXPIRES",
}


@app.command("list")
def list_(
    everything: Annotated[bool, typer.Option("--all", help="Those that are over, too.")] = False,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Show the operations that wait for operators."""
    with operator_session(state) as (client, _):
        rows = [_row(record) for record in client.list_operations(waiting_only=not everything)]
    print_rows(rows, columns=_COLUMNS, as_json=as_json, empty="No operations.")


@app.command("show")
def show(operation_id: OperationId, state: State = None, as_json: AsJson = False) -> None:
    """Show the exact words of an operation, and who signed what; every signature is verified here."""
    with operator_session(state) as (client, me):
        record, decisions = client.get_operation(operation_id)
        bundle = me.bundle
    operation = _read(record)
    signed = [_decision_row(item, operation, bundle=bundle) for item in decisions]
    print_json({**_row(record), "words": record.payload.decode(), "decisions": signed})
    if not as_json:
        say(f"Signed words: sha256:{operation.digest.hex}")


@app.command("approve")
def approve(
    operation_id: OperationId,
    reason: Reason,
    yes: Annotated[bool, typer.Option("--yes", help="Do not show it and ask.")] = False,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Sign an approval of the exact words. The approval that completes the quorum executes the operation."""
    from fltrust.enrollment.operation import Verdict

    with operator_session(state) as (client, me):
        record = _decide(client, me, operation_id, Verdict.APPROVE, reason=reason, yes=yes)
    _tell(record, as_json=as_json)


@app.command("deny")
def deny(
    operation_id: OperationId,
    reason: Reason,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Sign a denial: the operation is over, whoever proposed it."""
    from fltrust.enrollment.operation import Verdict

    with operator_session(state) as (client, me):
        record = _decide(client, me, operation_id, Verdict.DENY, reason=reason, yes=True)
    _tell(record, as_json=as_json)


@app.command("export")
def export(
    operation_id: OperationId,
    target: Annotated[Path, typer.Argument(help="A new file.")],
    state: State = None,
) -> None:
    """Write an operation and what was signed of it to a file that verifies offline."""
    from fltrust.enrollment.operation_file import OperationFile
    from fltrust.files import write_durably

    with operator_session(state) as (client, _):
        record, decisions = client.get_operation(operation_id)
    if target.exists():
        raise Malformed(f"expected a new file, {target} is there")
    write_durably(target, OperationFile(record.payload, tuple(item.signed for item in decisions)).to_json())
    say(f"Written to {target}. Anywhere: fltrust operations verify {target} --roots roots.pem")


@app.command("verify")
def verify(
    source: Annotated[Path, typer.Argument(help="What 'fltrust operations export' wrote.")],
    roots: Annotated[Path, typer.Option(help="The trust domain's root certificates, in PEM.")],
    as_json: AsJson = False,
) -> None:
    """Verify an exported operation with nothing but the roots: who signed which words, when and why.

    Whether an operator was revoked, and that it was executed, is for the log to say.
    """
    from fltrust.enrollment.operation_file import read_operation_file
    from fltrust.files import read_bounded
    from fltrust.pki.bundle import MAX_ROOTS, certificates_from_pem, make_bundle
    from fltrust.pki.issuing import domain_of_ca

    trusted = certificates_from_pem(read_bounded(roots, limit=2**18), limit=MAX_ROOTS)
    operation, found = read_operation_file(
        read_bounded(source, limit=4 * 2**20), bundle=make_bundle(domain_of_ca(trusted[0]), trusted)
    )
    rows = [
        {
            "verdict": item.decision.verdict.value,
            "operator": str(item.decision.operator),
            "at": item.decision.signed_at,
            "reason": item.decision.reason,
        }
        for item in found
    ]
    if as_json:
        print_json({"operation": str(operation.digest), "kind": operation.kind, "decisions": rows})
        return
    say(f"{operation.kind} {operation.operation_id}: {shown(operation.reason)}")
    say(f"sha256:{operation.digest.hex}")
    columns = {"verdict": "SIGNED", "operator": "BY", "at": "AT", "reason": "REASON"}
    print_rows(rows, columns=columns, as_json=False, empty="")


@app.command("release-hold")
def release_hold(
    name: Annotated[str, typer.Argument(help="site-a, aggregator/main, or a SPIFFE ID.")],
    reason: Reason,
    within: Within = "1d",
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Propose to end a hold; where no other operator is needed, it ends at once."""
    from fltrust.cli.propose import propose, tell
    from fltrust.cli.session import identity_from
    from fltrust.enrollment.operation_kinds import RELEASE_HOLD, release_parameters
    from fltrust.revocation.ports import RevocationTarget

    with operator_session(state) as (client, me):
        who = identity_from(name, domain=me.spiffe_id.domain)
        if who.name is None:
            raise Malformed("expected somebody on hold; the coordinator never is")
        is_ours = who.domain == me.spiffe_id.domain
        target = RevocationTarget(name=(who.role, who.name)) if is_ours else RevocationTarget(foreign=who)
        parameters = release_parameters(target)
        record = propose(client, me, RELEASE_HOLD, parameters, reason=reason, within=within)
    tell(record, "The hold has ended.", as_json=as_json)


def _decide(
    client: CoordinatorClient,
    me: Credentials,
    operation_id: str,
    verdict: Verdict,
    *,
    reason: str,
    yes: bool,
) -> OperationRecord:
    """Sign what the coordinator shows: the words themselves, read here, and no digest that it states."""
    from fltrust.clock import SystemClock
    from fltrust.enrollment.operation import sign_decision

    record, _ = client.get_operation(operation_id)
    operation = _read(record)
    if not yes:
        say(shown(record.payload.decode()))
        typer.confirm(f"Sign to {verdict} this {operation.kind}?", abort=True, err=True)
    signed = sign_decision(
        operation,
        verdict,
        reason=reason,
        signer=me.signer,
        chain=me.chain_der,
        operator=me.spiffe_id,
        at=SystemClock().now(),
    )
    return client.decide_operation(operation_id, signed)


def _read(record: OperationRecord) -> Operation:
    from fltrust.enrollment.operation import Operation
    from fltrust.errors import StatementRefused

    operation = Operation.from_payload(record.payload)
    if (operation.operation_id, operation.kind) != (record.operation_id, record.kind):
        raise StatementRefused(f"expected the words of {record.operation_id}, got those of another operation")
    return operation


def _tell(record: OperationRecord, *, as_json: bool) -> None:
    print_rows([_row(record)], columns=_COLUMNS, as_json=as_json, empty="")


def _row(record: OperationRecord) -> Row:
    import json

    operation = _read(record) if record.payload else None
    return {
        "id": record.operation_id,
        "kind": record.kind,
        "state": record.state.value,
        "proposer": str(record.proposer),
        "needed": record.needed,
        "reason": None if operation is None else operation.reason,
        "proposed": record.proposed_at,
        "expires": record.expires_at,
        "decided": record.decided_at,
        "result": json.loads(record.result) if record.result else None,
    }


def _decision_row(item: SignedDecision, operation: Operation, *, bundle: object) -> Row:
    from fltrust.enrollment.operation import verify_decision
    from fltrust.pki.types import TrustBundle

    if not isinstance(bundle, TrustBundle):
        raise TypeError("expected a trust bundle")
    found = verify_decision(item.signed, operation, bundle=bundle).decision
    return {
        "operator": str(found.operator),
        "verdict": found.verdict.value,
        "reason": found.reason,
        "signed_at": found.signed_at,
        "certificate": item.decision.serial.hex,
    }
