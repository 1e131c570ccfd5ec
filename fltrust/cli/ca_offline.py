"""`fltrust ca offline` and `fltrust ca anchors`: for sites that are seldom connected."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fltrust.cli.ca_verify import MAX_CRL_FILE, read_parts
from fltrust.cli.options import AsJson
from fltrust.cli.output import print_json, say, text_of

if TYPE_CHECKING:
    from fltrust.anchors.offline import OfflineView
    from fltrust.pki.types import TrustBundle

offline = typer.Typer(
    help="Anchors, CAs and CRLs carried to a site that is seldom connected.", no_args_is_help=True
)
anchors = typer.Typer(help="Trust anchors replaced by what the old ones sign.", no_args_is_help=True)

Out = Annotated[Path, typer.Argument(help="The file to write.", show_default=False)]
Many = list[Path] | None


@offline.command()
def pack(
    out: Out,
    trust_domain: Annotated[str, typer.Option(help="The trust domain that it is for.")],
    certificate: Annotated[
        Many, typer.Option(help="CAs below the anchors, in PEM or DER. May be repeated.", show_default=False)
    ] = None,
    crl: Annotated[
        Many, typer.Option(help="CRLs, in PEM or DER. May be repeated.", show_default=False)
    ] = None,
    update: Annotated[
        Many,
        typer.Option(help="Signed updates of the anchors, in order. May be repeated.", show_default=False),
    ] = None,
) -> None:
    """Put CAs, CRLs and signed updates of the anchors into one file that anybody may carry."""
    from fltrust.anchors.offline import OfflineBundle
    from fltrust.anchors.update import MAX_UPDATE
    from fltrust.files import read_bounded, write_durably
    from fltrust.identity import TrustDomain
    from fltrust.pki.path import PathLimits

    limits = PathLimits()
    bundle = OfflineBundle(
        domain=TrustDomain(trust_domain),
        updates=tuple(read_bounded(path, limit=MAX_UPDATE) for path in update or ()),
        certificates=tuple(read_parts(certificate or (), "CERTIFICATE", limit=limits.certificates)),
        crls=tuple(read_parts(crl or (), "X509 CRL", limit=limits.crls, size=MAX_CRL_FILE)),
    )
    write_durably(out, bundle.to_json(), mode=0o644)


@offline.command()
def take(
    view: Annotated[Path, typer.Argument(help="The site's view; made anew with --trust.")],
    bundle: Annotated[Path, typer.Argument(help="The file that was carried here.", show_default=False)],
    trust: Annotated[
        Path | None,
        typer.Option(help="The trust bundle to begin with, where there is no view yet.", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Take in what is new and genuine; an older file, or a cut one, takes nothing away.

    Exits with 0 if it holds, whether it brought something or not; 3: an update of the anchors does not hold,
    or it is another domain's; 8: not what it should be.
    """
    from fltrust.anchors.offline import MAX_OFFLINE_BUNDLE, OfflineBundle, OfflineView
    from fltrust.clock import SystemClock
    from fltrust.errors import Conflict
    from fltrust.files import read_bounded, write_durably

    if trust is not None:
        if view.exists():
            raise Conflict(
                f"expected no view at {view} to begin one, found one", hint="leave out --trust to add to it"
            )
        before = OfflineView(bundle=_bundle(trust))
    else:
        before = _view(view)
    offered = OfflineBundle.from_json(read_bounded(bundle, limit=MAX_OFFLINE_BUNDLE))
    after = before.take(offered, at=SystemClock().now())
    write_durably(view, after.to_json())
    _tell(after, as_json=as_json)


@offline.command()
def status(
    view: Annotated[Path, typer.Argument(help="The site's view.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Tell what a site holds, and until when it is fresh."""
    _tell(_view(view), as_json=as_json)


@anchors.command()
def sign(
    out: Annotated[Path, typer.Argument(help="The update; one that is there gets one more signature.")],
    old: Annotated[Path, typer.Option(help="The trust bundle in force, in JSON.", show_default=False)],
    new: Annotated[
        Path, typer.Option(help="The trust bundle to come, of the next sequence.", show_default=False)
    ],
    key: Annotated[Path, typer.Option(help="The key of an old or new anchor.", show_default=False)],
    passphrase_file: Annotated[
        Path | None,
        typer.Option(
            envvar="FLTRUST_ROOT_PASSPHRASE_FILE",
            help="File (0600) with the key's passphrase.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Sign an update of the trust anchors: with keys of old ones, and of each new one, one by one."""
    from fltrust.anchors.update import (
        MAX_UPDATE,
        AnchorUpdate,
        add_signature,
        anchors_digest,
        read_update,
        sign_update,
    )
    from fltrust.clock import SystemClock
    from fltrust.enrollment.private import read_passphrase
    from fltrust.errors import Conflict
    from fltrust.files import read_bounded, write_durably
    from fltrust.keys.stored import load

    before, after = _bundle(old), _bundle(new)
    signer = load(key, passphrase=None if passphrase_file is None else read_passphrase(passphrase_file))
    if not out.exists():
        update = AnchorUpdate(bundle=after, previous=anchors_digest(before), issued_at=SystemClock().now())
        write_durably(out, sign_update(update, signers=[signer]), mode=0o644)
        return
    signed = read_bounded(out, limit=MAX_UPDATE)
    found = read_update(signed)
    if found.bundle != after or found.previous != anchors_digest(before):
        raise Conflict(
            f"expected an update from {old} to {new} in {out}, found another",
            hint="what is signed is what these two files say: ask who made the update",
        )
    write_durably(out, add_signature(signed, signer=signer), mode=0o644)


@anchors.command("apply")
def apply_(
    bundle: Annotated[Path, typer.Argument(help="The trust bundle in force, in JSON.", show_default=False)],
    updates: Annotated[list[Path], typer.Argument(help="Signed updates, in order.", show_default=False)],
    out: Annotated[
        Path | None,
        typer.Option(help="Where to write the new one. Default: in its place.", show_default=False),
    ] = None,
) -> None:
    """Put the anchors in force that the old ones signed for; more than half of them must have."""
    from fltrust.anchors.update import MAX_UPDATE, apply_updates
    from fltrust.clock import SystemClock
    from fltrust.files import read_bounded, write_durably
    from fltrust.pki.bundle import bundle_to_json

    signed = [read_bounded(path, limit=MAX_UPDATE) for path in updates]
    after = apply_updates(_bundle(bundle), signed, at=SystemClock().now())
    write_durably(out or bundle, bundle_to_json(after), mode=0o644)
    say(f"{after.domain}: anchors {after.sequence}, {len(after.roots)} of them")


def _tell(view: OfflineView, *, as_json: bool) -> None:
    told = {
        "trust_domain": str(view.bundle.domain),
        "sequence": view.bundle.sequence,
        "anchors": len(view.bundle.roots),
        "certificates": len(view.certificates),
        "crls": len(view.crls),
        "fresh_until": view.fresh_until,
    }
    if as_json:
        print_json(told)
        return
    for name, value in told.items():
        typer.echo(f"{name.replace('_', ' ')}: {text_of(value)}")


def _view(path: Path) -> OfflineView:
    from fltrust.anchors.offline import MAX_OFFLINE_VIEW, OfflineView
    from fltrust.files import read_bounded

    return OfflineView.from_json(read_bounded(path, limit=MAX_OFFLINE_VIEW))


def _bundle(path: Path) -> TrustBundle:
    from fltrust.files import read_bounded
    from fltrust.pki.bundle import MAX_BUNDLE, bundle_from_json

    return bundle_from_json(read_bounded(path, limit=MAX_BUNDLE))
