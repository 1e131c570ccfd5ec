"""`fltrust audit`: the log read back by participant, run and time, every entry proven here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fltrust.cli.options import AsJson, State
from fltrust.cli.output import Row, print_json, say, text_of
from fltrust.cli.session import identity_from, operator_session
from fltrust.strictbase64 import to_base64

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from fltrust.client import CoordinatorClient
    from fltrust.identity import TrustDomain
    from fltrust.tlog.checkpoint import CheckpointPolicy
    from fltrust.wire.artifacts import AuditQuery


def register(app: typer.Typer) -> None:
    app.command()(audit)


def audit(
    participant: Annotated[
        str | None,
        typer.Option(help="About site-a, aggregator/main, or a SPIFFE ID.", show_default=False),
    ] = None,
    run: Annotated[str | None, typer.Option(help="About this run.", show_default=False)] = None,
    since: Annotated[
        str | None,
        typer.Option(help="From this time on (UTC), or a duration ago such as 2h.", show_default=False),
    ] = None,
    until: Annotated[str | None, typer.Option(help="Before this time.", show_default=False)] = None,
    trust: Annotated[
        Path | None,
        typer.Option(
            help="Trust file with the log's key. Default: the coordinator's own.", show_default=False
        ),
    ] = None,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Read the log back: certificates, trust events, refused enrollments, rounds, statements, taints.

    Every entry is proven to stand in the log before it is shown. With --json, one object a line, with
    its leaf hash, inclusion proof and checkpoint.
    """
    count = 0
    with operator_session(state) as (client, me):
        query = _query(participant, run, since, until, domain=me.spiffe_id.domain)
        policy = _policy(client, trust)
        for row in _rows(client, query, policy):
            count += 1
            if as_json:
                print_json(row, lines=True)
            else:
                _print(row)
    if not as_json:
        say(f"{count} entries, each proven in the log {policy.origin}." if count else "No such entry.")


def _query(
    participant: str | None, run: str | None, since: str | None, until: str | None, *, domain: TrustDomain
) -> AuditQuery:
    from fltrust.cli.revocation import run_id_from
    from fltrust.cli.times import parse_time
    from fltrust.clock import SystemClock
    from fltrust.wire.artifacts import AuditQuery

    now = SystemClock().now()

    def time_of(text: str | None) -> datetime | None:
        return None if text is None else parse_time(text, now=now)

    return AuditQuery(
        participant=None if participant is None else identity_from(participant, domain=domain),
        run_id=None if run is None else run_id_from(run),
        since=time_of(since),
        until=time_of(until),
    )


def _policy(client: CoordinatorClient, trust: Path | None) -> CheckpointPolicy:
    """The log's key: of a file that the auditor keeps, or what the coordinator says over mTLS."""
    from fltrust.artifacts.logkeys import log_keys_of
    from fltrust.artifacts.trustfile import TrustFile
    from fltrust.tlog.checkpoint import CheckpointPolicy

    file = TrustFile.parse(client.trust_file()) if trust is None else TrustFile.read(trust)
    return CheckpointPolicy(log_keys_of(file))


def _rows(client: CoordinatorClient, query: AuditQuery, policy: CheckpointPolicy) -> Iterator[Row]:
    from fltrust.tlog.audited import words_of
    from fltrust.wire.audit import AuditLine

    for data in client.audit(query):
        line = AuditLine.parse(data)
        entry, checkpoint = line.verify(policy)
        words = words_of(entry)
        yield {
            "time": line.at,
            "index": line.index,
            "kind": line.kind,
            "actor": words.actor,
            "subject": _real_name(words.subject, line.subjects),
            "detail": words.detail,
            "names": list(line.subjects),
            "leaf": line.leaf_hash.hex(),
            "proof": [to_base64(item) for item in line.proof],
            "tree_size": checkpoint.head.size,
            "checkpoint": line.checkpoint.decode(),
        }


def _real_name(subject: str | None, names: tuple[str, ...]) -> str | None:
    """Who stands behind a pseudonym, by the coordinator's index: operators may know."""
    if subject is None or not subject.startswith("pseudonym:"):
        return subject
    return next((name for name in names if "/participant/" in name), subject)


def _print(row: Row) -> None:
    from datetime import datetime

    at, detail = row["time"], row["detail"]
    when = at.astimezone().strftime("%Y-%m-%d %H:%M:%S") if isinstance(at, datetime) else ""
    by = "" if row["actor"] is None else f"  by {text_of(row['actor'])}"
    words = "" if not detail else f"  ({text_of(detail)})"
    typer.echo(f"{row['index']:>7}  {when}  {row['kind']:<18} {text_of(row['subject'])}{by}{words}")
