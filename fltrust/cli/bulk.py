"""`fltrust bulk`: many at once, from CSV or JSON lines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from fltrust.cli.options import AsJson, State
from fltrust.cli.output import print_json, say
from fltrust.cli.propose import Reason, Within
from fltrust.cli.session import operator_session
from fltrust.identity import Role
from fltrust.revocation.events import RevocationReason

if TYPE_CHECKING:
    from cryptography import x509

    from fltrust.cli.bulk_lines import Line
    from fltrust.enrollment.bulk import BulkAnswer

app = typer.Typer(help="Enroll, renew and revoke many at once, from CSV or JSON lines.", no_args_is_help=True)

Source = Annotated[
    Path, typer.Argument(help="CSV with a line of headings, or JSON lines (.jsonl): see the how-to.")
]
Results = Annotated[
    Path,
    typer.Option(
        "--results",
        help="Where the results go, as JSON lines; what stands there already is not done again.",
    ),
]
Atomic = Annotated[
    bool, typer.Option("--atomic", help="All or none; at most 500. Without it, each on its own.")
]

_T = TypeVar("_T")


@app.command("enroll")
def enroll(
    source: Source, results: Results, atomic: Atomic = False, state: State = None, as_json: AsJson = False
) -> None:
    """Enroll everybody in SOURCE (role, name, csr; node_key and proof of participants; dns_names, replace).

    Run it again after an interruption, with the same files: it goes on where it was, and asks once more
    about requests that other operators had yet to approve.
    """
    from fltrust.cli.bulk_lines import read_lines, to_item

    lines = read_lines(source)
    with operator_session(state) as (client, _):
        _run(
            lines,
            results,
            atomic=atomic,
            as_json=as_json,
            act=lambda part: client.enroll_bulk([to_item(line) for line in part], atomic=atomic),
        )


@app.command("renew")
def renew(
    source: Source, results: Results, atomic: Atomic = False, state: State = None, as_json: AsJson = False
) -> None:
    """Carry renewals that their holders signed (role, name, csr, proof), e.g. over an air gap."""
    from fltrust.cli.bulk_lines import read_lines, to_item

    lines = read_lines(source)
    with operator_session(state) as (client, _):
        _run(
            lines,
            results,
            atomic=atomic,
            as_json=as_json,
            act=lambda part: client.renew_bulk([to_item(line) for line in part], atomic=atomic),
        )


@app.command("tokens")
def tokens(
    source: Source,
    target: Annotated[Path, typer.Option("--to", help="A new file (0600) for the tokens, as JSON lines.")],
    ttl: Annotated[str, typer.Option(help="How long the tokens can be used.")] = "1d",
    state: State = None,
) -> None:
    """Make a join token for everybody in SOURCE (role, name, dns_names, replace)."""
    import json

    from fltrust.cli.bulk_lines import append_lines, read_lines, to_assignment
    from fltrust.cli.times import parse_duration
    from fltrust.enrollment.bulk import MAX_ITEMS
    from fltrust.enrollment.token import encode_token
    from fltrust.errors import Conflict

    if target.exists():
        raise Conflict(f"expected a new file for the tokens, {target} is there")
    wanted = [to_assignment(line) for line in read_lines(source)]
    with operator_session(state) as (client, _), _progress(len(wanted)) as show:
        for start in range(0, len(wanted), MAX_ITEMS):
            part = wanted[start : start + MAX_ITEMS]
            made = client.create_tokens(part, ttl=parse_duration(ttl))
            append_lines(
                target,
                [
                    json.dumps({"name": f"{who.role}/{who.name}", "token": encode_token(token)})
                    for who, token in zip(part, made, strict=True)
                ],
            )
            show(start + len(part))
    say(f"{len(wanted)} tokens in {target}. Each is a secret: hand it to its site over a private channel.")


@app.command("revoke")
def revoke(
    source: Source,
    reason: Reason,
    why: Annotated[
        RevocationReason, typer.Option("--why", help="The reason in the certificates' status (RFC 5280).")
    ] = RevocationReason.UNSPECIFIED,
    compromised_since: Annotated[
        str | None, typer.Option(help="When it began: a time, or a duration ago.", show_default=False)
    ] = None,
    itemised: Annotated[
        bool, typer.Option("--itemised", help="Those that can be, each on its own; without it, all or none.")
    ] = False,
    within: Within = "1d",
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Revoke everybody in SOURCE (role, name): one signed operation, for at most 1,000.

    Other operators approve it, where the coordinator asks for them.
    """
    from fltrust.cli.bulk_lines import read_lines, to_assignment
    from fltrust.cli.propose import propose, tell
    from fltrust.cli.times import parse_time
    from fltrust.clock import SystemClock
    from fltrust.enrollment.operation_kinds import BULK_REVOKE, BulkRevocation

    wanted = [to_assignment(line) for line in read_lines(source)]
    since = None if compromised_since is None else parse_time(compromised_since, now=SystemClock().now())
    parameters = BulkRevocation(
        names=tuple((who.role, who.name) for who in wanted),
        reason=why,
        compromised_since=since,
        atomic=not itemised,
    ).to_parameters()
    with operator_session(state) as (client, me):
        record = propose(client, me, BULK_REVOKE, parameters, reason=reason, within=within)
    tell(record, _revoked(record.result), as_json=as_json)


@app.command("renewal")
def renewal(
    folder: Annotated[Path, typer.Option(help="A new folder for the next key; it stays there.")],
    state: State = None,
) -> None:
    """At a site: make the next key of an identity and print one line for an operator's file."""
    import json

    from fltrust.agent.carried import make_renewal
    from fltrust.agent.state import AgentState, find_state, passphrase_from_environment

    passphrase = passphrase_from_environment()
    opened = AgentState.open(state or find_state(Role.PARTICIPANT), passphrase=passphrase)
    typer.echo(json.dumps(make_renewal(opened, folder, passphrase=passphrase)))
    say(f"The key is in {folder}. Send the line to the operator; it holds no secret.")


@app.command("request")
def request(
    name: Annotated[str, typer.Argument(help="The name that the operator expects.")],
    folder: Annotated[Path, typer.Option(help="A new folder for the keys; they stay there.")],
    role: Annotated[Role, typer.Option(help="What it will be.")] = Role.PARTICIPANT,
) -> None:
    """At a site: make keys and print one line for an operator's file."""
    import json

    from fltrust.agent.carried import make_request
    from fltrust.agent.state import passphrase_from_environment

    line = make_request(folder, role=role, name=name, passphrase=passphrase_from_environment())
    typer.echo(json.dumps(line))
    say(f"The keys are in {folder}. Send the line to the operator; it holds no secret.")


@app.command("install")
def install(
    folder: Annotated[Path, typer.Argument(help="Where 'bulk request' or 'bulk renewal' put the keys.")],
    results: Annotated[Path, typer.Argument(help="What the operator sent back.")],
    invitation: Annotated[
        str | None,
        typer.Option(
            help="What 'fltrust requests invite' printed: where the coordinator is, and its root.",
            show_default=False,
        ),
    ] = None,
    state: State = None,
) -> None:
    """At a site: put the certificate that came back in its place. Without --invitation it is a renewal."""
    from fltrust.agent.carried import install_renewal, read_request
    from fltrust.agent.join import install as install_state
    from fltrust.agent.state import AgentState, find_state, passphrase_from_environment
    from fltrust.cli.bulk_lines import issued_for
    from fltrust.clock import SystemClock
    from fltrust.enrollment.invitation import decode_invitation
    from fltrust.enrollment.types import Issued
    from fltrust.pki.bundle import make_bundle
    from fltrust.pki.leaf import read_leaf

    passphrase = passphrase_from_environment()
    chain = issued_for(results, read_request(folder)["csr"])
    if invitation is None:
        opened = AgentState.open(state or find_state(Role.PARTICIPANT), passphrase=passphrase)
        found = install_renewal(opened, folder, chain, passphrase=passphrase, clock=SystemClock())
    else:
        token = decode_invitation(invitation).as_token()
        who = read_leaf(_certificate(chain[0])).spiffe_id
        bundle = make_bundle(who.domain, [_certificate(token.root_der)])
        found = install_state(folder, token, Issued(who, chain, bundle), state, passphrase=passphrase)
    say(f"Installed as {found.spiffe_id}. Remove {folder}: its key is in {found.folder}.")


def _certificate(der: bytes) -> x509.Certificate:
    from cryptography import x509

    from fltrust.errors import Malformed

    try:
        return x509.load_der_x509_certificate(der)
    except ValueError:
        raise Malformed("expected a certificate in DER, got something else") from None


def _revoked(result: bytes | None) -> str:
    import json

    found = json.loads(result) if result else {}
    failed = found.get("failed", [])
    text = f"{found.get('revoked', 0)} revoked."
    return text + "".join(f"\n  not {item['name']}: {item['reason']}" for item in failed)


def _run(
    lines: list[Line],
    results: Path,
    *,
    atomic: bool,
    as_json: bool,
    act: Callable[[list[Line]], BulkAnswer],
) -> None:
    """Send what has no result yet, part by part; each part's results are on the disk before the next."""
    from fltrust.cli.bulk_lines import Summary, append_results, done_in
    from fltrust.enrollment.bulk import MAX_ITEMS
    from fltrust.errors import LimitExceeded

    if atomic and len(lines) > MAX_ITEMS:
        raise LimitExceeded(f"expected at most {MAX_ITEMS} lines with --atomic, got {len(lines)}")
    done = done_in(results)
    left = [line for line in lines if line.key not in done]
    summary = Summary(before=len(lines) - len(left))
    with _progress(len(left)) as show:
        for start in range(0, len(left), MAX_ITEMS):
            part = left[start : start + MAX_ITEMS]
            answer = act(part)
            append_results(results, part, answer)
            summary.count(answer)
            show(start + len(part))
    if as_json:
        print_json(summary.to_json())
        return
    say(summary.words(results))
    if summary.refused or summary.waiting:
        raise typer.Exit(3)


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    """On standard error, where a person is looking."""
    import sys

    if not sys.stderr.isatty():
        yield lambda _done: None
        return

    def show(done: int) -> None:
        sys.stderr.write(f"\r{done:,} of {total:,}")
        sys.stderr.flush()

    yield show
    sys.stderr.write("\n")
