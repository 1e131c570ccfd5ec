"""`fltrust ca`: certificate authorities and what they signed, without a coordinator."""

from __future__ import annotations

import typer

from fltrust.cli import ca_cross, ca_files, ca_live, ceremony
from fltrust.cli.ca_offline import anchors, offline
from fltrust.cli.ca_verify import verify

app = typer.Typer(
    help="Certificate authorities: ceremonies, and paths validated offline.", no_args_is_help=True
)
app.command()(verify)
app.add_typer(ceremony.app, name="ceremony")
ca_files.register(app)
ca_live.register(app)
app.add_typer(offline, name="offline")
app.add_typer(anchors, name="anchors")
app.add_typer(ca_cross.app, name="cross")
