"""`fltrust ca request`, `accept` and `switch`: the online half of a ceremony, in the coordinator's folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fltrust.cli.output import say

if TYPE_CHECKING:
    from fltrust.ceremony.files import Request
    from fltrust.identity import TrustDomain
    from fltrust.pki.pointers import PublicUrl

requests = typer.Typer(
    help="Write a request for the root's ceremony. Run it where the coordinator is.", no_args_is_help=True
)

Folder = Annotated[
    Path,
    typer.Option("--folder", envvar="FLTRUST_COORDINATOR", help="Folder of the coordinator."),
]
Passphrase = Annotated[
    Path | None,
    typer.Option(
        "--passphrase-file",
        envvar="FLTRUST_CA_PASSPHRASE_FILE",
        help="File (0600) with the passphrase of the issuing key. Without it, you are asked.",
        show_default=False,
    ),
]
Out = Annotated[Path, typer.Argument(help="Where to write the request.", show_default=False)]
_DEFAULT = Path("~/.fltrust/coordinator")


@requests.command("new")
def new(
    out: Out,
    trust_domain: Annotated[str, typer.Option(help="The name of the federation, e.g. hospitals.example.")],
    folder: Folder = _DEFAULT,
    passphrase_file: Passphrase = None,
    public_url: Annotated[
        str | None, typer.Option(help="Where CRLs will be served, e.g. http://pki.hospitals.example.")
    ] = None,
) -> None:
    """For a trust domain whose root was never online: make the issuing key and ask for its certificate."""
    from fltrust.ceremony.files import Act, Request
    from fltrust.clock import SystemClock
    from fltrust.files import make_private_folder
    from fltrust.identity import TrustDomain
    from fltrust.pki.offline_root import begin_ca
    from fltrust.pki.pointers import PublicUrl

    home = folder.expanduser()
    make_private_folder(home)
    csr = begin_ca(home / "ca", issuing_passphrase=_passphrase(passphrase_file, confirm=True))
    url = None if public_url is None else PublicUrl.parse(public_url)
    _write(
        out,
        Request(
            act=Act.ISSUING,
            domain=TrustDomain(trust_domain),
            at=SystemClock().now(),
            csr_der=csr,
            public_url=url,
        ),
    )


@requests.command("issuing")
def issuing(out: Out, folder: Folder = _DEFAULT, passphrase_file: Passphrase = None) -> None:
    """Make the next issuing key and ask for its certificate. The present one goes on until 'ca switch'."""
    from fltrust.ceremony.files import Act, Request
    from fltrust.clock import SystemClock
    from fltrust.pki.rollover import prepare_issuing

    home = folder.expanduser()
    csr = prepare_issuing(home / "ca", passphrase=_passphrase(passphrase_file))
    now, url = SystemClock().now(), _public_url(home)
    _write(out, Request(act=Act.ISSUING, domain=_domain(home), at=now, csr_der=csr, public_url=url))


@requests.command("root")
def root(out: Out, folder: Folder = _DEFAULT) -> None:
    """Ask for the next root, and for both roots certified by each other."""
    from fltrust.ceremony.files import Act, Request
    from fltrust.clock import SystemClock

    home = folder.expanduser()
    now, url = SystemClock().now(), _public_url(home)
    _write(out, Request(act=Act.ROLLOVER, domain=_domain(home), at=now, public_url=url))


@requests.command("crl")
def crl(
    out: Out,
    folder: Folder = _DEFAULT,
    revoke: Annotated[
        list[Path] | None,
        typer.Option(help="A CA's certificate (PEM) to revoke. Repeat for each.", show_default=False),
    ] = None,
    reason: Annotated[str, typer.Option(help="Why, as RFC 5280 has it, with dashes.")] = "ca-compromise",
) -> None:
    """Ask for the root's next CRL, which lasts a year, and for CAs to be revoked on it."""
    from fltrust.ceremony.files import Act, Request
    from fltrust.clock import SystemClock
    from fltrust.identity import Serial
    from fltrust.pki.authority import read_certificate

    home = folder.expanduser()
    serials = [Serial(read_certificate(path).serial_number) for path in revoke or ()]
    revoked = tuple((serial, reason) for serial in serials)
    _write(out, Request(act=Act.CRL, domain=_domain(home), at=SystemClock().now(), revoke=revoked))


@requests.command("cross")
def cross(
    out: Out,
    subject: Annotated[Path, typer.Option(help="The other domain's root (PEM).", show_default=False)],
    permit: Annotated[
        list[str],
        typer.Option(help="A domain it may speak of, e.g. b.example. Repeat for each.", show_default=False),
    ],
    folder: Folder = _DEFAULT,
    path_length: Annotated[
        int, typer.Option(min=0, max=2, help="CAs that may follow below it in a path.")
    ] = 1,
) -> None:
    """Ask for a certificate of another domain's root, within name constraints."""
    from cryptography.hazmat.primitives.serialization import Encoding

    from fltrust.ceremony.files import Act, Request
    from fltrust.clock import SystemClock
    from fltrust.pki.authority import read_certificate

    home = folder.expanduser()
    _write(
        out,
        Request(
            act=Act.CROSS,
            domain=_domain(home),
            at=SystemClock().now(),
            public_url=_public_url(home),
            subject_der=read_certificate(subject).public_bytes(Encoding.DER),
            permitted=tuple(permit),
            path_length=path_length,
        ),
    )


def accept(
    answer: Annotated[Path, typer.Argument(help="What the ceremony answered.", show_default=False)],
    folder: Folder = _DEFAULT,
    root: Annotated[
        Path | None,
        typer.Option(help="For 'request new': the room's root.pem.", show_default=False),
    ] = None,
    fingerprint: Annotated[
        str | None,
        typer.Option(
            help="For 'request new': the root's sha256:…, as the holders read it.", show_default=False
        ),
    ] = None,
) -> None:
    """Check what a ceremony answered, and take it in. Run it with the coordinator stopped."""
    from fltrust.ceremony.accept import accept_answer, complete_ca
    from fltrust.ceremony.files import Answer
    from fltrust.clock import SystemClock
    from fltrust.errors import Malformed
    from fltrust.identity import Digest
    from fltrust.pki.authority import read_certificate

    home, found = folder.expanduser() / "ca", Answer.read(answer)
    if root is None and fingerprint is None:
        say(accept_answer(home, found, clock=SystemClock()))
        return
    if root is None or fingerprint is None:
        raise Malformed("expected --root and --fingerprint together, got one of them")
    bundle = complete_ca(
        home,
        found,
        root=read_certificate(root),
        fingerprint=Digest.parse(fingerprint),
        clock=SystemClock(),
    )
    say(f"The CA of {bundle.domain} is complete. Next: fltrust coordinator init --existing-ca …")


def switch(folder: Folder = _DEFAULT, passphrase_file: Passphrase = None) -> None:
    """Put the accepted next issuing CA in the present one's place. Run it with the coordinator stopped."""
    from fltrust.clock import SystemClock
    from fltrust.pki.rollover import switch_issuing

    home = folder.expanduser()
    issuer = switch_issuing(
        home / "ca",
        passphrase=_passphrase(passphrase_file),
        clock=SystemClock(),
        public_url=_public_url(home),
    )
    say(f"Issuing with {issuer.certificate.subject.rfc4514_string()}. Start the coordinator.")


def drop_root(
    fingerprint: Annotated[str, typer.Argument(help="sha256:… of the root to trust no more.")],
    folder: Folder = _DEFAULT,
) -> None:
    """Take an old root out of the trust bundle, once nothing is under it, with the coordinator stopped."""
    from fltrust.identity import Digest
    from fltrust.pki.rollover import drop_root as drop

    bundle = drop(folder.expanduser() / "ca", Digest.parse(fingerprint))
    say(f"The trust bundle of {bundle.domain} has {len(bundle.roots)} root, sequence {bundle.sequence}.")


def add_root(
    root: Annotated[Path, typer.Argument(help="A root (PEM) with the trust domain as its URI.")],
    folder: Folder = _DEFAULT,
) -> None:
    """Add a root to the trust bundle, such as an upstream CA's. Run it with the coordinator stopped."""
    from fltrust.pki.authority import read_certificate
    from fltrust.pki.bundle import root_fingerprint
    from fltrust.pki.rollover import change_roots

    certificate = read_certificate(root)
    bundle = change_roots(folder.expanduser() / "ca", add=[certificate])
    say(f"Added {root_fingerprint(certificate)}; the trust bundle has sequence {bundle.sequence}.")


def register(app: typer.Typer) -> None:
    app.add_typer(requests, name="request")
    app.command("accept")(accept)
    app.command("switch")(switch)
    app.command("add-root")(add_root)
    app.command("drop-root")(drop_root)


def _write(out: Path, request: Request) -> None:
    from fltrust.errors import Conflict
    from fltrust.files import write_durably

    if out.exists():
        raise Conflict(f"expected nothing at {out}, found a file", hint="choose another name")
    write_durably(out, request.to_json(), mode=0o644)
    for line in request.words():
        say(f"  {line}")
    say(f"  digest         {request.digest}")
    say(f"Take {out} to the ceremony, and the digest by another way.")


def _domain(home: Path) -> TrustDomain:
    from fltrust.pki.authority import load_bundle

    return load_bundle(home / "ca").domain


def _public_url(home: Path) -> PublicUrl | None:
    from fltrust.coordinator.folder import SETTINGS_FILE, read_settings

    return read_settings(home).public_url if (home / SETTINGS_FILE).exists() else None


def _passphrase(path: Path | None, *, confirm: bool = False) -> bytes:
    if path is not None:
        from fltrust.enrollment.private import read_passphrase

        return read_passphrase(path.expanduser())
    asked = typer.prompt(
        "Passphrase of the issuing key", hide_input=True, confirmation_prompt=confirm, err=True
    )
    return str(asked).encode()
