"""`fltrust federation`: trust domains that take part in each other's rounds, each under its own CA."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fltrust.cli.options import AsJson, State
from fltrust.cli.output import Row, print_rows, say
from fltrust.cli.propose import Reason, Within
from fltrust.cli.session import operator_session
from fltrust.errors import Malformed, NotFound

if TYPE_CHECKING:
    from fltrust.client.coordinator import CoordinatorClient
    from fltrust.enrollment.foreign import ForeignDomain
    from fltrust.pki.types import TrustBundle
    from fltrust.wire.federation import ShownDomain

app = typer.Typer(
    help="Federation with other trust domains, each of which keeps its own CA.", no_args_is_help=True
)

Domain = Annotated[str, typer.Argument(metavar="DOMAIN", help="The other trust domain, e.g. clinic.example.")]
Lend = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME",
        help="A participant of ours that may take part in its rounds; its coordinator is told how it stands.",
        show_default=False,
    ),
]

_MAX_KEY_FILE = 4096
_COLUMNS = {
    "domain": "DOMAIN",
    "state": "STATE",
    "sequence": "BUNDLE",
    "coordinator": "COORDINATOR",
    "lent": "LENT",
}


@app.command("federate")
def federate(
    domain: Domain,
    bundle: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="Its bundle, as its operators gave it: what 'fltrust federation bundle' wrote.",
        ),
    ],
    coordinator: Annotated[str, typer.Option(metavar="HOST:PORT", help="Its coordinator's mTLS port.")],
    endpoint: Annotated[str, typer.Option(metavar="URL", help="Where it publishes its bundle.")],
    reason: Reason,
    profile: Annotated[str, typer.Option(help="How that proves who it is: https_spiffe or https_web.")] = (
        "https_spiffe"
    ),
    endpoint_id: Annotated[
        str | None,
        typer.Option(
            metavar="SPIFFE_ID",
            help="With https_spiffe, who must answer there; by default its coordinator.",
            show_default=False,
        ),
    ] = None,
    lend: Lend = None,
    within: Within = "1d",
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Federate with another domain, or change what was agreed: a sensitive operation.

    Nobody of that domain is let in by this: 'fltrust federation admit' does that, one by one. Compare the
    fingerprint of its root with its operators before you sign.
    """
    from fltrust.cli.propose import propose, tell
    from fltrust.enrollment.foreign import FEDERATE, BundleProfile, ForeignDomain
    from fltrust.identity import Name, TrustDomain
    from fltrust.pki import root_fingerprint

    try:
        chosen = BundleProfile(profile)
    except ValueError:
        raise typer.BadParameter("expected --profile https_spiffe or https_web") from None
    by_spiffe = chosen is BundleProfile.HTTPS_SPIFFE
    record = ForeignDomain(
        bundle=_read_bundle(bundle, TrustDomain(domain)),
        address=coordinator,
        endpoint_url=endpoint,
        profile=chosen,
        endpoint_spiffe_id=(endpoint_id or f"spiffe://{domain}/coordinator") if by_spiffe else endpoint_id,
        lent=frozenset(map(Name, lend or ())),
    )
    if not as_json:
        for root in record.bundle.roots:
            say(f"root of {domain}: {root_fingerprint(root)}")
    with operator_session(state) as (client, me):
        done = propose(client, me, FEDERATE, record.to_parameters(), reason=reason, within=within)
    tell(done, f"Federated with {domain}. Next: fltrust federation admit SPIFFE_ID", as_json=as_json)


@app.command("lend")
def lend(
    name: Annotated[str, typer.Argument(help="A participant of ours.")],
    to: Annotated[str, typer.Option(metavar="DOMAIN", help="The domain in whose rounds it may take part.")],
    reason: Reason,
    end: Annotated[bool, typer.Option("--end", help="Lend it no longer.")] = False,
    within: Within = "1d",
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Let a participant of ours take part in another domain's rounds: what was agreed, with one name more.

    Its coordinator is told from then on how that participant stands. There it must be admitted.
    """
    from fltrust.cli.propose import propose, tell
    from fltrust.enrollment.foreign import FEDERATE
    from fltrust.identity import Name

    with operator_session(state) as (client, me):
        record = _record_of(client, to)
        names = record.lent - {Name(name)} if end else record.lent | {Name(name)}
        changed = replace(record, lent=names).to_parameters()
        done = propose(client, me, FEDERATE, changed, reason=reason, within=within)
    tell(done, f"{name} is {'no longer ' if end else ''}lent to {to}.", as_json=as_json)


@app.command("admit")
def admit(
    participant: Annotated[
        str, typer.Argument(metavar="SPIFFE_ID", help="spiffe://DOMAIN/participant/NAME.")
    ],
    node_key: Annotated[
        Path,
        typer.Option(
            metavar="FILE", help="Its Flower node key's public half, 'node.key.pub', from its site."
        ),
    ],
    reason: Reason,
    within: Within = "1d",
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Admit a participant of a domain that ours is federated with: a sensitive operation.

    From then on its name and node key stand in our trust feed. Its own domain goes on certifying it.
    """
    from fltrust.cli.propose import propose, tell
    from fltrust.enrollment.foreign import ADMIT_FOREIGN, ForeignParticipant
    from fltrust.identity import SpiffeId

    asked = ForeignParticipant(SpiffeId.parse(participant), _read_node_key(node_key))
    with operator_session(state) as (client, me):
        done = propose(client, me, ADMIT_FOREIGN, asked.to_parameters(), reason=reason, within=within)
    tell(done, f"Admitted {asked.who}.", as_json=as_json)


@app.command("end")
def end(
    domain: Domain, reason: Reason, within: Within = "1d", state: State = None, as_json: AsJson = False
) -> None:
    """End federation with a domain: nobody of it is let in any more. What was sealed stays verifiable."""
    from fltrust.cli.propose import propose, tell
    from fltrust.enrollment.foreign import END_FEDERATION
    from fltrust.identity import TrustDomain

    with operator_session(state) as (client, me):
        parameters = {"domain": str(TrustDomain(domain))}
        done = propose(client, me, END_FEDERATION, parameters, reason=reason, within=within)
    tell(done, f"Federation with {domain} has ended.", as_json=as_json)


@app.command("list")
def list_(state: State = None, as_json: AsJson = False) -> None:
    """Show the domains that ours federates with."""
    with operator_session(state) as (client, _):
        rows = [_row(shown) for shown in client.list_foreign()]
    print_rows(rows, columns=_COLUMNS, as_json=as_json, empty="No other domains.")


@app.command("bundle")
def bundle(
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write it there.", show_default=False)
    ] = None,
    state: State = None,
) -> None:
    """Write our own domain's bundle as SPIFFE publishes it, a JWK Set: for another domain's operators."""
    from fltrust.files import write_durably
    from fltrust.pki import root_fingerprint
    from fltrust.pki.jwks import DEFAULT_REFRESH, publish

    with operator_session(state) as (client, _):
        ours = client.get_bundle()
    data = publish(ours, refresh=DEFAULT_REFRESH)
    if out is None:
        typer.echo(data.decode())
    else:
        write_durably(out, data + b"\n", mode=0o644)
    for root in ours.roots:
        say(f"root of {ours.domain}: {root_fingerprint(root)}")


def _record_of(client: CoordinatorClient, domain: str) -> ForeignDomain:
    for shown in client.list_foreign():
        if shown.record.domain == domain and not shown.record.has_ended:
            return shown.record
    raise NotFound(f"{domain} is not federated with", hint="list who is: fltrust federation list")


def _row(shown: ShownDomain) -> Row:
    record = shown.record
    return {
        "domain": str(record.domain),
        "state": "ended" if record.has_ended else "on hold" if shown.is_held else "followed",
        "sequence": record.bundle.sequence,
        "coordinator": record.address,
        "endpoint": record.endpoint_url,
        "profile": record.profile.value,
        "endpoint_id": record.endpoint_spiffe_id,
        "lent": sorted(record.lent),
    }


def _read_bundle(path: Path, domain: object) -> TrustBundle:
    """Read a JWK Set, or a bundle of ours in JSON."""
    from fltrust.files import read_bounded
    from fltrust.identity import TrustDomain
    from fltrust.pki import bundle_from_json
    from fltrust.pki.bundle import BUNDLE_TYPE, MAX_BUNDLE
    from fltrust.pki.jwks import bundle_from_jwks

    wanted = TrustDomain(str(domain))
    data = read_bounded(path, limit=MAX_BUNDLE)
    if BUNDLE_TYPE.encode() in data:
        found = bundle_from_json(data)
    else:
        found = bundle_from_jwks(data, domain=wanted).bundle
    if found.domain != wanted:
        raise Malformed(f"expected the bundle of {wanted} in {path}, found that of {found.domain}")
    return found


def _read_node_key(path: Path) -> bytes:
    """A public key as OpenSSH writes it, as SubjectPublicKeyInfo."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_ssh_public_key

    from fltrust.files import read_bounded
    from fltrust.keys import spki_der
    from fltrust.keys.verify import is_p256

    try:
        key = load_ssh_public_key(read_bounded(path, limit=_MAX_KEY_FILE))
    except (ValueError, UnsupportedAlgorithm):
        raise Malformed(
            f"expected a public key as OpenSSH writes it in {path}, found something else",
            hint="it is node.key.pub in the participant's state folder",
        ) from None
    if not is_p256(key):
        raise Malformed(f"expected a node key on P-256 in {path}, found a key of another kind")
    return spki_der(key)
