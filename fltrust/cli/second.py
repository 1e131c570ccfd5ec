"""`fltrust second`: ML-DSA-65 signatures beside the classical ones. Experimental."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fltrust.cli.output import say

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

app = typer.Typer(
    help="A second, post-quantum signature (ML-DSA-65) on models. Experimental.", no_args_is_help=True
)

Folder = Annotated[Path, typer.Option(help="Folder of the second chain: two keys and two certificates.")]
Passphrase = Annotated[
    Path | None,
    typer.Option(
        "--passphrase-file", help="File (0600) with the passphrase of the keys. Without it, you are asked."
    ),
]


@app.command("init")
def init(
    trust_domain: Annotated[str, typer.Option(help="The name of the federation.")],
    folder: Folder,
    passphrase_file: Passphrase = None,
) -> None:
    """Make an ML-DSA-65 root and an issuing CA under it. Give root.pem to whoever verifies."""
    from cryptography.hazmat.primitives.serialization import Encoding

    from fltrust.clock import SystemClock
    from fltrust.errors import Conflict
    from fltrust.files import make_private_folder, write_durably
    from fltrust.identity import TrustDomain
    from fltrust.keys.mldsa import generate_mldsa, save_mldsa
    from fltrust.pki.second import create_second_issuing, create_second_root

    make_private_folder(folder)
    if any(folder.iterdir()):
        raise Conflict(f"expected nothing in {folder}, found files", hint="a root is made once")
    secret, now = _passphrase(passphrase_file, confirm=True), SystemClock().now()
    root_key, issuing_key = generate_mldsa(), generate_mldsa()
    root = create_second_root(TrustDomain(trust_domain), root_key, now=now)
    issuing = create_second_issuing(root, root_key, issuing_key, now=now)
    for name, key, certificate in (("issuing", issuing_key, issuing), ("root", root_key, root)):
        save_mldsa(key, folder / f"{name}.key", passphrase=secret)
        write_durably(folder / f"{name}.pem", certificate.public_bytes(Encoding.PEM), mode=0o644)
    say(f"Made the second chain of {trust_domain} in {folder}. Keep root.key offline.")


@app.command("issue")
def issue(
    identity: Annotated[str, typer.Argument(help="Whose: spiffe://<trust domain>/signer/<name>.")],
    out: Annotated[Path, typer.Option(help="Folder for the new key and its chain: second.key, second.pem.")],
    folder: Folder,
    lifetime: Annotated[str, typer.Option(help="At most 30d.")] = "1d",
    passphrase_file: Passphrase = None,
) -> None:
    """Make an ML-DSA-65 key and its certificate for an identity that the first chain names.

    Whoever runs this says that the identity is who it is: hand the folder to nobody else.
    """
    from cryptography import x509

    from fltrust.cli.times import parse_duration
    from fltrust.clock import SystemClock
    from fltrust.files import make_private_folder, read_bounded, write_durably
    from fltrust.identity import SpiffeId
    from fltrust.keys.mldsa import generate_mldsa, load_mldsa, save_mldsa
    from fltrust.pki.bundle import chain_to_pem
    from fltrust.pki.second import MAX_SECOND_CERTIFICATE, SecondAuthority

    who, secret = SpiffeId.parse(identity), _passphrase(passphrase_file)
    certificate = x509.load_pem_x509_certificate(
        read_bounded(folder / "issuing.pem", limit=2 * MAX_SECOND_CERTIFICATE)
    )
    authority = SecondAuthority(certificate, load_mldsa(folder / "issuing.key", passphrase=secret))
    make_private_folder(out)
    now, key = SystemClock().now().replace(microsecond=0), generate_mldsa()
    chain = authority.issue(who, key.public_key, now=now, not_after=now + parse_duration(lifetime))
    save_mldsa(key, out / "second.key", passphrase=None)
    pem = chain_to_pem([x509.load_der_x509_certificate(der) for der in chain])
    write_durably(out / "second.pem", pem, mode=0o644)
    say(f"Issued a second certificate for {who}: {out}")


@app.command("sign")
def sign(
    path: Annotated[Path, typer.Argument(help="The model, which is signed already: a file or a directory.")],
    keys: Annotated[Path, typer.Option(help="The folder that 'fltrust second issue' wrote.")],
    identity: Annotated[str, typer.Option(help="Who signed it first.")],
    root: Annotated[Path, typer.Option(help="The second chain's root.pem.")],
    signature: Annotated[
        Path | None, typer.Option(help="Default: beside the model.", show_default=False)
    ] = None,
) -> None:
    """Add the second signature to a model that was signed: <model>.second.json, beside it."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    from fltrust.artifacts.second import sign_second
    from fltrust.files import read_bounded
    from fltrust.identity import SpiffeId
    from fltrust.keys.mldsa import load_mldsa
    from fltrust.pki.second import MAX_SECOND_CERTIFICATE

    pem = read_bounded(keys / "second.pem", limit=4 * MAX_SECOND_CERTIFICATE)
    chain = [found.public_bytes(Encoding.DER) for found in x509.load_pem_x509_certificates(pem)]
    out = sign_second(
        path,
        signer=load_mldsa(keys / "second.key", passphrase=None),
        chain=chain,
        root=read_root(root),
        who=SpiffeId.parse(identity),
        signature=signature,
    )
    say(f"Signed {path} a second time: {out}")


def read_root(path: Path) -> Certificate:
    """The second chain's root, in PEM."""
    from cryptography import x509

    from fltrust.errors import Malformed
    from fltrust.files import read_bounded
    from fltrust.pki.second import MAX_SECOND_CERTIFICATE

    try:
        return x509.load_pem_x509_certificate(read_bounded(path, limit=2 * MAX_SECOND_CERTIFICATE))
    except ValueError:
        raise Malformed(f"expected the second chain's root in PEM in {path}, found something else") from None


def _passphrase(path: Path | None, *, confirm: bool = False) -> bytes:
    if path is not None:
        from fltrust.enrollment.private import read_passphrase

        return read_passphrase(path)
    return str(
        typer.prompt("Passphrase of the second chain's keys", hide_input=True, confirmation_prompt=confirm)
    ).encode()
