"""`fltrust blast-radius`: everything that holds a participant's updates from a time on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from fltrust.cli.options import AsJson, State
from fltrust.cli.output import Row, print_json, print_rows, say, text_of
from fltrust.cli.session import identity_from, operator_session

if TYPE_CHECKING:
    from fltrust.artifacts.ports import BlastRadius


def register(app: typer.Typer) -> None:
    app.command("blast-radius")(blast_radius)


def blast_radius(
    name: Annotated[str, typer.Argument(help="site-a, or a participant's SPIFFE ID.", show_default=False)],
    since: Annotated[
        str, typer.Option(help="From when: a time (UTC), or a duration ago such as 2h.", show_default=False)
    ],
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Show every round, aggregate and released model that holds a participant's updates from a time on.

    Across runs, and also what only descends from such an aggregate. Nothing is changed: to taint it,
    revoke with --compromised-since.
    """
    from fltrust.cli.times import parse_time
    from fltrust.clock import SystemClock

    at = parse_time(since, now=SystemClock().now())
    with operator_session(state) as (client, me):
        found = client.blast_radius(identity_from(name, domain=me.spiffe_id.domain), at)
    if as_json:
        print_json(fields_of(found))
        return
    tell(found)


def fields_of(found: BlastRadius) -> Row:
    """A blast radius as JSON has it."""
    return {
        "participant": str(found.participant),
        "since": found.since,
        "rounds": [
            {
                "run_id": str(int(item.run_id)),
                "step": item.step,
                "round": item.round,
                "signed_at": item.signed_at,
                "log_index": item.log_index,
            }
            for item in found.rounds
        ],
        "aggregates": [
            {
                "run_id": str(int(item.run_id)),
                "step": item.step,
                "round": item.round,
                "is_direct": item.is_direct,
                "tensors": str(item.tensors),
                "log_index": item.log_index,
            }
            for item in found.aggregates
        ],
        "models": [
            {
                "name": item.name,
                "is_direct": item.is_direct,
                "subject": str(item.subject),
                "log_index": item.log_index,
            }
            for item in found.models
        ],
    }


def tell(found: BlastRadius) -> None:
    """Print a blast radius for a person."""
    who = text_of(str(found.participant))
    if not found.rounds and not found.aggregates and not found.models:
        say(f"Nothing holds updates of {who} since {text_of(found.since)}.")
        return
    fields = fields_of(found)
    for what, columns in _TABLES.items():
        rows = fields[what]
        if not isinstance(rows, list) or not rows:
            continue
        say(f"{len(rows)} {what if len(rows) > 1 else what[:-1]}:")
        print_rows([_row(row) for row in rows], columns=columns, as_json=False, empty="")


_STEP = {"run_id": "RUN", "step": "STEP", "round": "ROUND"}
_TABLES = {
    "rounds": {
        "run_id": "RUN",
        "step": "STEP",
        "round": "ROUND",
        "signed_at": "SIGNED",
        "log_index": "ENTRY",
    },
    "aggregates": {
        "run_id": "RUN",
        "step": "STEP",
        "round": "ROUND",
        "how": "HOLDS THEM",
        "tensors": "TENSORS",
    },
    "models": {"name": "MODEL", "how": "HOLDS THEM", "subject": "SUBJECT", "log_index": "ENTRY"},
}


def _row(row: Row) -> Row:
    return {**row, "how": "itself" if row.get("is_direct") else "by descent"}
