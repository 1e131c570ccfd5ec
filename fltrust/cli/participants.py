"""`fltrust participants`: who is enrolled, and how they stand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from fltrust.cli.options import AsJson, State
from fltrust.cli.output import Row, print_rows
from fltrust.cli.session import identity_from, operator_session
from fltrust.identity import Role

if TYPE_CHECKING:
    from datetime import datetime

    from fltrust.enrollment.inventory import InventoryEntry
    from fltrust.enrollment.types import Enrollment

app = typer.Typer(help="Who is enrolled, how they stand, and until when.", no_args_is_help=True)

_COLUMNS = {
    "spiffe_id": "IDENTITY",
    "standing": "STANDING",
    "since_epoch": "SINCE EPOCH",
    "certificate_serial": "CERTIFICATE",
    "certificate_not_after": "VALID UNTIL",
}


_INVENTORY = {
    "spiffe_id": "IDENTITY",
    "standing": "STANDING",
    "evidence": "EVIDENCE",
    "certificate_not_after": "VALID UNTIL",
    "last_seen": "LAST SEEN",
    "last_round": "LAST ROUND",
}


@app.command("list")
def list_(
    role: Annotated[Role | None, typer.Option(help="Only these.", show_default=False)] = None,
    standing: Annotated[
        str | None, typer.Option(help="Only those who are active, held or revoked.", show_default=False)
    ] = None,
    evidence: Annotated[
        str | None,
        typer.Option(help="Only those enrolled by this, e.g. join-token or bulk.", show_default=False),
    ] = None,
    prefix: Annotated[
        str, typer.Option(help="Only those whose name begins with it.", show_default=False)
    ] = "",
    expires_within: Annotated[
        str | None,
        typer.Option(help="Only those whose certificate runs out within it, or has.", show_default=False),
    ] = None,
    unseen_for: Annotated[
        str | None, typer.Option(help="Only those who did not call for so long.", show_default=False)
    ] = None,
    no_round_for: Annotated[
        str | None, typer.Option(help="Only those without a sealed round for so long.", show_default=False)
    ] = None,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Show every enrolled identity, with its certificate, when it was seen, and its last sealed round."""
    from fltrust.cli.times import parse_duration
    from fltrust.clock import SystemClock
    from fltrust.enrollment.inventory import InventoryFilter

    now = SystemClock().now()

    def ago(text: str | None) -> datetime | None:
        return None if text is None else now - parse_duration(text)

    wanted = InventoryFilter(
        role=role,
        standing=standing,
        evidence=evidence,
        prefix=prefix,
        expires_by=None if expires_within is None else now + parse_duration(expires_within),
        unseen_since=ago(unseen_for),
        no_round_since=ago(no_round_for),
    )
    with operator_session(state) as (client, _):
        rows = [_inventory_row(entry) for entry in client.find_participants(wanted)]
    print_rows(rows, columns=_INVENTORY, as_json=as_json, empty="Nobody.")


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


def _inventory_row(entry: InventoryEntry) -> Row:
    mark = entry.last_round
    return {
        **_row(entry.enrollment),
        "last_seen": entry.last_seen,
        "last_round": None
        if mark is None
        else {"run": str(int(mark.run_id)), "step": mark.step, "at": mark.at},
        "claims": dict(entry.claims),
        "live_certificates": entry.live_certificates,
    }


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
        "dns_names": list(enrollment.dns_names),
        "node_key": None if node_key is None else str(KeyId.of_spki(node_key)),
    }
