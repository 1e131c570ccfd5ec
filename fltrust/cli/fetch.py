"""`fltrust fetch-verified` and `fltrust pack-oci`: models on their way into and out of registries."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fltrust.cli.options import AsJson
from fltrust.cli.output import print_json
from fltrust.cli.verify import TrustOption

OCI = "oci:"


def register(app: typer.Typer) -> None:
    app.command("fetch-verified")(fetch)
    app.command("pack-oci")(pack)


def fetch(
    source: Annotated[
        str,
        typer.Argument(help="The model: a file, a directory, or oci:LAYOUT:TAG.", show_default=False),
    ],
    target: Annotated[
        Path, typer.Argument(help="A new path, or an empty directory such as a mount.", show_default=False)
    ],
    trust: TrustOption = None,
    policy: Annotated[
        Path | None,
        typer.Option(envvar="FLTRUST_POLICY", help="What to demand, in TOML.", show_default=False),
    ] = None,
    identity: Annotated[
        str | None,
        typer.Option(
            envvar="FLTRUST_IDENTITY",
            help="Who must have signed: a SPIFFE ID ('*' allowed in its path), or a name with --issuer.",
            show_default=False,
        ),
    ] = None,
    issuer: Annotated[
        str | None,
        typer.Option(envvar="FLTRUST_ISSUER", help="The OIDC issuer of the identity.", show_default=False),
    ] = None,
    max_bytes: Annotated[int, typer.Option(min=1, help="Copy at most so many bytes.")] = 64 * 2**30,
) -> None:
    """Copy a model only if it verifies: reads the source once, verifies the copy, hands over the copy.

    Refuses as 'fltrust verify' does, with its exit codes, also where the policy is advisory; of what is
    refused, nothing is left at the target.
    """
    from fltrust.artifacts.policy import Policy
    from fltrust.artifacts.recipe import VerifiedModel, load_trust, signers_of, verify
    from fltrust.cli.progress import progress_on_stderr
    from fltrust.errors import Malformed
    from fltrust.registry.gate import enforced, fetch_verified, from_files
    from fltrust.registry.oci import unpack

    if trust is None:
        raise Malformed(
            "expected a trust file: --trust FILE, or FLTRUST_TRUST",
            reason="trust-required",
            hint="the federation's operator gives it out: fltrust trust export",
        )
    rules = enforced(Policy() if policy is None else Policy.read(policy))
    signers_of(rules, identity, issuer)  # before anything is copied
    trusted = load_trust(trust)
    if source.startswith(OCI):
        layout, _, tag = source.removeprefix(OCI).rpartition(":")
        copy = unpack(Path(layout), tag=tag, limit=max_bytes)
    else:
        copy = from_files(Path(source), limit=max_bytes)
    with progress_on_stderr("verifying") as progress:

        def check(path: Path) -> VerifiedModel:
            return verify(
                path, trust=trusted, policy=rules, identity=identity, issuer=issuer, progress=progress
            )

        placed = fetch_verified(copy, target, check=check)
    typer.echo(str(placed))


def pack(
    model: Annotated[Path, typer.Argument(help="A signed model: file or directory.", show_default=False)],
    layout: Annotated[Path, typer.Argument(help="Folder of the layout, not there yet.", show_default=False)],
    tag: Annotated[str, typer.Option(help="Tag of the model in the layout.")] = "latest",
    as_json: AsJson = False,
) -> None:
    """Write a signed model as an OCI image layout, its signature as a referrer, for any tool that pushes."""
    from fltrust.registry.oci import pack as pack_layout

    packed = pack_layout(model, layout, tag=tag)
    if as_json:
        print_json(
            {
                "layout": str(layout),
                "model": packed.model,
                "signature": packed.signature,
                "tags": [packed.tag, packed.referrers_tag],
            }
        )
        return
    typer.echo(f"model      {packed.model}  (tag {packed.tag})")
    typer.echo(f"signature  {packed.signature}  (tag {packed.referrers_tag})")
