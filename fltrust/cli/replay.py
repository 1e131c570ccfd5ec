"""`fltrust rounds recovery-key` and `rounds replay`: what retained updates are for."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fltrust.cli.options import AsJson, State
from fltrust.cli.output import print_json, say
from fltrust.cli.revocation import run_id_from
from fltrust.cli.session import identity_from, operator_session
from fltrust.cli.times import parse_time
from fltrust.errors import Malformed, NotFound
from fltrust.identity import Name, Role, RunId

if TYPE_CHECKING:
    from fltrust.agent.credentials import Credentials
    from fltrust.client.coordinator import CoordinatorClient
    from fltrust.flower.replay import Replayed

PassphraseFile = Annotated[
    Path | None,
    typer.Option(
        "--passphrase-file",
        envvar="FLTRUST_RECOVERY_PASSPHRASE_FILE",
        help="A file (0600) with the passphrase of the recovery key. Default: ask for it.",
        show_default=False,
    ),
]


def register(app: typer.Typer) -> None:
    app.command("recovery-key")(recovery_key)
    app.command("replay")(replay)


def recovery_key(
    path: Annotated[
        Path, typer.Argument(help="The private half, to be made; the public half gets '.pub' behind it.")
    ],
    passphrase_file: PassphraseFile = None,
) -> None:
    """Make the key pair that retained updates are sealed to.

    Whoever holds the private half can read every retained update of every site. Keep it where no training
    code runs, and give the public half to the aggregator: TrustPolicy(retention=Retention(recipient=…)).
    """
    from fltrust.keys.recovery import RecoveryKey

    made = RecoveryKey.create(path, passphrase=_passphrase(passphrase_file, is_new=True))
    say(f"Wrote {path} (private, encrypted) and {path}.pub, key id {made.recipient.key_id}.")


def replay(
    run: Annotated[str, typer.Argument(metavar="RUN", help="The run id, as 'flwr ls' shows it.")],
    without: Annotated[
        str, typer.Option(metavar="NAME", help="The participant to leave out.", show_default=False)
    ],
    retained: Annotated[Path, typer.Option(help="The folder of the retained updates.", show_default=False)],
    key: Annotated[Path, typer.Option(help="The private half of the recovery key.", show_default=False)],
    out: Annotated[
        Path, typer.Option(help="The repaired model to write, a safetensors file.", show_default=False)
    ],
    since: Annotated[
        str | None,
        typer.Option(help="Leave out what it signed from then on. Default: all of it.", show_default=False),
    ] = None,
    strategy: Annotated[
        str, typer.Option(help="module:function that makes the run's own strategy, settings and all.")
    ] = "flwr.serverapp.strategy:FedAvg",
    signer: Annotated[
        str | None,
        typer.Option(
            "--as",
            metavar="NAME",
            help="The signer (or aggregator/NAME) to sign as. Default: nothing is signed.",
            show_default=False,
        ),
    ] = None,
    all_rounds: Annotated[
        bool,
        typer.Option("--all-rounds", help="Also make the rounds after it again, from the others' updates."),
    ] = False,
    passphrase_file: PassphraseFile = None,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Make a run's model again without one participant, from retained updates.

    Goes through the rounds before its first update, and that one round again without it: what the others sent
    later was trained from a model that held it. --all-rounds goes on with those updates all the same.
    """
    from fltrust.clock import SystemClock
    from fltrust.flower.records import save_model
    from fltrust.flower.replay import Replay, signing_at
    from fltrust.keys.recovery import RecoveryKey
    from fltrust.updates import Verifier

    clock, run_id, make = SystemClock(), run_id_from(run), _strategy(strategy)
    recovery = RecoveryKey.load(key, passphrase=_passphrase(passphrase_file))
    with operator_session(state) as (client, me), _signing(signer) as signing:
        desk, maker = signing if signing is not None else (None, me)
        found = Replay(
            run_id=run_id,
            without=identity_from(without, domain=me.spiffe_id.domain),
            record=client,
            verifier=Verifier(
                me.bundle, foreign=tuple(shown.record.bundle for shown in client.list_foreign())
            ),
            folder=retained,
            key=recovery,
            builder=maker.spiffe_id,
            new_run_id=RunId(secrets.randbits(63)),
            now=clock.now,
            make_strategy=make,
            since=None if since is None else parse_time(since, now=clock.now()),
            sign=None if desk is None else signing_at(desk, clock=clock),
            all_rounds=all_rounds,
        ).run()
        save_model(found.arrays, out)
        if desk is not None:
            from fltrust.artifacts.signing import sign

            sign(out, desk=desk, lineage=desk)
    _tell(found, out, is_signed=signer is not None, as_json=as_json)


def _tell(found: Replayed, out: Path, *, is_signed: bool, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "model": str(out),
                "signed": is_signed,
                "reproduced": found.reproduced,
                "rounds": [
                    {
                        "step": step.step,
                        "round": step.round,
                        "kept": list(step.kept),
                        "dropped": list(step.dropped),
                        "tensors": str(step.tensors),
                    }
                    for step in found.steps
                ],
            }
        )
        return
    typer.echo(f"{found.reproduced} rounds came out as they were recorded.")
    for step in found.steps:
        out_of = ", ".join(name.rpartition("/")[2] for name in step.dropped) or "nobody"
        typer.echo(f"Round {step.round} again from {len(step.kept)} updates, without {out_of}.")
    if not found.steps:
        typer.echo("Of the next round nothing is left: the model is the run's own before it.")
    say(f"Wrote {out}{', its signature and its lineage' if is_signed else ' (not signed)'}.")


@contextmanager
def _signing(signer: str | None) -> Iterator[tuple[CoordinatorClient, Credentials] | None]:
    """A session as the signer, if one is to sign."""
    if signer is None:
        yield None
        return
    from fltrust.agent.session import connect
    from fltrust.agent.state import list_states, passphrase_from_environment

    role_text, _, name_text = signer.rpartition("/")
    if role_text not in ("", Role.SIGNER, Role.AGGREGATOR):
        raise Malformed(f"expected a signer or an aggregator to sign as, got {signer[:80]!r}")
    role, name = Role(role_text or Role.SIGNER), Name(name_text)
    found = [path for path in list_states(role=role) if path.name == f"{role}-{name}"]
    if not found:
        raise NotFound(
            f"expected an enrolled {role} {name} on this machine, found none",
            hint=f"fltrust token create {name} --role {role}, then fltrust join here",
        )
    with connect(found[0], passphrase=passphrase_from_environment()) as session:
        yield session


def _strategy(where: str) -> Callable[[], Any]:
    """The function that `module:name` says; modules of the working folder are found."""
    import importlib

    module_name, _, name = where.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    try:
        made: Callable[[], Any] = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise Malformed(
            f"expected module:function that makes a strategy, got {where[:80]!r}: {error}"
        ) from None
    finally:
        sys.path.pop(0)
    return made


def _passphrase(path: Path | None, *, is_new: bool = False) -> bytes:
    if path is not None:
        from fltrust.enrollment.private import read_passphrase

        return read_passphrase(path)
    if not sys.stdin.isatty():
        raise Malformed(
            "expected the passphrase of the recovery key, there is nobody to ask",
            hint="--passphrase-file names a file (0600) that holds it",
        )
    return str(
        typer.prompt("Passphrase of the recovery key", hide_input=True, confirmation_prompt=is_new)
    ).encode()
