"""`fltrust acme`: credentials for ACME clients, for operators."""

from __future__ import annotations

from typing import Annotated

import typer

from fltrust.cli.options import AsJson, State
from fltrust.cli.output import print_json, say
from fltrust.cli.session import operator_session
from fltrust.identity import Name, Role

app = typer.Typer(
    help="ACME: certificates for TLS servers, by clients such as certbot.", no_args_is_help=True
)


@app.callback()
def group() -> None:
    """Keep `credential` a command of the group."""


@app.command("credential")
def credential(
    name: Annotated[str, typer.Argument(help="The server's name, e.g. model-host.")],
    dns: Annotated[
        list[str],
        typer.Option("--dns", help="A DNS name that its certificates may carry; repeatable."),
    ],
    ttl: Annotated[str, typer.Option(help="How long an account can be opened with it, e.g. 15m.")] = "1h",
    replace: Annotated[
        bool,
        typer.Option("--replace", help="Allow a name that is enrolled or revoked to be enrolled anew."),
    ] = False,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Create a credential (external account binding) with which one ACME account can be opened, once.

    The account gets certificates for the server's name, with the DNS names stated here and no other. The key
    is shown once and kept nowhere: hand it over on a private channel. 'fltrust token cancel' makes one that
    was not used yet useless.
    """
    from fltrust.cli.times import parse_duration
    from fltrust.enrollment.mackeys import MacPurpose
    from fltrust.strictbase64 import to_base64url

    with operator_session(state) as (client, _):
        made = client.create_credential(
            MacPurpose.ACME,
            Role.SERVER,
            Name(name),
            ttl=parse_duration(ttl),
            replace=replace,
            dns_names=tuple(dns),
        )
    key = to_base64url(made.key)
    if as_json:
        print_json(
            {
                "kid": made.credential_id,
                "hmac_key": key,
                "name": name,
                "dns_names": list(dns),
                "expires": made.expires_at,
            }
        )
        return
    # With '=': a key may begin with '-', which would look like another option.
    typer.echo(f"--eab-kid={made.credential_id} --eab-hmac-key={key}")
    say(f"For server {name}: {', '.join(dns)}; opens one account, within {ttl}. These are certbot's options.")
