"""`fltrust join`, `supernode`, `superlink` and `status`: what a site runs."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Annotated

import typer

from fltrust.cli.options import AsJson, State
from fltrust.cli.output import print_rows, say
from fltrust.errors import Malformed
from fltrust.identity import Role
from fltrust.revocation.view import ReachMode, ReachPolicy

_READY_SECONDS = 30.0
_PASS_THROUGH = {"allow_extra_args": True, "ignore_unknown_options": False}
_MAX_TOKEN_INPUT = 4096
_NEXT = {Role.PARTICIPANT: "supernode -- …", Role.AGGREGATOR: "superlink -- …", Role.SIGNER: "sign PATH"}

Unreachable = Annotated[
    ReachMode,
    typer.Option(
        help="When the coordinator is out of reach: stop at --stale-after, at 20 times that, or never."
    ),
]
WorkloadApi = Annotated[
    Path | None,
    typer.Option(
        metavar="SOCKET",
        help="Serve the SPIFFE Workload API and Envoy's SDS on a unix socket at this path, to your own user "
        "alone: who may open it gets a certificate of this site's workload, with its key.",
        show_default=False,
    ),
]
StaleAfter = Annotated[str, typer.Option(help="How old the view of the trust feed may be, e.g. 30s.")]


def register(app: typer.Typer) -> None:
    app.command()(join)
    app.command()(status)
    app.command(context_settings=_PASS_THROUGH)(supernode)
    app.command(context_settings=_PASS_THROUGH)(superlink)


def join(
    token: Annotated[
        str | None,
        typer.Argument(help="What 'fltrust token create' printed; '-' or nothing reads standard input."),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(
            metavar="URI",
            help="The certificate's key, in an HSM or TPM ('fltrust keys generate'); it never leaves it.",
            show_default=False,
        ),
    ] = None,
    oidc_token_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Show a token of an OpenID Connect issuer instead.", show_default=False
        ),
    ] = None,
    tpm: Annotated[
        bool,
        typer.Option("--tpm", help="Show that --key tpm:file=… was made in this machine's TPM, instead."),
    ] = False,
    tpm_issuer: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="PEM",
            help="With --tpm: CAs between the endorsement certificate and its maker's root.",
            show_default=False,
        ),
    ] = None,
    with_certificate: Annotated[
        Path | None,
        typer.Option(
            metavar="PEM",
            help="Show a certificate of another CA, with its chain, instead; --with-key proves it is yours.",
            show_default=False,
        ),
    ] = None,
    with_key: Annotated[
        Path | None,
        typer.Option(metavar="PEM", help="The key of --with-certificate.", show_default=False),
    ] = None,
    bootstrap: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Without a token: the enrollment port.", show_default=False),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Without a token: the mTLS port.", show_default=False),
    ] = None,
    root: Annotated[
        Path | None,
        typer.Option(metavar="PEM", help="Without a token: the domain's root.", show_default=False),
    ] = None,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Join a federation: make the keys, prove they are yours, get the certificate.

    A token on the command line can be seen by other users of the machine while the command runs; standard
    input keeps it to yourself. In place of a token, evidence that a rule of the coordinator's knows earns a
    name: --oidc-token-file, or --with-certificate and --with-key, with --bootstrap, --address and --root.
    """
    from fltrust.agent.evidence import certificate_prover, introduction, oidc_prover, tpm_prover
    from fltrust.agent.join import join as enroll
    from fltrust.agent.state import passphrase_from_environment
    from fltrust.enrollment.token import decode_token
    from fltrust.keys.homes import open_key
    from fltrust.keys.tpm_uri import TpmUri

    prove = None
    if oidc_token_file is not None:
        prove = oidc_prover(oidc_token_file)
    elif with_certificate is not None and with_key is not None:
        prove = certificate_prover(with_certificate, with_key)
    if tpm and (key is None or not key.startswith("tpm:")):
        raise typer.BadParameter("expected --key tpm:file=… with --tpm: a key of this machine's TPM")
    if (oidc_token_file is not None) + (with_certificate is not None) + tpm > 1 or (
        (with_certificate is None) != (with_key is None)
    ):
        raise typer.BadParameter("expected --oidc-token-file, or --with-certificate together with --with-key")
    if prove is None and not tpm:
        where = decode_token(_read_token() if token in (None, "-") else str(token))
    elif token is not None or bootstrap is None or address is None or root is None:
        raise typer.BadParameter(
            "expected --bootstrap, --address and --root, and no token, with other evidence"
        )
    else:
        where = introduction(bootstrap, address, root)
        if tpm:
            prove = tpm_prover(where, TpmUri.parse(str(key)), tpm_issuer or ())
    joined = enroll(
        where,
        state,
        passphrase=passphrase_from_environment(),
        key=None if key is None else open_key(key),
        prove=prove,
    )
    _print_identity(joined.folder, as_json=as_json)
    if not as_json:
        next_one = _NEXT.get(joined.spiffe_id.role)
        say(f"Joined as {joined.spiffe_id}." + (f" Next: fltrust {next_one}" if next_one else ""))


def status(state: State = None, as_json: AsJson = False) -> None:
    """Show the identity in a state folder and until when its certificate is valid."""
    from fltrust.agent.state import default_home, list_states

    folders = list_states() if state is None else (state,)
    rows = [_identity_row(folder) for folder in folders]
    print_rows(rows, columns=_COLUMNS, as_json=as_json, empty=f"No identities under {default_home()}.")


def supernode(
    context: typer.Context,
    state: State = None,
    aggregator: Annotated[
        str | None,
        typer.Option(help="Speak only to the superlink of this aggregator.", show_default=False),
    ] = None,
    direct: Annotated[
        bool,
        typer.Option(
            "--direct", help="Give Flower's client our TLS context instead of relaying its traffic."
        ),
    ] = False,
    allow_uid: Annotated[
        list[int] | None,
        typer.Option(help="A uid that may use the agent's socket beside your own, e.g. the ClientApp's."),
    ] = None,
    host_domain: Annotated[
        str | None,
        typer.Option(
            metavar="DOMAIN",
            help="Take part in the rounds of this foreign trust domain, which your own federates with.",
            show_default=False,
        ),
    ] = None,
    workload_api: WorkloadApi = None,
    unreachable: Unreachable = ReachMode.HARD_FAIL,
    stale_after: StaleAfter = "30s",
) -> None:
    """Run a SuperNode under trust: fltrust supernode -- ARGUMENTS, which are flower-supernode's own.

    Starts the agent and, behind it, an unmodified flower-supernode. Pass --superlink HOST:PORT among
    Flower's arguments: it names the real superlink. TLS and node key options are fltrust's.
    """
    from fltrust.agent.host import AgentHost
    from fltrust.agent.state import find_state, passphrase_from_environment
    from fltrust.flower.supernode import run_supernode
    from fltrust.identity import Name, SpiffeId, TrustDomain

    host = AgentHost(
        state or find_state(Role.PARTICIPANT),
        passphrase=passphrase_from_environment(),
        policy=_reach(unreachable, stale_after),
        allowed_uids=None if not allow_uid else _with_own_uid(allow_uid),
        workload_socket=workload_api,
        host_domain=None if host_domain is None else TrustDomain(host_domain),
    )
    expected = None if aggregator is None else SpiffeId(host.acting_domain, Role.AGGREGATOR, Name(aggregator))
    code = run_supernode(context.args, host=host, aggregator=expected, mode="direct" if direct else "sidecar")
    raise typer.Exit(code)


def superlink(
    context: typer.Context,
    state: State = None,
    fleet: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Where SuperNodes connect, with mutual TLS.")
    ] = "0.0.0.0:9443",
    hold: Annotated[
        bool,
        typer.Option(
            help="Hold an empty pull until there is something: takes Flower's waits out of a round."
        ),
    ] = True,
    allow_uid: Annotated[
        list[int] | None,
        typer.Option(help="A uid that may use Control and Runtime beside your own, e.g. for 'flwr run'."),
    ] = None,
    workload_api: WorkloadApi = None,
    unreachable: Unreachable = ReachMode.HARD_FAIL,
    stale_after: StaleAfter = "30s",
) -> None:
    """Run a SuperLink under trust: fltrust superlink -- ARGUMENTS, which are flower-superlink's own.

    Flower's Control and Runtime APIs listen on loopback only (Flower's --host and --port); SuperNodes
    reach the Fleet API at --fleet, with a certificate of this trust domain.
    """
    from fltrust.agent.host import AgentHost
    from fltrust.agent.state import find_state, passphrase_from_environment
    from fltrust.flower.superlink import SuperlinkOptions, run_superlink

    fleet_host, _, port = fleet.rpartition(":")
    if not fleet_host or not port.isdigit() or not 0 <= int(port) < 65536:
        raise Malformed(f"expected --fleet HOST:PORT, got {fleet[:80]!r}")
    options = SuperlinkOptions(
        fleet_host=fleet_host.strip("[]"), fleet_port=int(port), allowed_uids=frozenset(allow_uid or ())
    )
    if not hold:
        options = dataclasses.replace(options, hold_seconds=0.0)
    host = AgentHost(
        state or find_state(Role.AGGREGATOR),
        passphrase=passphrase_from_environment(),
        policy=_reach(unreachable, stale_after),
        workload_socket=workload_api,
    )
    with host:
        host.wait_ready(_READY_SECONDS)
        run_superlink(context.args, host=host, options=options)


_COLUMNS = {"spiffe_id": "IDENTITY", "serial": "CERTIFICATE", "not_after": "VALID UNTIL", "state": "STATE"}


def _read_token() -> str:
    """One line of standard input; asks for it where a person sits there."""
    if sys.stdin.isatty():
        say("Paste the join token, then Enter:")
    return sys.stdin.readline(_MAX_TOKEN_INPUT)


def _print_identity(folder: Path, *, as_json: bool) -> None:
    print_rows([_identity_row(folder)], columns=_COLUMNS, as_json=as_json, empty="")


def _identity_row(folder: Path) -> dict[str, object]:
    from fltrust.agent.state import AgentState
    from fltrust.identity import KeyId, Serial
    from fltrust.keys.openssh import spki_der
    from fltrust.pki.leaf import read_leaf

    opened = AgentState.open(folder)
    leaf = opened.load_chain()[0]
    return {
        "spiffe_id": str(opened.spiffe_id),
        "serial": Serial(leaf.serial_number).hex,
        "key": str(KeyId.of_spki(spki_der(read_leaf(leaf).public_key))),
        "not_after": leaf.not_valid_after_utc,
        "coordinator": opened.record.address,
        "node_key": opened.record.node_key,
        "state": str(folder),
    }


def _reach(mode: ReachMode, stale_after: str) -> ReachPolicy:
    from fltrust.cli.times import parse_duration

    bound = parse_duration(stale_after)
    return ReachPolicy(mode, bound, 20 * bound)


def _with_own_uid(others: list[int]) -> frozenset[int]:
    import os

    return frozenset({os.geteuid(), *others})
