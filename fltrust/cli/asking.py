"""`fltrust ask` and `fltrust collect`: join where operators decide."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from fltrust.cli.options import AsJson, State
from fltrust.cli.output import print_json, say
from fltrust.errors import ApprovalPending

Wait = Annotated[
    str | None,
    typer.Option(metavar="DURATION", help="Wait so long for operators, e.g. 1h.", show_default=False),
]


def register(app: typer.Typer) -> None:
    app.command()(ask)
    app.command()(collect)


def ask(
    invitation: Annotated[str, typer.Argument(help="What 'fltrust requests invite' printed.")],
    note: Annotated[
        str, typer.Option(help="What the operators read beside the request: who you are, whom to ring.")
    ] = "",
    no_node_key: Annotated[
        bool, typer.Option("--no-node-key", help="You will be no participant: send no Flower node key.")
    ] = False,
    wait: Wait = None,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Ask to join without a token: operators decide your name, by what they know of your key.

    Prints the SHA-256 of the key. Tell it to the operator over a channel that they know is you.
    """
    from fltrust.agent.join import join
    from fltrust.agent.pending import folder_of, open_pending
    from fltrust.agent.state import passphrase_from_environment
    from fltrust.enrollment.invitation import decode_invitation
    from fltrust.enrollment.types import ManualEvidence

    where, passphrase = decode_invitation(invitation), passphrase_from_environment()
    evidence = ManualEvidence(note)
    try:
        join(
            where.as_token(),
            state,
            passphrase=passphrase,
            prove=lambda _csr, _domain: evidence,
            has_node_key=not no_node_key,
        )
    except ApprovalPending as pending:
        folder = folder_of(pending.request_id)
        waiting = open_pending(folder, passphrase=passphrase)
        if as_json:
            print_json({"request": waiting.request_id, "key": waiting.signer.key_id, "folder": str(folder)})
        say(f"Asked. Tell the operator this key: {waiting.signer.key_id}")
        say(f"The request: {waiting.request_id}. Its keys are in {folder}.")
        if wait is None:
            say("When it was approved: fltrust collect")
            return
        _collect(folder, wait=wait, state=state, as_json=as_json)


def collect(
    folder: Annotated[
        Path | None,
        typer.Argument(help="Where the request's keys are. Default: the only one under FLTRUST_HOME."),
    ] = None,
    wait: Wait = None,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Get the certificate of a request that operators have approved: 'fltrust ask', or a join that waits."""
    from fltrust.agent.pending import the_pending

    _collect(folder or the_pending(), wait=wait, state=state, as_json=as_json)


def _collect(folder: Path, *, wait: str | None, state: Path | None, as_json: bool) -> None:
    from fltrust.agent.join import collect as collect_request
    from fltrust.agent.state import passphrase_from_environment
    from fltrust.cli.times import parse_duration

    until = time.monotonic() + (0 if wait is None else parse_duration(wait).total_seconds())
    while True:
        try:
            joined = collect_request(folder, state, passphrase=passphrase_from_environment())
        except ApprovalPending as pending:
            left = until - time.monotonic()
            if left <= 0:
                raise
            time.sleep(min(pending.retry_after, left))
            continue
        break
    if as_json:
        print_json({"identity": str(joined.spiffe_id), "folder": str(joined.folder)})
    say(f"Joined as {joined.spiffe_id}.")
