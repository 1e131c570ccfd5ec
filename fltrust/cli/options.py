"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
State = Annotated[
    Path | None,
    typer.Option(
        "--state",
        envvar="FLTRUST_STATE",
        help="Folder of the identity to act as. Default: the only one of its role under FLTRUST_HOME.",
        show_default=False,
    ),
]
