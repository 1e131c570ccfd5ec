"""`fltrust keys`: keys in HSMs, TPMs, a cloud's KMS and files, by their URI."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fltrust.cli.options import AsJson
from fltrust.cli.output import print_json, say

app = typer.Typer(help="Keys in an HSM, a TPM, a KMS or a file, by URI.", no_args_is_help=True)

Uri = Annotated[
    str,
    typer.Argument(
        help="pkcs11:token=…;object=…?module-path=…&pin-source=…, awskms:///alias/…, tpm:file=/…, file:/…"
    ),
]


@app.command("generate")
def generate(
    uri: Uri,
    ed25519: Annotated[
        bool,
        typer.Option("--ed25519", help="An Ed25519 key, for the log's checkpoints; P-256 without it."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make a key that cannot leave where it is made, and print the URI that names it alone."""
    from fltrust.keys.homes import generate_key

    made = generate_key(uri, ed25519=ed25519)
    if as_json:
        print_json({"uri": made})
    else:
        typer.echo(made)


@app.command("show")
def show(uri: Uri, as_json: AsJson = False) -> None:
    """Open a P-256 key, let it sign once, and print its public half and key id."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    from fltrust.keys.homes import home_of, open_key

    signer = open_key(uri)
    pem = signer.public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode("ascii")
    if as_json:
        print_json({"home": home_of(uri), "key_id": signer.key_id, "public_key": pem})
        return
    say(f"{home_of(uri)} key {signer.key_id}")
    typer.echo(pem, nl=False)


@app.command("list")
def list_keys(
    uri: Uri,
    every: Annotated[
        bool, typer.Option("--all", help="Also keys whose label does not begin with 'fltrust'.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List the private keys in a PKCS#11 token."""
    from fltrust.keys.pkcs11 import list_keys as listed
    from fltrust.keys.pkcs11_uri import Pkcs11Uri

    found = listed(Pkcs11Uri.parse(uri), prefix="") if every else listed(Pkcs11Uri.parse(uri))
    if as_json:
        print_json([{"label": key.object, "id": (key.id or b"").hex(), "uri": str(key)} for key in found])
        return
    for key in found:
        typer.echo(str(key))  # a table would fold what is to be copied


@app.command("tpm")
def tpm(
    tcti: Annotated[
        str | None,
        typer.Option(
            help="How the TPM is reached; FLTRUST_TPM_TCTI, or device:/dev/tpmrm0.", show_default=False
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print the digest of this machine's TPM's endorsement key: what an operator lists it by."""
    from fltrust.keys.tpm_attest import endorsement_of

    key_id = endorsement_of(tcti)
    if as_json:
        print_json({"endorsement": key_id})
    else:
        typer.echo(key_id)


@app.command("destroy")
def destroy(
    uri: Uri,
    reason: Annotated[
        str, typer.Option(help="Why: retired, compromised, ceremony or other; it stands in the log.")
    ],
    folder: Annotated[
        Path,
        typer.Option(
            "--folder", envvar="FLTRUST_COORDINATOR", help="Folder of the coordinator whose log records it."
        ),
    ] = Path("~/.fltrust/coordinator"),
    passphrase_file: Annotated[
        Path | None,
        typer.Option(
            envvar="FLTRUST_CA_PASSPHRASE_FILE",
            help="File (0600) with the passphrase of the issuing key. Without it, you are asked.",
            show_default=False,
        ),
    ] = None,
    key_id: Annotated[
        str | None,
        typer.Option(help="The key's id, where the key is gone already and only its end is to be recorded."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Destroy a key for good, and record it in the coordinator's log. The coordinator must not be running.

    A key that the coordinator signs with is refused.
    """
    from fltrust.cli.coordinator import _passphrase
    from fltrust.coordinator.key_destruction import DestructionReason
    from fltrust.coordinator.process import destroy_key
    from fltrust.identity import KeyId

    why = DestructionReason.parse(reason)
    passphrase = _passphrase(passphrase_file, "issuing key")
    if not yes:
        typer.confirm("What only this key can do, nobody will ever do again. Destroy it?", abort=True)
    entry = destroy_key(
        folder.expanduser(),
        uri,
        reason=why,
        expect=None if key_id is None else KeyId(key_id),
        issuing_passphrase=passphrase,
    )
    if as_json:
        print_json(
            {"key_id": entry.key_id, "was_there": entry.was_there, "gone_at": entry.gone_at.isoformat()}
        )
        return
    found = "Destroyed" if entry.was_there else "Found gone, and recorded as such:"
    say(f"{found} {entry.key_id}, for good at {entry.gone_at:%Y-%m-%dT%H:%M:%SZ}.")
