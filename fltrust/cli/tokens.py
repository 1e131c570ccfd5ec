"""`fltrust token`: join tokens, for operators."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from fltrust.cli.options import AsJson, State
from fltrust.cli.output import Row, print_json, print_rows, say
from fltrust.cli.session import operator_session
from fltrust.identity import Name, Role

if TYPE_CHECKING:
    from fltrust.enrollment.types import TokenRecord

app = typer.Typer(help="Join tokens: what a site needs to become a participant.", no_args_is_help=True)

_COLUMNS = {
    "id": "ID",
    "role": "ROLE",
    "name": "NAME",
    "status": "STATUS",
    "expires": "EXPIRES",
    "created_by": "CREATED BY",
}


@app.command("create")
def create(
    name: Annotated[str, typer.Argument(help="The name that the site will have, e.g. site-a.")],
    role: Annotated[Role, typer.Option(help="What it will be.")] = Role.PARTICIPANT,
    ttl: Annotated[str, typer.Option(help="How long the token can be used, e.g. 15m.")] = "15m",
    replace: Annotated[
        bool, typer.Option("--replace", help="Allow a name that is enrolled or revoked to be enrolled anew.")
    ] = False,
    dns: Annotated[
        list[str] | None,
        typer.Option(
            help="For a server: a DNS name of its certificates; may be repeated.", show_default=False
        ),
    ] = None,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Create a single-use join token and print it. Hand it to the site over a private channel."""
    from fltrust.cli.times import parse_duration
    from fltrust.enrollment.token import encode_token

    with operator_session(state) as (client, _):
        token = client.create_token(
            role, Name(name), ttl=parse_duration(ttl), replace=replace, dns_names=tuple(dns or ())
        )
    if as_json:
        print_json({"token": encode_token(token), "role": role.value, "name": name, "root": str(token.root)})
        return
    typer.echo(encode_token(token))
    say(f"For {role} {name}; can be used once, within {ttl}. At the site, run 'fltrust join' and paste it.")


@app.command("list")
def list_(state: State = None, as_json: AsJson = False) -> None:
    """Show every join token and what became of it. Secrets are not kept, so none is shown."""
    with operator_session(state) as (client, _):
        rows = [_row(token) for token in client.list_tokens()]
    print_rows(rows, columns=_COLUMNS, as_json=as_json, empty="No join tokens.")


@app.command("cancel")
def cancel(
    token_id: Annotated[str, typer.Argument(metavar="ID", help="As shown by 'fltrust token list'.")],
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Make a join token that was not used yet useless."""
    with operator_session(state) as (client, _):
        row = _row(client.cancel_token(token_id))
    print_rows([row], columns=_COLUMNS, as_json=as_json, empty="")


def _row(token: TokenRecord) -> Row:
    return {
        "id": token.token_id,
        "role": token.role.value,
        "name": token.name,
        "status": token.status.value,
        "created": token.created_at,
        "expires": token.expires_at,
        "created_by": None if token.created_by is None else str(token.created_by),
        "replace": token.replace,
        "dns_names": list(token.dns_names),
    }
