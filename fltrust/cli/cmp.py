"""`fltrust cmp`: credentials for CMP clients, for operators."""

from __future__ import annotations

from typing import Annotated

import typer

from fltrust.cli.options import AsJson, State
from fltrust.cli.output import print_json, say
from fltrust.cli.session import operator_session
from fltrust.identity import Name, Role

app = typer.Typer(help="CMP: certificates for devices, by clients such as openssl cmp.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Keep `credential` a command of the group."""


@app.command("credential")
def credential(
    name: Annotated[str, typer.Argument(help="The name, e.g. camera-3.")],
    role: Annotated[Role, typer.Option(help="device or server.")] = Role.DEVICE,
    dns: Annotated[
        list[str] | None,
        typer.Option(
            "--dns", help="Of a server: a DNS name of its certificates; repeatable.", show_default=False
        ),
    ] = None,
    ttl: Annotated[str, typer.Option(help="How long it can be used, e.g. 15m.")] = "1h",
    replace: Annotated[
        bool,
        typer.Option("--replace", help="Allow a name that is enrolled or revoked to be enrolled anew."),
    ] = False,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Create a credential (reference value and password) with which one name is enrolled by CMP, once.

    The password is shown once and kept nowhere: hand it over on a private channel. 'fltrust token cancel'
    makes one that was not used yet useless. The coordinator must have CMP switched on.
    """
    from fltrust.cli.times import parse_duration
    from fltrust.enrollment.mackeys import MacPurpose
    from fltrust.protocols.cmp.protection import password_of

    with operator_session(state) as (client, _):
        made = client.create_credential(
            MacPurpose.CMP,
            role,
            Name(name),
            ttl=parse_duration(ttl),
            replace=replace,
            dns_names=tuple(dns or ()),
        )
    password = password_of(made.key)
    if as_json:
        print_json(
            {
                "reference": made.credential_id,
                "password": password,
                "role": role,
                "name": name,
                "expires": made.expires_at,
            }
        )
        return
    typer.echo(f"-ref {made.credential_id} -secret pass:{password} -mac hmacWithSHA256")
    say(f"For {role} {name}; works once, within {ttl}. These are openssl cmp's options.")
