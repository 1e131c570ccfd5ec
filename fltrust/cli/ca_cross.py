"""`fltrust ca cross`: certify another domain's CA, or a bridge, where the root's key is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Self

import typer

from fltrust.cli.output import say

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

    from fltrust.identity import TrustDomain
    from fltrust.keys.signer import Signer

app = typer.Typer(help="Cross-certificates between trust domains, held to names.", no_args_is_help=True)

Root = Annotated[Path, typer.Option(help="Our root, in PEM.", show_default=False)]
Key = Annotated[Path, typer.Option(help="Our root's key.", show_default=False)]
Out = Annotated[Path, typer.Option(help="Where to write the cross-certificate.", show_default=False)]
PassphraseFile = Annotated[
    Path | None,
    typer.Option(
        envvar="FLTRUST_ROOT_PASSPHRASE_FILE",
        help="File (0600) with the passphrase of the root's key.",
        show_default=False,
    ),
]
Life = Annotated[str | None, typer.Option(help="How long it lives, such as 180d. Default: a year.")]
Parameters = Annotated[
    Path | None,
    typer.Option(
        help="Write what operators are to sign for it (operation cross-certify), too.", show_default=False
    ),
]


@app.command()
def domain(
    partner: Annotated[Path, typer.Argument(help="The other domain's root, in PEM.", show_default=False)],
    root: Root,
    key: Key,
    out: Out,
    dns_name: Annotated[
        list[str] | None,
        typer.Option(help="A DNS domain of its servers outside of its own name. May be repeated."),
    ] = None,
    lifetime: Life = None,
    passphrase_file: PassphraseFile = None,
    parameters: Parameters = None,
) -> None:
    """Certify another domain's root: for names of that domain alone, and the issuing CAs below it."""
    from fltrust.pki.cross import certify_domain
    from fltrust.pki.issuing import domain_of_ca

    asked = _Asked.read(partner, root, key, passphrase_file, lifetime)
    names = dns_name or []
    certificate = certify_domain(
        asked.subject,
        issuer=asked.issuer,
        signer=asked.signer,
        now=asked.now,
        lifetime=asked.lifetime,
        dns_names=names,
    )
    asked.write(certificate, out, parameters, [domain_of_ca(asked.subject)], names)


@app.command()
def bridge(
    partner: Annotated[Path, typer.Argument(help="The bridge's root, in PEM.", show_default=False)],
    root: Root,
    key: Key,
    out: Out,
    member: Annotated[
        list[str],
        typer.Option(help="A trust domain that we reach over it. May be repeated.", show_default=False),
    ],
    lifetime: Life = None,
    passphrase_file: PassphraseFile = None,
    parameters: Parameters = None,
) -> None:
    """Certify a bridge: for names of the members that you name, never of our own."""
    from fltrust.identity import TrustDomain
    from fltrust.pki.cross import certify_bridge
    from fltrust.pki.issuing import domain_of_ca

    asked = _Asked.read(partner, root, key, passphrase_file, lifetime)
    members = [TrustDomain(text) for text in member]
    certificate = certify_bridge(
        asked.subject,
        issuer=asked.issuer,
        signer=asked.signer,
        members=members,
        now=asked.now,
        lifetime=asked.lifetime,
    )
    asked.write(certificate, out, parameters, [domain_of_ca(asked.subject), *members], [])


@dataclass(frozen=True, slots=True)
class _Asked:
    """What both commands are given."""

    subject: Certificate
    issuer: Certificate
    signer: Signer
    now: datetime
    lifetime: timedelta | None

    @classmethod
    def read(
        cls, partner: Path, root: Path, key: Path, passphrase_file: Path | None, lifetime: str | None
    ) -> Self:
        from fltrust.cli.times import parse_duration
        from fltrust.clock import SystemClock
        from fltrust.enrollment.private import read_passphrase
        from fltrust.keys.stored import load
        from fltrust.pki.authority import read_certificate

        passphrase = None if passphrase_file is None else read_passphrase(passphrase_file)
        return cls(
            read_certificate(partner),
            read_certificate(root),
            load(key, passphrase=passphrase),
            SystemClock().now(),
            None if lifetime is None else parse_duration(lifetime),
        )

    def write(
        self,
        certificate: Certificate,
        out: Path,
        parameters: Path | None,
        domains: Sequence[TrustDomain],
        dns_names: Sequence[str],
    ) -> None:
        from fltrust import strictjson
        from fltrust.files import write_durably
        from fltrust.pki.bundle import chain_to_pem
        from fltrust.pki.cross import cross_parameters

        write_durably(out, chain_to_pem([certificate]), mode=0o644)
        said = cross_parameters(certificate, domains=domains, dns_names=dns_names)
        if parameters is not None:
            write_durably(parameters, strictjson.encode(said), mode=0o644)
        say(f"for names of {', '.join(domains)}, until {certificate.not_valid_after_utc:%Y-%m-%d}")
