"""`fltrust sign`: sign a model as an enrolled signer, or keyless with an OIDC identity."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fltrust.artifacts.ports import EntryKind, StepOfRun
from fltrust.cli.options import AsJson, State
from fltrust.cli.output import print_json, say, text_of
from fltrust.errors import Conflict, Malformed, NotFound
from fltrust.identity import Name, Role

if TYPE_CHECKING:
    from fltrust.artifacts.signing import SignedModel


def register(app: typer.Typer) -> None:
    app.command()(sign)


def sign(
    path: Annotated[Path, typer.Argument(help="The model: a file or a directory.", show_default=False)],
    signer: Annotated[
        str | None,
        typer.Option(
            "--as", metavar="NAME", help="The signer to sign as. Default: the only one.", show_default=False
        ),
    ] = None,
    run: Annotated[
        str | None,
        typer.Option(
            help="The run whose aggregate this is. Default: found by the tensors.", show_default=False
        ),
    ] = None,
    step: Annotated[int | None, typer.Option(help="The step in that run.", min=0, show_default=False)] = None,
    entry: Annotated[
        EntryKind, typer.Option(help="The kind of log entry; dsse-0.0.1 for verifiers of Rekor v1.")
    ] = EntryKind.HASHEDREKORD,
    ignore: Annotated[
        list[str] | None,
        typer.Option(help="A file or directory in the model to leave out.", show_default=False),
    ] = None,
    shards: Annotated[
        bool,
        typer.Option(
            "--shards", help="Digest files in shards of 64 MiB, on all cores: faster for one large file."
        ),
    ] = False,
    no_tensors: Annotated[
        bool,
        typer.Option("--no-tensors", help="No digests of tensors, and so no lineage unless --run names it."),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="Where to write the signature. Default: beside the model.", show_default=False),
    ] = None,
    sigstore: Annotated[
        bool,
        typer.Option("--sigstore", help="Keyless, with an OIDC identity, at Sigstore's public instance."),
    ] = False,
    staging: Annotated[
        bool, typer.Option("--staging", help="With --sigstore: its staging instance.")
    ] = False,
    trust_config: Annotated[
        Path | None,
        typer.Option(
            help="With --sigstore: another instance's client trust configuration.", show_default=False
        ),
    ] = None,
    identity_token: Annotated[
        Path | None,
        typer.Option(
            help="With --sigstore: a file with the OIDC token. Default: SIGSTORE_ID_TOKEN, or the CI's.",
            show_default=False,
        ),
    ] = None,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Sign a model: write its signature, and its lineage where the coordinator knows it, beside it."""
    if (run is None) != (step is None):
        raise Malformed("expected --run and --step together, got one of them")
    if not sigstore and (staging or trust_config or identity_token):
        raise Malformed("expected --sigstore with --staging, --trust-config and --identity-token")
    if sigstore and (shards or no_tensors):
        raise Malformed("expected no --shards and no --no-tensors with --sigstore")
    if sigstore:
        _sign_keyless(path, out, ignore or [], staging, trust_config, identity_token, as_json=as_json)
        return
    from fltrust.agent.session import connect
    from fltrust.agent.state import passphrase_from_environment
    from fltrust.artifacts.measuring import SHARD_BYTES
    from fltrust.artifacts.signing import sign as sign_model
    from fltrust.cli.progress import progress_on_stderr

    folder = state or _state_of(signer)
    with (
        connect(folder, passphrase=passphrase_from_environment()) as (client, _me),
        progress_on_stderr("hashing") as progress,
    ):
        signed = sign_model(
            path,
            desk=client,
            lineage=client,
            run=_place(run, step),
            entry_kind=entry,
            out=out,
            ignore=ignore or (),
            with_tensors=not no_tensors,
            shard_bytes=SHARD_BYTES if shards else None,
            progress=progress,
        )
    _tell(signed, as_json=as_json)


def _place(run: str | None, step: int | None) -> StepOfRun | None:
    if run is None or step is None:
        return None
    from fltrust.cli.revocation import run_id_from

    return StepOfRun(run_id_from(run), step)


def _state_of(signer: str | None) -> Path:
    """The folder of the signer of this name, or of the only signer of this machine."""
    from fltrust.agent.state import find_state, list_states

    if signer is None:
        return find_state(Role.SIGNER)
    name = Name(signer.removeprefix(f"{Role.SIGNER}/"))
    found = [path for path in list_states(role=Role.SIGNER) if path.name == f"{Role.SIGNER}-{name}"]
    if not found:
        raise NotFound(
            f"expected an enrolled signer {name} on this machine, found none",
            hint=f"fltrust token create {name} --role signer, then fltrust join here",
        )
    if len(found) > 1:
        raise Conflict(
            f"expected one signer {name}, found one in each of {len(found)} trust domains",
            hint="choose one with --state",
        )
    return found[0]


def _tell(signed: SignedModel, *, as_json: bool) -> None:
    evidence, link = signed.evidence, signed.statement.lineage
    if as_json:
        print_json(
            {
                "path": str(signed.path),
                "signature": str(signed.signature),
                "lineage": None if signed.lineage is None else str(signed.lineage),
                "signer": evidence.signer,
                "issuer": evidence.issuer,
                "signedAt": evidence.signed_at,
                "logIndex": evidence.log_index,
                "subject": str(signed.statement.subject),
                "statement": str(evidence.payload_digest),
                "run": None if link is None else str(int(link.run_id)),
                "step": None if link is None else link.step,
                "tainted": signed.taint is not None,
            }
        )
        return
    typer.echo(f"Signed {signed.path} as {evidence.signer} at {text_of(evidence.signed_at)}")
    typer.echo(f"  signature  {signed.signature}")
    if link is None:
        typer.echo("  lineage    none: the coordinator knows no aggregate with these tensors")
    else:
        typer.echo(f"  lineage    {signed.lineage} (step {link.step} of run {link.run_id})")
    if signed.taint is not None:
        how = "contains" if signed.taint.is_direct else "descends from"
        say(f"  tainted    it {how} compromised updates: whoever has a new trust file refuses it")


def _sign_keyless(
    path: Path,
    out: Path | None,
    ignore: list[str],
    staging: bool,
    trust_config: Path | None,
    identity_token: Path | None,
    *,
    as_json: bool,
) -> None:
    from fltrust.artifacts.keyless import Instance, sign_keyless
    from fltrust.cli.progress import progress_on_stderr

    with progress_on_stderr("hashing") as progress:
        signed = sign_keyless(
            path,
            instance=Instance.of(staging=staging, trust_config=trust_config),
            token=identity_token,
            out=out,
            ignore=ignore,
            progress=progress,
        )
    _tell(signed, as_json=as_json)
