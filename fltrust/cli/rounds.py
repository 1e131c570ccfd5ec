"""`fltrust rounds`: the written record of what was admitted, and its verification."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fltrust.cli import replay
from fltrust.cli.options import AsJson, State
from fltrust.cli.output import Row, print_json, print_rows, say
from fltrust.cli.revocation import run_id_from
from fltrust.cli.session import operator_session

if TYPE_CHECKING:
    from fltrust.client.coordinator import CoordinatorClient
    from fltrust.identity import SpiffeId
    from fltrust.pki.types import TrustBundle
    from fltrust.rounds.types import RoundRecord
    from fltrust.updates import SealedRoundStatement

app = typer.Typer(help="Sealed rounds: who contributed what, by whose signature.", no_args_is_help=True)

RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="The run id, as 'flwr ls' shows it.")]

_COLUMNS = {
    "step": "STEP",
    "round": "ROUND",
    "phase": "PHASE",
    "status": "STATUS",
    "admitted": "ADMITTED",
    "refused": "REFUSED",
    "epoch": "EPOCH",
    "sealed_at": "SEALED",
}
# Without those two it fits a terminal of 80 columns.
_LIST_COLUMNS = {
    "run_id": "RUN",
    **{key: title for key, title in _COLUMNS.items() if key not in ("step", "epoch")},
}


@app.command("list")
def list_(
    run: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="Only this run.", show_default=False)
    ] = None,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Show rounds: opened, sealed, abandoned."""
    with operator_session(state) as (client, _):
        found = client.list_rounds(None if run is None else run_id_from(run))
    rows = [{**_row(r), "admitted": len(_admitted(r)), "refused": len(_refused(r))} for r in found]
    print_rows(rows, columns=_LIST_COLUMNS, as_json=as_json, empty="No rounds.")


@app.command("show")
def show(run: RunArgument, state: State = None, as_json: AsJson = False) -> None:
    """Show the record of a run: for each round who was admitted, who was refused and why."""
    with operator_session(state) as (client, _):
        found = client.list_rounds(run_id_from(run))
    rows = [{**_row(r), "admitted": _admitted(r), "refused": _refused(r)} for r in found]
    print_rows(rows, columns=_COLUMNS, as_json=as_json, empty=f"No rounds of run {run}.")


@app.command("export")
def export(
    run: RunArgument,
    to: Annotated[
        Path | None, typer.Option(help="A file; default: standard output.", show_default=False)
    ] = None,
    state: State = None,
) -> None:
    """Write the whole record of a run, with all evidence and the roots, to be verified elsewhere."""
    from fltrust.files import write_durably
    from fltrust.pki import root_fingerprint
    from fltrust.wire.record import export_record

    with operator_session(state) as (client, me):
        foreign = _foreign(client)
        data = export_record(client, me.bundle, run_id_from(run), foreign=foreign)
        roots = " ".join(
            f"--root {root_fingerprint(root)}" for known in (me.bundle, *foreign) for root in known.roots
        )
    if to is None:
        sys.stdout.buffer.write(data)
    else:
        write_durably(to, data)
        say(f"Wrote {to}. Verify it anywhere: fltrust rounds verify {run} --record {to} {roots}")


@app.command("verify")
def verify(
    run: RunArgument,
    record: Annotated[
        Path | None,
        typer.Option(help="A file from 'rounds export', instead of the coordinator.", show_default=False),
    ] = None,
    root: Annotated[
        list[str] | None,
        typer.Option(
            help="sha256:… of a root to trust; needed with --record. Repeat it where the root was changed.",
            show_default=False,
        ),
    ] = None,
    second_root: Annotated[
        list[Path] | None,
        typer.Option(
            help="Demand a second signature (ML-DSA-65) of every update, under this root; repeatable.",
            show_default=False,
        ),
    ] = None,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Check the record of a run outside Flower: every signature, certificate path and link.

    With --record it needs no network: nothing but the file and the root's fingerprint is trusted.
    Exits with 5 where anything does not hold, or what was admitted is tainted.
    """
    from fltrust.cli.exits import EXIT_CODES
    from fltrust.errors import Malformed, StatementRefused
    from fltrust.pki import root_fingerprint
    from fltrust.pki.second import read_second_ca
    from fltrust.wire.record import export_record, verify_record

    if record is not None and not root:
        raise Malformed(
            "expected --root sha256:… with --record", hint="ask the operator, or see a join token's root"
        )
    if record is None:
        with operator_session(state) as (client, me):
            foreign = _foreign(client)
            data = export_record(client, me.bundle, run_id_from(run), foreign=foreign)
        trusted = [root_fingerprint(root) for known in (me.bundle, *foreign) for root in known.roots]
    else:
        from fltrust.files import read_bounded
        from fltrust.identity import Digest
        from fltrust.wire.record import MAX_RECORD

        data, trusted = read_bounded(record, limit=MAX_RECORD), [Digest.parse(text) for text in root or ()]
    report = verify_record(
        data,
        run_id_from(run),
        roots=trusted,
        second_roots=[read_second_ca(path) for path in second_root] if second_root else None,
    )
    if as_json:
        print_json(report.as_fields())
    else:
        for line in report.lines():
            typer.echo(line)
    if not report.is_good:
        raise typer.Exit(EXIT_CODES[StatementRefused])


def _foreign(client: CoordinatorClient) -> tuple[TrustBundle, ...]:
    """The roots of every domain that was ever federated with."""
    return tuple(shown.record.bundle for shown in client.list_foreign())


replay.register(app)


def _row(record: RoundRecord) -> Row:
    sealed = _sealed(record)
    return {
        "run_id": str(int(record.key.run_id)),
        "step": record.key.step,
        "round": record.key.round,
        "phase": record.key.phase.value,
        "status": record.status.value,
        "aggregator": str(record.aggregator),
        "cohort": [str(m.participant) for m in record.cohort],
        "opened_at": record.opened_at,
        "opened_epoch": int(record.opened_epoch),
        "epoch": None if sealed is None else int(sealed.epoch),
        "index": None if sealed is None else sealed.index,
        "sealed_at": None if sealed is None else sealed.sealed_at,
    }


def _admitted(record: RoundRecord) -> list[str]:
    sealed = _sealed(record)
    return [] if sealed is None else [_short(a.participant, sealed) for a in sealed.admitted]


def _refused(record: RoundRecord) -> dict[str, str]:
    sealed = _sealed(record)
    return {} if sealed is None else {_short(who, sealed): reason for who, reason in sealed.refused}


def _short(who: SpiffeId, sealed: SealedRoundStatement) -> str:
    """The name alone; of another domain's participant the whole SPIFFE ID."""
    return str(who.name) if who.domain == sealed.domain else str(who)


def _sealed(record: RoundRecord) -> SealedRoundStatement | None:
    """What the receipt says, as told by the coordinator that we authenticated; `verify` checks it."""
    from fltrust.updates import (
        MAX_SEALED_SIGNED_BYTES,
        SealedRoundStatement,
        SignedStatement,
        unverified_statement,
    )

    if record.receipt is None:
        return None
    statement = unverified_statement(
        SignedStatement.from_bytes(record.receipt, limit=MAX_SEALED_SIGNED_BYTES)
    )
    return statement if isinstance(statement, SealedRoundStatement) else None
