"""`fltrust revoke`, `hold`, `release` and `events`: who is out, from when, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from fltrust.cli.options import AsJson, State
from fltrust.cli.output import Row, print_json, print_rows, say, text_of
from fltrust.cli.session import identity_from, operator_session
from fltrust.errors import Malformed
from fltrust.identity import RunId
from fltrust.revocation.events import EventKind, RevocationReason, TrustEvent

if TYPE_CHECKING:
    from fltrust.artifacts.ports import BlastRadius
    from fltrust.client import CoordinatorClient
    from fltrust.identity import TrustDomain
    from fltrust.revocation.ports import RevocationTarget

NameArgument = Annotated[
    str | None, typer.Argument(help="site-a, aggregator/main, or a SPIFFE ID.", show_default=False)
]
Serial = Annotated[
    str | None, typer.Option(help="One certificate, by its serial in hex.", show_default=False)
]
Key = Annotated[
    str | None, typer.Option(help="A key, by the SHA-256 of its SubjectPublicKeyInfo.", show_default=False)
]
Run = Annotated[str | None, typer.Option(help="Every participant of a run.", show_default=False)]
Reason = Annotated[RevocationReason, typer.Option(help="Why (RFC 5280, 5.3.1).")]

_COLUMNS = {
    "epoch": "EPOCH",
    "kind": "EVENT",
    "subject": "WHO",
    "reason": "REASON",
    "at": "AT",
    "actor": "BY",
}


def register(app: typer.Typer) -> None:
    for command in (revoke, hold, release, events):
        app.command()(command)


def revoke(
    name: NameArgument = None,
    reason: Reason = RevocationReason.UNSPECIFIED,
    compromised_since: Annotated[
        str | None,
        typer.Option(help="When it began: a time (UTC), or a duration ago such as 2h.", show_default=False),
    ] = None,
    serial: Serial = None,
    key: Key = None,
    run: Run = None,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Revoke a participant, certificate, key, or everybody in a run: now, everywhere, also mid-round.

    Returns when the revocation is durable. With --compromised-since, every aggregate and model that
    holds the participant's updates from then on counts as tainted at once. To let a revoked participant
    back in, create a join token for it with --replace.
    """
    from fltrust.cli.times import parse_time
    from fltrust.clock import SystemClock

    since = None if compromised_since is None else parse_time(compromised_since, now=SystemClock().now())
    with operator_session(state) as (client, me):
        target = _target(name, serial, key, run, domain=me.spiffe_id.domain)
        found = client.revoke(target, reason=reason, compromised_since=since)
        tainted = {} if since is None else _tainted(client, found)
    if as_json:
        print_json([{**_row(e), **_taint_fields(tainted, e)} for e in found])
        return
    _print(found, as_json=False)
    for radius in tainted.values():
        _tell_tainted(radius)


def hold(
    name: NameArgument = None,
    reason: Reason = RevocationReason.UNSPECIFIED,
    serial: Serial = None,
    key: Key = None,
    run: Run = None,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Put on hold: refused like a revocation, until released."""
    with operator_session(state) as (client, me):
        target = _target(name, serial, key, run, domain=me.spiffe_id.domain)
        found = client.hold(target, reason=reason)
    _print(found, as_json=as_json)


def release(
    name: NameArgument = None,
    serial: Serial = None,
    key: Key = None,
    run: Run = None,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """End a hold. What was revoked stays revoked."""
    with operator_session(state) as (client, me):
        found = client.release(_target(name, serial, key, run, domain=me.spiffe_id.domain))
    _print(found, as_json=as_json)


def events(
    after: Annotated[int, typer.Option(min=0, help="Show what came after this epoch.")] = 0,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on as they happen, until Ctrl-C.")
    ] = False,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Show the trust feed: every enrollment, revocation, hold and run, by epoch.

    With --json, one object a line.
    """
    from fltrust.identity import Epoch

    with operator_session(state) as (client, _):
        for item in client.watch(Epoch(after)):
            if isinstance(item, TrustEvent):
                _print_event(item, as_json=as_json)
            elif not follow:
                break


def _tainted(client: CoordinatorClient, found: tuple[TrustEvent, ...]) -> dict[int, BlastRadius]:
    """What a revocation of whole participants took back, by its epoch."""
    from fltrust.identity import Role

    return {
        int(event.epoch): client.blast_radius(event.subject, event.compromised_since)
        for event in found
        if event.subject is not None
        and event.subject.role is Role.PARTICIPANT
        and event.identity_wide
        and event.compromised_since is not None
    }


def _taint_fields(tainted: dict[int, BlastRadius], event: TrustEvent) -> Row:
    from fltrust.cli.blast import fields_of

    radius = tainted.get(int(event.epoch))
    return {} if radius is None else {"tainted": fields_of(radius)}


def _tell_tainted(radius: BlastRadius) -> None:
    from fltrust.cli.blast import tell

    who = text_of(str(radius.participant))
    if radius.aggregates or radius.models:
        say(f"Tainted by updates of {who} since {text_of(radius.since)}:")
    tell(radius)


def _target(
    name: str | None, serial: str | None, key: str | None, run: str | None, *, domain: TrustDomain
) -> RevocationTarget:
    from fltrust import identity
    from fltrust.revocation.ports import RevocationTarget

    if sum(x is not None for x in (name, serial, key, run)) != 1:
        raise Malformed(
            "expected exactly one of NAME, --serial, --key and --run",
            hint="for example: fltrust revoke site-a",
        )
    if name is not None:
        who = identity_from(name, domain=domain)
        if who.name is None:
            raise Malformed("the coordinator's own identity cannot be revoked here")
        if who.domain != domain:
            return RevocationTarget(foreign=who)
        return RevocationTarget(name=(who.role, who.name))
    if serial is not None:
        return RevocationTarget(serial=identity.Serial.parse(serial))
    if key is not None:
        return RevocationTarget(key=identity.KeyId(key.lower().removeprefix("sha256:")))
    return RevocationTarget(run=run_id_from(str(run)))


def run_id_from(text: str) -> RunId:
    """Read a run id as Flower prints it, in decimal."""
    if not text.isascii() or not text.isdigit():
        raise Malformed(f"expected a run id in decimal, as 'flwr ls' shows it, got {text[:40]!r}")
    return RunId(int(text))


def _print(found: tuple[TrustEvent, ...], *, as_json: bool) -> None:
    print_rows([_row(e) for e in found], columns=_COLUMNS, as_json=as_json, empty="Nothing to change.")


def _print_event(event: TrustEvent, *, as_json: bool) -> None:
    row = _row(event)
    if as_json:
        print_json(row, lines=True)
        return
    what = f"run {event.run_id}" if event.run_id is not None else text_of(row["subject"])
    if event.domain is not None:
        what = f"CA of {event.domain}" + (f" {event.issuer}" if event.issuer else "")
    reason = (
        f"  ({event.reason})" if event.reason and event.kind in (EventKind.REVOKED, EventKind.HELD) else ""
    )
    typer.echo(
        f"{event.epoch:>6}  {event.at.astimezone():%Y-%m-%d %H:%M:%S}  {event.kind:<11} {what}{reason}"
    )


def _row(event: TrustEvent) -> Row:
    return {
        "epoch": int(event.epoch),
        "kind": event.kind.value,
        "at": event.at,
        "subject": None if event.subject is None else str(event.subject),
        "actor": None if event.actor is None else str(event.actor),
        "identity_wide": event.identity_wide,
        "serials": [s.hex for s in event.serials],
        "keys": [str(k) for k in event.keys],
        "run_id": None if event.run_id is None else str(int(event.run_id)),
        "reason": None if event.reason is None else event.reason.value,
        "compromised_since": event.compromised_since,
        "domain": event.domain,
        "sequence": event.sequence,
        "issuer": event.issuer,
    }
