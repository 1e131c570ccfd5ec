"""`fltrust requests`: who asks to be let in, and what operators decide."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from fltrust.cli.options import AsJson, State
from fltrust.cli.output import Row, print_json, print_rows, say
from fltrust.cli.session import operator_session
from fltrust.identity import Name, Role

if TYPE_CHECKING:
    from fltrust.wire.requests import RequestSummary

app = typer.Typer(help="Requests to enroll that operators decide.", no_args_is_help=True)

RequestId = Annotated[list[str], typer.Argument(metavar="ID...", help="As 'fltrust requests list' shows.")]
Reason = Annotated[str, typer.Option("--reason", help="Why, in one line; it is kept, and others read it.")]

_COLUMNS = {
    "id": "ID",
    "state": "STATE",
    "who": "WHO",
    "evidence": "EVIDENCE",
    "approvals": "APPROVALS",
    "expires": "EXPIRES",
}
_ALL = {
    **_COLUMNS,
    "protocol": "PROTOCOL",
    "key": "KEY",
    "node_key": "NODE KEY",
    "dns_names": "DNS NAMES",
    "granted_by": "GRANTED BY",
    "claims": "SAYS",
    "submitted": "SUBMITTED",
    "decisions": "DECISIONS",
}


@app.command("list")
def list_(
    everything: Annotated[
        bool, typer.Option("--all", help="Those that are decided, expired and issued, too.")
    ] = False,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Show the requests that wait for operators."""
    with operator_session(state) as (client, _):
        rows = [_row(found) for found in client.list_requests(open_only=not everything)]
    print_rows(rows, columns=_COLUMNS, as_json=as_json, empty="No requests.")


@app.command("show")
def show(
    request_id: Annotated[str, typer.Argument(metavar="ID")], state: State = None, as_json: AsJson = False
) -> None:
    """Show one request, with the key to compare with what the site says, and who decided what."""
    with operator_session(state) as (client, _):
        row = _row(client.get_request(request_id))
    if as_json:
        print_json(row)
        return
    print_rows([row], columns=_ALL, as_json=False, empty="")


@app.command("approve")
def approve(
    request_ids: RequestId,
    reason: Reason,
    name: Annotated[
        str | None,
        typer.Option(help="The name of who asks without evidence; one ID only.", show_default=False),
    ] = None,
    role: Annotated[Role, typer.Option(help="Its role.")] = Role.PARTICIPANT,
    dns: Annotated[
        list[str] | None, typer.Option(help="A DNS name of a server; may be repeated.", show_default=False)
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="It may take over a name that is enrolled or revoked.")
    ] = False,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Approve requests. Compare the key first: 'fltrust requests show ID'.

    A request without evidence is given its name here, and every further operator gives the same one.
    """
    from fltrust.enrollment.requests import Assignment
    from fltrust.errors import Malformed

    if name is not None and len(request_ids) > 1:
        raise Malformed("expected one request to give a name to, got several")
    who = None
    if name is not None:
        who = Assignment(role=role, name=Name(name), dns_names=tuple(dns or ()), replace=replace)
    with operator_session(state) as (client, _):
        rows = [_row(client.approve_request(each, reason=reason, assignment=who)) for each in request_ids]
    print_rows(rows, columns=_COLUMNS, as_json=as_json, empty="")


@app.command("deny")
def deny(request_ids: RequestId, reason: Reason, state: State = None, as_json: AsJson = False) -> None:
    """Deny requests for good. The reason is told to whoever asks."""
    with operator_session(state) as (client, _):
        rows = [_row(client.deny_request(each, reason=reason)) for each in request_ids]
    print_rows(rows, columns=_COLUMNS, as_json=as_json, empty="")


@app.command("invite")
def invite(state: State = None) -> None:
    """Print what a site needs to ask without a token: where the coordinator is, and its root. No secret."""
    from fltrust.agent.state import AgentState, find_state, passphrase_from_environment
    from fltrust.enrollment.invitation import Invitation, encode_invitation

    folder = state or find_state(Role.OPERATOR)
    opened = AgentState.open(folder, passphrase=passphrase_from_environment())
    record, root = opened.record, opened.load_bundle().roots[-1]
    typer.echo(encode_invitation(Invitation.of(record.bootstrap, record.address, root)))
    say("At the site: fltrust ask, and paste it. Then 'fltrust requests list' shows the request here.")


def _row(found: RequestSummary) -> Row:
    who = found.who
    return {
        "id": found.request_id,
        "state": found.state.value,
        "who": None if who is None else f"{who.role}/{who.name}",
        "evidence": found.evidence,
        "approvals": f"{found.count} of {found.needed}",
        "expires": found.expires_at,
        "protocol": found.protocol.value,
        "key": str(found.key_id),
        "node_key": None if found.node_key_id is None else str(found.node_key_id),
        "dns_names": [] if who is None else list(who.dns_names),
        "replace": who is not None and who.replace,
        "granted_by": None if found.granted_by is None else str(found.granted_by),
        "claims": found.claims,
        "submitted": found.submitted_at,
        "decisions": [
            {
                "operator": str(decision.operator),
                "approves": "yes" if decision.is_approval else "no",
                "reason": decision.reason,
                "at": decision.at,
            }
            for decision in found.decisions
        ],
    }
