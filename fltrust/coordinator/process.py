"""The coordinator, put together from its folder: made once, served, and opened for the operator at hand.

The one module of this room that knows storage.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography import x509

from fltrust.clock import Clock, SystemClock
from fltrust.coordinator.authority import Authority
from fltrust.coordinator.ca import CurrentCa
from fltrust.coordinator.ca_home import CaFolder
from fltrust.coordinator.folder import (
    NAMING_KEY_FILE,
    PROFILES_FILE,
    SETTINGS_FILE,
    CoordinatorSettings,
    read_settings,
    write_settings,
)
from fltrust.coordinator.identity import IdentityKeeper
from fltrust.coordinator.key_choices import KeyChoices
from fltrust.coordinator.key_destruction import DestructionReason, destroy_and_record
from fltrust.coordinator.key_usage import KeyUsageReports
from fltrust.coordinator.notary import make_notary_keys, open_notary
from fltrust.coordinator.public_modules import PublicModule
from fltrust.coordinator.public_names import PublicNaming, load_naming, make_naming_key
from fltrust.coordinator.status.office import PublishedElsewhere
from fltrust.enrollment.homes import state_folder
from fltrust.enrollment.mackeys import open_mac_keys
from fltrust.enrollment.private import passphrase_from_environment
from fltrust.enrollment.state import AgentRecord, StateDraft
from fltrust.errors import Conflict, FltrustError
from fltrust.files import make_private_folder
from fltrust.identity import Digest, KeyId, Name, Role
from fltrust.pki import init_ca, load_bundle, load_issuer, root_fingerprint
from fltrust.pki.profile_file import read_narrowed
from fltrust.pki.profiles import Profiles, builtin
from fltrust.pki.rollover import load_cross_certificates, load_former_roots, load_retired_issuers
from fltrust.pki.root_revocation import load_root_crls
from fltrust.pki.types import TrustBundle
from fltrust.pki.upstream import UpstreamIssuer, open_upstream
from fltrust.storage import open_store
from fltrust.tlog.entries import PublicNames
from fltrust.tlog.keyacts import KeyDestroyed

if TYPE_CHECKING:
    from fltrust.coordinator.federation.keeper import FederationLinks

__all__ = ["CoordinatorSettings", "Made", "initialise", "issue_operator", "serve"]


@dataclass(frozen=True, slots=True)
class Made:
    """A new trust domain: its root's fingerprint, and where the first operator's state lies."""

    root: Digest
    operator_state: Path


def initialise(
    folder: Path,
    settings: CoordinatorSettings,
    *,
    operator: Name,
    root_passphrase: bytes,
    issuing_passphrase: bytes,
    keys: KeyChoices | None = None,
    clock: Clock | None = None,
    existing_ca: bool = False,
) -> Made:
    """Make a trust domain in `folder`: CA, notary's keys, database, settings, first operator.

    `keys` that are given are used, wherever they lie; the others are made, in files. With `existing_ca` the
    CA is there already, complete (`fltrust.pki.offline_root`), and nothing of its root is needed.

    Refuses (`Conflict`) a folder that holds a trust domain: a root that is made again in silence would
    orphan every site. A folder without settings, left by an interruption, holds none and can be removed;
    with settings and without an operator, `issue_operator` finishes it.
    """
    clock, keys = clock or SystemClock(), keys or KeyChoices()
    make_private_folder(folder)
    if (folder / SETTINGS_FILE).exists():
        raise Conflict(
            f"expected no trust domain in {folder}, found one",
            reason="already-initialised",
            hint="choose another --folder; a root is made once",
        )
    if existing_ca:
        bundle = load_bundle(folder / "ca")
        load_issuer(folder / "ca", passphrase=issuing_passphrase, clock=clock)
        if bundle.domain != settings.domain:
            raise Conflict(f"expected a CA of {settings.domain} in {folder / 'ca'}, found {bundle.domain}'s")
    else:
        bundle = init_ca(
            folder / "ca",
            settings.domain,
            root_passphrase=root_passphrase,
            issuing_passphrase=issuing_passphrase,
            clock=clock,
            root_signer=keys.root_key(),
            issuing_signer=keys.issuing_key(),
            public_url=settings.public_url,
        )
    if settings.public_names is PublicNames.PSEUDONYMS:
        make_naming_key(folder / NAMING_KEY_FILE, passphrase=issuing_passphrase)
    make_notary_keys(folder, passphrase=issuing_passphrase, keys=keys)
    write_settings(folder, settings)
    state = issue_operator(folder, operator, issuing_passphrase=issuing_passphrase, clock=clock)
    return Made(root_fingerprint(bundle.roots[0]), state)


def issue_operator(
    folder: Path,
    name: Name,
    *,
    issuing_passphrase: bytes,
    replace: bool = False,
    clock: Clock | None = None,
) -> Path:
    """Enroll an operator from this machine and write its state under ``FLTRUST_HOME``; returns where.

    `Conflict` while the coordinator runs, and for a name that is enrolled unless `replace`.
    """
    with _opened(folder, issuing_passphrase, clock or SystemClock()) as (authority, _):
        settings = authority.settings
        signer, issued = authority.bootstrap_operator(name, replace=replace)
        target = state_folder(issued.spiffe_id)
        record = AgentRecord(issued.spiffe_id, settings.address, settings.bootstrap, None)
        with StateDraft(target.parent) as draft:
            state = draft.finish(
                target,
                record,
                signer=signer,
                chain=[x509.load_der_x509_certificate(der) for der in issued.chain_der],
                bundle=issued.bundle,
                passphrase=passphrase_from_environment(),
                replace=True,
            )
    return state.folder


def destroy_key(
    folder: Path,
    uri: str,
    *,
    reason: DestructionReason,
    expect: KeyId | None,
    issuing_passphrase: bytes,
    clock: Clock | None = None,
) -> KeyDestroyed:
    """Destroy a key and record it in the log of the coordinator in `folder`, which must not be running."""
    with _opened(folder, issuing_passphrase, clock or SystemClock()) as (authority, _):
        return destroy_and_record(authority, uri, reason=reason, expect=expect)


def serve(
    folder: Path,
    *,
    issuing_passphrase: bytes,
    on_ready: Callable[[str], None] | None = None,
    clock: Clock | None = None,
    links: FederationLinks | None = None,
) -> None:
    """Serve the trust domain in `folder` until SIGTERM or SIGINT.

    `links` reach the coordinators of foreign domains; without them nobody of those is let in.
    """
    from fltrust.coordinator.federation.keeper import FederationKeeper
    from fltrust.coordinator.server import CoordinatorServer
    from fltrust.coordinator.serving import ServerSettings

    settings = read_settings(folder)
    listening = ServerSettings(
        bootstrap=settings.listen_bootstrap or settings.bootstrap,
        address=settings.listen or settings.address,
        public=settings.listen_public or settings.public,
        services=settings.listen_services or settings.services,
        services_name=settings.services,
        acme=settings.acme,
        public_modules=_public_modules(
            folder, settings, passphrase=issuing_passphrase, clock=clock or SystemClock()
        ),
        witnesses=settings.witnesses,
    )
    where = f"enrollment on {listening.bootstrap}, everything else on {listening.address}"
    if listening.public is not None:
        where += f", log and trust file on http://{listening.public}"
    if listening.services is not None:
        where += f", services on https://{listening.services_name}"

    def ready() -> None:
        if on_ready is not None:
            on_ready(f"{settings.domain}: {where}")

    opened = _opened(folder, issuing_passphrase, clock or SystemClock())
    with ExitStack() as stack:
        authority, keeper = stack.enter_context(opened)
        stack.enter_context(KeyUsageReports(authority.key_usage))
        if links is not None:
            federation = FederationKeeper(
                authority,
                keeper,
                links,
                clock=clock or SystemClock(),
                web_roots=settings.federation.web_roots_in(folder),
            )
            federation.start()
            stack.callback(federation.stop)
        CoordinatorServer(authority, keeper, settings=listening).run_forever(ready)


def _public_modules(
    folder: Path, settings: CoordinatorSettings, *, passphrase: bytes, clock: Clock
) -> tuple[PublicModule, ...]:
    """The protocols that an operator switched on."""
    from fltrust.coordinator.cmp.pages import cmp_routes
    from fltrust.coordinator.scep.pages import scep_module
    from fltrust.coordinator.scep.recipient import open_recipient

    modules: list[PublicModule] = [cmp_routes] if settings.protocols.cmp else []
    if settings.protocols.scep:
        recipient = open_recipient(folder, settings.domain, passphrase=passphrase, clock=clock)
        modules.append(scep_module(recipient, is_legacy_taken=settings.protocols.scep_legacy))
    return tuple(modules)


def _naming(folder: Path, settings: CoordinatorSettings, passphrase: bytes) -> PublicNaming:
    if settings.public_names is PublicNames.SPIFFE:
        return PublicNaming()
    return load_naming(folder / NAMING_KEY_FILE, passphrase=passphrase)


def _upstream(
    settings: CoordinatorSettings, bundle: TrustBundle, profiles: Profiles
) -> UpstreamIssuer | None:
    if settings.upstream is None:
        return None
    from fltrust.coordinator.vault import VaultMount

    return open_upstream(VaultMount(settings.upstream), roots=bundle.roots, profiles=profiles)


@contextmanager
def _opened(
    folder: Path, issuing_passphrase: bytes, clock: Clock
) -> Iterator[tuple[Authority, IdentityKeeper]]:
    settings = read_settings(folder)
    profiles = read_narrowed(folder / PROFILES_FILE, builtin())
    issuer = load_issuer(
        folder / "ca",
        passphrase=issuing_passphrase,
        clock=clock,
        profiles=profiles,
        public_url=settings.public_url,
    )
    bundle = load_bundle(folder / "ca")
    ca = CurrentCa(
        issuer,
        bundle,
        upstream=_upstream(settings, bundle, profiles),
        cross=load_cross_certificates(folder / "ca"),
        former=load_former_roots(folder / "ca"),
    )
    with open_store(settings.database_url(folder)) as store:
        # Under the database's lock: nobody else makes or renews these.
        notary = open_notary(folder, ca, passphrase=issuing_passphrase, clock=clock)
        keeper = IdentityKeeper(
            ca,
            clock=clock,
            lifetime=settings.lifetimes.get(Role.COORDINATOR),
            dns_names=settings.served_names(),
        )
        identity = keeper.current
        authority = Authority(
            store=store,
            ca=ca,
            signer=identity.signer,
            chain=identity.chain_der,
            notary=notary,
            names=_naming(folder, settings, issuing_passphrase),
            mac_keys=open_mac_keys(folder, passphrase=issuing_passphrase),
            checkers=settings.evidence.checkers(folder, settings.domain, clock=clock),
            clock=clock,
            settings=settings.for_authority(profiles),
            home=CaFolder(
                folder / "ca",
                passphrase=issuing_passphrase,
                clock=clock,
                profiles=profiles,
                public_url=settings.public_url,
            ),
            published=PublishedElsewhere(
                retired=load_retired_issuers(
                    folder / "ca",
                    passphrase=issuing_passphrase,
                    at=clock.now(),
                    public_url=settings.public_url,
                ),
                root_crls=lambda: load_root_crls(folder / "ca"),
            ),
        )
        present = keeper.current
        if present is not identity:  # a CA took over that a crash had kept from it
            authority.use_identity(present.signer, present.chain_der)
        try:
            yield authority, keeper
        finally:
            with suppress(FltrustError), authority.ledger.writing() as work:
                authority.presence.write(work)
