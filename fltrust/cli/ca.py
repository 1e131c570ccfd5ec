"""`fltrust ca`: certificate authorities and what they signed, without a coordinator."""

from __future__ import annotations

import typer

from fltrust.cli.ca_verify import verify

app = typer.Typer(
    help="Certificate authorities: ceremonies, and paths validated offline.", no_args_is_help=True
)
app.command()(verify)
