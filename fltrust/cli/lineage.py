"""`fltrust lineage`: where a model comes from, shown, verified and drawn. Needs no coordinator."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fltrust.cli.options import AsJson
from fltrust.cli.output import print_json, say

if TYPE_CHECKING:
    from fltrust.artifacts.lineage import LineageStep
    from fltrust.artifacts.origin import Origin

app = typer.Typer(
    help="Where a model comes from: its rounds, back to the first arrays.", no_args_is_help=True
)

Model = Annotated[Path, typer.Argument(help="The model: a file or a folder.", show_default=False)]
Trust = Annotated[
    Path | None,
    typer.Option(
        envvar="FLTRUST_TRUST",
        help="The trust file to verify against; without one, nothing is verified.",
        show_default=False,
    ),
]
LineageFile = Annotated[
    Path | None,
    typer.Option("--lineage", help="The lineage file, if it is not beside the model.", show_default=False),
]


@app.command("show")
def show(model: Model, trust: Trust = None, lineage: LineageFile = None, as_json: AsJson = False) -> None:
    """Show what a model was made of: each round, who contributed, what is tainted."""
    _print(_origin(model, trust, lineage), as_json=as_json)


@app.command("verify")
def verify(
    model: Model,
    trust: Annotated[
        Path,
        typer.Option(envvar="FLTRUST_TRUST", help="The trust file to verify against.", show_default=False),
    ],
    lineage: LineageFile = None,
    as_json: AsJson = False,
) -> None:
    """Check the lineage of a model offline: every signature, log entry and link, back to the first arrays.

    Exits with 14 where something in it is tainted. Who released the model is the business of
    'fltrust verify'.
    """
    from fltrust.cli.exits import EXIT_CODES
    from fltrust.errors import Tainted

    found = _origin(model, trust, lineage)
    _print(found, as_json=as_json)
    if found.taints:
        raise typer.Exit(EXIT_CODES[Tainted])


@app.command("graph")
def graph(
    model: Model,
    out: Annotated[Path, typer.Option(help="The picture to write, an SVG.", show_default=False)],
    trust: Trust = None,
    lineage: LineageFile = None,
) -> None:
    """Draw the lineage of a model as an SVG picture."""
    from fltrust.artifacts.graph import svg
    from fltrust.files import write_durably

    found = _origin(model, trust, lineage)
    title = f"Lineage of {model.name}{'' if found.is_verified else ' (not verified)'}"
    write_durably(out, svg(found.lineage, taints=found.taints, title=title).encode(), mode=0o644)
    say(f"Wrote {out}.")


def _origin(model: Path, trust: Path | None, lineage: Path | None) -> Origin:
    from fltrust.artifacts.origin import claimed_origin, verified_origin

    if trust is None:
        return claimed_origin(model, lineage=lineage)
    from fltrust.artifacts.recipe import load_trust

    return verified_origin(model, trust=load_trust(trust), lineage=lineage)


def _print(found: Origin, *, as_json: bool) -> None:
    from fltrust.artifacts.graph import text_tree

    if as_json:
        print_json(_fields(found))
        return
    lineage = found.lineage
    for line in text_tree(lineage, taints=found.taints):
        typer.echo(line)
    typer.echo(
        f"\n{lineage.rounds} rounds, {len(lineage.participants)} participants, "
        f"{len(lineage.runs)} run{'s' if len(lineage.runs) > 1 else ''}; "
        f"verified: {'yes' if found.is_verified else 'NO'}"
    )
    if not found.is_verified:
        say("Nothing of this was verified: give the trust file with --trust.")
    if found.is_the_models is None:
        say("Whether the model holds the newest aggregate was not compared: it has no safetensors file.")
    if found.is_the_models is False:
        say("The model's tensors are NOT those of the newest aggregate.")
    if found.is_verified and found.status is None:
        say("The trust file has no status: nothing is known of taint and revocation.")


def _fields(found: Origin) -> dict[str, object]:
    lineage, epochs = found.lineage, found.lineage.epochs
    return {
        "verified": found.is_verified,
        "isTheModels": found.is_the_models,
        "rounds": lineage.rounds,
        "runs": [str(int(run)) for run in lineage.runs],
        "participants": sorted(lineage.participants),
        "appHashes": sorted(lineage.app_hashes),
        "builders": sorted(str(builder) for builder in lineage.builders),
        "epochs": None if epochs is None else [int(epoch) for epoch in epochs],
        "statusAt": None if found.status is None else found.status.at,
        "steps": [_step(step, found.taints.get(step.provenance.tensors)) for step in lineage.steps],
    }


def _step(step: LineageStep, taint: bool | None) -> dict[str, object]:
    said = step.provenance
    return {
        "runId": str(int(said.run_id)),
        "step": said.step,
        "round": said.round,
        "buildType": said.build_type.value,
        "tensors": str(said.tensors),
        "builder": str(said.builder),
        "signedAt": step.signed_at,
        "logIndex": step.log_index,
        "tainted": None if taint is None else "direct" if taint else "descends",
        "updates": [
            {"participant": update.public_name, "update": str(update.update), "examples": update.examples}
            for update in said.updates
        ],
        "without": list(said.without),
    }
