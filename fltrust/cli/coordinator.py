"""`fltrust coordinator`: make a trust domain, serve it, add operators."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fltrust.cli.options import AsJson
from fltrust.cli.output import print_json, say

if TYPE_CHECKING:
    from fltrust.pki.pointers import PublicUrl

app = typer.Typer(
    help="The trust coordinator: certificate authority, trust feed, record.", no_args_is_help=True
)

Folder = Annotated[
    Path,
    typer.Option(
        "--folder",
        envvar="FLTRUST_COORDINATOR",
        help="Folder of the coordinator: CA, settings, database.",
    ),
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
RootPassphrase = Annotated[
    Path | None,
    typer.Option(
        envvar="FLTRUST_ROOT_PASSPHRASE_FILE",
        help="File (0600) with the passphrase of the root key. Without it, you are asked.",
        show_default=False,
    ),
]
_DEFAULT = Path("~/.fltrust/coordinator")


@app.command("init")
def init(
    trust_domain: Annotated[str, typer.Option(help="The name of the federation, e.g. hospitals.example.")],
    folder: Folder = _DEFAULT,
    operator: Annotated[
        str, typer.Option(help="Name of the first operator; its identity is put on this machine.")
    ] = ("admin"),
    bootstrap: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Where sites enroll (server authentication only).")
    ] = "127.0.0.1:8440",
    address: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Where everything else is served, with mutual TLS.")
    ] = "127.0.0.1:8441",
    public: Annotated[
        str,
        typer.Option(
            metavar="HOST:PORT",
            help="Where log, trust file and timestamps are served over plain HTTP; '' serves them nowhere.",
        ),
    ] = "127.0.0.1:8442",
    public_url: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Where certificates say that their status is published; '' says nothing of it. "
            "Default: http:// and --public.",
            show_default=False,
        ),
    ] = None,
    services: Annotated[
        str,
        typer.Option(
            metavar="HOST:PORT",
            help="Where ACME, EST, REST and the SPIFFE bundle are served over HTTPS; '' serves them nowhere. "
            "The host, if it is a name, stands in the coordinator's certificate.",
        ),
    ] = "",
    database: Annotated[
        str | None,
        typer.Option(
            help="PostgreSQL as postgresql+psycopg://…; default: SQLite in the folder.", show_default=False
        ),
    ] = None,
    pseudonyms: Annotated[
        bool,
        typer.Option(
            "--pseudonyms",
            help="Participants stand in the public log and lineage under keyed pseudonyms, for good.",
        ),
    ] = False,
    approvals: Annotated[
        int,
        typer.Option(
            min=0,
            help="Operators who approve a sensitive operation beside the one who proposes it; "
            "with one or more, operators are enrolled, and names taken over, by as many, too.",
        ),
    ] = 0,
    participant_lifetime: Annotated[
        str, typer.Option(help="How long a participant's certificate lives.")
    ] = "1h",
    key: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PURPOSE=URI",
            help="Use a key that is there ('fltrust keys generate') as root, issuing, tsa, ct or note key; "
            "the others are made, in files.",
            show_default=False,
        ),
    ] = None,
    passphrase_file: Passphrase = None,
    existing_ca: Annotated[
        bool,
        typer.Option(
            "--existing-ca", help="The CA is in the folder already, from an offline root ('ca request new')."
        ),
    ] = False,
    root_passphrase_file: RootPassphrase = None,
    as_json: AsJson = False,
) -> None:
    """Make a trust domain: a root and an issuing CA, the database, and the first operator.

    Refuses where there is one already. The addresses are what join tokens tell the sites.
    """
    from fltrust.cli.times import parse_duration
    from fltrust.coordinator.key_choices import KeyChoices
    from fltrust.coordinator.process import CoordinatorSettings, initialise
    from fltrust.enrollment.approvals import ApprovalPolicy
    from fltrust.identity import Name, Role, TrustDomain
    from fltrust.tlog.entries import PublicNames

    settings = CoordinatorSettings(
        domain=TrustDomain(trust_domain),
        bootstrap=bootstrap,
        address=address,
        public=public or None,
        services=services or None,
        public_url=_public_url(public_url, public),
        database=database,
        public_names=PublicNames.PSEUDONYMS if pseudonyms else PublicNames.SPIFFE,
        lifetimes={Role.PARTICIPANT: parse_duration(participant_lifetime)},
        approvals=ApprovalPolicy(operations=approvals, replace=approvals),
    )
    made = initialise(
        folder.expanduser(),
        settings,
        operator=Name(operator),
        root_passphrase=b"" if existing_ca else _passphrase(root_passphrase_file, "root key", confirm=True),
        issuing_passphrase=_passphrase(passphrase_file, "issuing key", confirm=not existing_ca),
        existing_ca=existing_ca,
        keys=KeyChoices.parse(key or ()),
    )
    if as_json:
        print_json(
            {"domain": trust_domain, "root": str(made.root), "operator_state": str(made.operator_state)}
        )
        return
    say(f"Made the trust domain {trust_domain} in {folder}.")
    say(f"  root      {made.root}")
    say(f"  operator  {operator}: {made.operator_state}")
    say(f"  sites     enroll at {bootstrap}, and reach everything else at {address}")
    if public:
        say(f"  public    log, trust file and timestamps at http://{public}")
    if not existing_ca:
        say("Keep root.key and its passphrase offline.")
    say("Next: fltrust coordinator serve")


@app.command("serve")
def serve(
    folder: Folder = _DEFAULT,
    passphrase_file: Passphrase = None,
) -> None:
    """Serve the trust domain until SIGTERM or Ctrl-C."""
    from fltrust.client.bundle_endpoint import fetch_bundle
    from fltrust.client.foreign import ForeignLink
    from fltrust.coordinator.federation.keeper import FederationLinks
    from fltrust.coordinator.process import serve as run

    links = FederationLinks(
        ForeignLink, lambda record, at, web_roots: fetch_bundle(record, at=at, web_roots=web_roots)
    )
    run(
        folder.expanduser(),
        issuing_passphrase=_passphrase(passphrase_file, "issuing key"),
        on_ready=say,
        links=links,
    )


@app.command("operator")
def operator(
    name: Annotated[str, typer.Argument(help="The operator's name.")],
    folder: Folder = _DEFAULT,
    passphrase_file: Passphrase = None,
    replace: Annotated[bool, typer.Option("--replace", help="Issue anew for a name that exists.")] = False,
) -> None:
    """Issue an operator's identity on this machine, without the network: the way back in.

    The coordinator must not be running. Operators elsewhere join with a token instead.
    """
    from fltrust.coordinator.process import issue_operator
    from fltrust.identity import Name

    state = issue_operator(
        folder.expanduser(),
        Name(name),
        issuing_passphrase=_passphrase(passphrase_file, "issuing key"),
        replace=replace,
    )
    say(f"Operator {name}: {state}")


@app.command("renew-ca")
def renew_ca(
    folder: Folder = _DEFAULT,
    root_passphrase_file: RootPassphrase = None,
) -> None:
    """Give the issuing CA, which lives a year, its next certificate from the root. The key stays.

    Needs root.key and its passphrase. Restart the coordinator afterwards; what was issued before stays valid.
    """
    from fltrust.clock import SystemClock
    from fltrust.pki import renew_issuing

    issuing = renew_issuing(
        folder.expanduser() / "ca",
        root_passphrase=_passphrase(root_passphrase_file, "root key"),
        clock=SystemClock(),
    )
    say(f"The issuing CA is valid until {issuing.not_valid_after_utc:%Y-%m-%d}. Restart the coordinator.")


def _public_url(given: str | None, public: str) -> PublicUrl | None:
    from fltrust.pki.pointers import PublicUrl

    if given is None:
        return PublicUrl.at(public) if public else None
    return PublicUrl.parse(given) if given else None


def _passphrase(path: Path | None, what: str, *, confirm: bool = False) -> bytes:
    if path is not None:
        from fltrust.agent.state import read_passphrase

        return read_passphrase(path.expanduser())
    return str(
        typer.prompt(f"Passphrase of the {what}", hide_input=True, confirmation_prompt=confirm)
    ).encode()
