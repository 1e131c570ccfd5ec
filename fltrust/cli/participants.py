"""`fltrust participants`: who is enrolled, and how they stand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from fltrust.cli.options import AsJson, State
from fltrust.cli.output import Row, print_rows
from fltrust.cli.session import identity_from, operator_session

if TYPE_CHECKING:
    from fltrust.enrollment.types import Enrollment

app = typer.Typer(help="Who is enrolled, how they stand, and until when.", no_args_is_help=True)

_COLUMNS = {
    "spiffe_id": "IDENTITY",
    "standing": "STANDING",
    "since_epoch": "SINCE EPOCH",
    "certificate_serial": "CERTIFICATE",
    "certificate_not_after": "VALID UNTIL",
}


@app.command("list")
def list_(state: State = None, as_json: AsJson = False) -> None:
    """Show every enrolled identity: participants, aggregators, signers and operators."""
    with operator_session(state) as (client, _):
        rows = [_row(e) for e in client.list_enrollments()]
    print_rows(rows, columns=_COLUMNS, as_json=as_json, empty="Nobody is enrolled.")


@app.command("show")
def show(
    name: Annotated[str, typer.Argument(help="site-a, aggregator/main, or a SPIFFE ID.")],
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Show one enrolled identity."""
    with operator_session(state) as (client, me):
        rows = [_row(client.get_enrollment(identity_from(name, domain=me.spiffe_id.domain)))]
    columns = {**_COLUMNS, "enrolled_at": "ENROLLED", "enrolled_by": "BY", "evidence": "EVIDENCE"}
    print_rows(rows, columns=columns, as_json=as_json, empty="")


def _row(enrollment: Enrollment) -> Row:
    from fltrust.identity import KeyId

    node_key = enrollment.node_key
    return {
        "spiffe_id": str(enrollment.spiffe_id),
        "standing": enrollment.standing,
        "since_epoch": enrollment.since_epoch,
        "certificate_serial": enrollment.certificate_serial,
        "certificate_not_after": enrollment.certificate_not_after,
        "enrolled_at": enrollment.enrolled_at,
        "enrolled_by": None if enrollment.enrolled_by is None else str(enrollment.enrolled_by),
        "evidence": enrollment.evidence,
        "node_key": None if node_key is None else str(KeyId.of_spki(node_key)),
    }
