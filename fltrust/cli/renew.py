"""`fltrust renew`: the next certificate now, with the agent running or not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from fltrust.cli.options import State
from fltrust.cli.output import say
from fltrust.errors import Conflict, Unavailable

if TYPE_CHECKING:
    from pathlib import Path

    from fltrust.agent.state import AgentState
    from fltrust.identity import Serial

_POLL = 0.2


def register(app: typer.Typer) -> None:
    app.command()(renew)


def renew(
    state: State = None,
    keep_key: Annotated[
        bool, typer.Option("--keep-key", help="For the key that there is, in place of a new one.")
    ] = False,
    wait: Annotated[str, typer.Option(help="How long to wait for an agent that runs.")] = "30s",
) -> None:
    """Get the next certificate of an identity now; the old one stays good until it ends.

    Where its agent runs, the agent is asked to. A certificate that ran out not long ago is replaced as well.
    """
    from fltrust.agent.state import AgentState, find_state, passphrase_from_environment

    opened = AgentState.open(state or find_state(None), passphrase=passphrase_from_environment())
    before = _serial(opened.folder)
    try:
        lock = opened.lock()
    except Conflict:
        if keep_key:
            raise Conflict(
                "expected no agent to run on this state", hint="stop it first: it makes a key of its own"
            ) from None
        _ask(opened.folder, before, wait)
    else:
        try:
            _renew(opened, keep_key=keep_key)
        finally:
            lock.release()
    say(f"{opened.spiffe_id} has the certificate {_serial(opened.folder).hex}.")


def _renew(opened: AgentState, *, keep_key: bool) -> None:
    import random

    from fltrust.agent.renewal import Renewer
    from fltrust.agent.revive import load_or_revive
    from fltrust.client import CoordinatorClient
    from fltrust.clock import SystemClock

    before, clock = _serial(opened.folder), SystemClock()
    store = load_or_revive(opened, clock=clock)
    if _serial(opened.folder) != before:
        return  # it had run out, and was replaced already
    with CoordinatorClient(opened.record.address, lambda: store.current, opened.spiffe_id.domain) as client:
        Renewer(store, client, clock=clock, rng=random.SystemRandom(), keeps_key=keep_key).renew()
    store.save()


def _ask(folder: Path, before: Serial, wait: str) -> None:
    import time

    from fltrust.agent.renew_request import request_renewal
    from fltrust.cli.times import parse_duration

    request_renewal(folder)
    end = time.monotonic() + parse_duration(wait).total_seconds()
    while _serial(folder) == before:
        if time.monotonic() > end:
            raise Unavailable(
                f"expected the agent on {folder} to renew within {wait}, it has not so far",
                hint="its log says why",
            )
        time.sleep(_POLL)


def _serial(folder: Path) -> Serial:
    from fltrust.agent.state import AgentState
    from fltrust.identity import Serial

    return Serial(AgentState.open(folder).load_chain()[0].serial_number)
