"""`fltrust second`: ML-DSA-65 signatures beside the classical ones. Experimental."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fltrust.cli.options import State
from fltrust.cli.output import say
from fltrust.identity import Role

if TYPE_CHECKING:
    from fltrust.agent.state import AgentState

app = typer.Typer(
    help="A second, post-quantum signature (ML-DSA-65) on updates and models. Experimental.",
    no_args_is_help=True,
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


@app.command("request")
def request(
    out: Annotated[Path, typer.Option(help="The request, for whoever issues: nothing in it is secret.")],
    state: State = None,
) -> None:
    """Make a second key for an identity of this machine, and ask for its certificate.

    The key stays in the identity's folder. The request is signed with the identity's present certificate.
    """
    from fltrust.files import write_durably

    opened = _opened(state)
    signer, chain = opened.load_identity()
    data = opened.second().request(signer, chain, opened.load_bundle())
    write_durably(out, data, mode=0o644)
    say(f"Asked for a second certificate of {opened.spiffe_id}: {out}")


@app.command("install")
def install(
    certificate: Annotated[
        Path, typer.Argument(help="What 'fltrust second issue' wrote: the chain, in PEM.")
    ],
    second_root: Annotated[Path, typer.Option(help="The second chain's root.pem.")],
    state: State = None,
) -> None:
    """Put the certificate of the requested key in place; an agent that runs signs with it from now on."""
    from fltrust.clock import SystemClock
    from fltrust.files import read_bounded
    from fltrust.pki.second import MAX_SECOND_CERTIFICATE, read_second_ca

    opened = _opened(state)
    pem = read_bounded(certificate, limit=4 * MAX_SECOND_CERTIFICATE)
    leaf = opened.second().install(pem, root=read_second_ca(second_root), at=SystemClock().now())
    say(f"{opened.spiffe_id} signs twice where it is asked to, until {leaf.not_after:%Y-%m-%d %H:%M} UTC.")


@app.command("issue")
def issue(
    request: Annotated[Path, typer.Argument(help="What 'fltrust second request' wrote.")],
    out: Annotated[Path, typer.Option(help="The certificate and its CA's, in PEM.")],
    folder: Folder,
    root: Annotated[
        list[str], typer.Option(help="sha256:… of a root of the FIRST chain, which says who asks.")
    ],
    lifetime: Annotated[str, typer.Option(help="At most 30d.")] = "7d",
    passphrase_file: Passphrase = None,
) -> None:
    """Issue a second certificate to an identity that proves itself with its first one."""
    from fltrust.cli.times import parse_duration
    from fltrust.clock import SystemClock
    from fltrust.enrollment.second import MAX_REQUEST, verify_request
    from fltrust.files import read_bounded, write_durably
    from fltrust.identity import Digest
    from fltrust.keys.mldsa import load_mldsa
    from fltrust.pki.bundle import chain_to_pem
    from fltrust.pki.second import SecondAuthority, read_second_ca

    now = SystemClock().now().replace(microsecond=0)
    data = read_bounded(request, limit=MAX_REQUEST)
    found = verify_request(data, roots=[Digest.parse(text) for text in root], at=now)
    key = load_mldsa(folder / "issuing.key", passphrase=_passphrase(passphrase_file))
    authority = SecondAuthority(read_second_ca(folder / "issuing.pem"), key)
    chain = authority.issue(found.who, found.public_key, now=now, not_after=now + parse_duration(lifetime))
    write_durably(out, chain_to_pem(chain), mode=0o644)
    say(f"Issued a second certificate for {found.who}: {out}")


@app.command("sign")
def sign(
    path: Annotated[Path, typer.Argument(help="The model, which is signed already: a file or a directory.")],
    second_root: Annotated[Path, typer.Option(help="The second chain's root.pem.")],
    trust: Annotated[
        Path, typer.Option(envvar="FLTRUST_TRUST", help="The trust file of 'fltrust trust export'.")
    ],
    signature: Annotated[
        Path | None, typer.Option(help="Default: beside the model.", show_default=False)
    ] = None,
    state: State = None,
) -> None:
    """Add the second signature to a model that this identity signed: <model>.second.json, beside it.

    The model is verified first: this key signs no other's.
    """
    from fltrust.artifacts import verify
    from fltrust.artifacts.second import sign_second
    from fltrust.pki.second import read_second_ca

    opened = _opened(state, Role.SIGNER)
    pair = opened.second().load()
    out = sign_second(
        verify(path, trust=trust, identity=str(opened.spiffe_id), signature=signature),
        signer=pair.signer,
        chain=pair.chain_der,
        root=read_second_ca(second_root),
        signature=signature,
    )
    say(f"Signed {path} a second time: {out}")


def _opened(state: Path | None, role: Role | None = None) -> AgentState:
    from fltrust.agent.state import AgentState, find_state, passphrase_from_environment

    return AgentState.open(state or find_state(role), passphrase=passphrase_from_environment())


def _passphrase(path: Path | None, *, confirm: bool = False) -> bytes:
    if path is not None:
        from fltrust.enrollment.private import read_passphrase

        return read_passphrase(path)
    return str(
        typer.prompt(
            "Passphrase of the second chain's keys", hide_input=True, confirmation_prompt=confirm, err=True
        )
    ).encode()
