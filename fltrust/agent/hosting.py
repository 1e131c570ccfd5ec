"""A participant in another domain's rounds: its certificates are its own domain's, its instructions theirs.

Its agent renews at its own coordinator, as ever. What it verifies, and whose feed it acts on, is the host's:
its aggregators, its coordinator, under the roots of its domain alone.
"""

from __future__ import annotations

import json
import logging
import ssl
import threading
from dataclasses import dataclass
from pathlib import Path

from fltrust.agent.credentials import Credentials as Pair
from fltrust.agent.credentials import CredentialStore, client_context
from fltrust.agent.foreign import ForeignDesk
from fltrust.client import CoordinatorClient
from fltrust.enrollment.private import read_private
from fltrust.errors import Conflict, FltrustError, Malformed, NotFound
from fltrust.files import write_durably
from fltrust.identity import Role, SpiffeId, TrustDomain
from fltrust.keys import Signer
from fltrust.pki import TrustBundle, VerifiedCertificate, bundle_from_json, bundle_to_json
from fltrust.pki.bundle import MAX_BUNDLE
from fltrust.revocation.events import EventKind, TrustEvent

_log = logging.getLogger("fltrust.agent")

_MAX_RECORD = 2 * MAX_BUNDLE
_VERSION = 1


@dataclass(frozen=True, slots=True)
class HostRecord:
    """Where the host's coordinator answers, and its roots."""

    address: str
    bundle: TrustBundle

    @property
    def domain(self) -> TrustDomain:
        return self.bundle.domain

    def save(self, path: Path) -> None:
        fields = {
            "version": _VERSION,
            "address": self.address,
            "bundle": bundle_to_json(self.bundle).decode(),
        }
        write_durably(path, json.dumps(fields, indent=1).encode() + b"\n")

    @classmethod
    def load(cls, path: Path) -> HostRecord:
        """Read what `save` wrote; `Malformed` for anything else."""
        try:
            fields = json.loads(read_private(path, limit=_MAX_RECORD))
        except (ValueError, RecursionError):
            raise Malformed(f"expected {path} to be JSON, found something else") from None
        if not isinstance(fields, dict) or fields.get("version") != _VERSION:
            raise Malformed(f"expected {path} of version {_VERSION}, found another")
        address, bundle = fields.get("address"), fields.get("bundle")
        if not isinstance(address, str) or not isinstance(bundle, str):
            raise Malformed(f"expected address and bundle in {path}")
        return cls(address, bundle_from_json(bundle.encode()))


def find_host(domain: TrustDomain, *, folder: Path, desk: ForeignDesk) -> HostRecord:
    """The host's record: as our own coordinator tells it now, or as it was kept, where that is away.

    `NotFound` where our coordinator does not lend us to that domain. A bundle is never set back.
    """
    path = folder / f"host-{domain}.json"
    kept = HostRecord.load(path) if path.exists() else None
    try:
        shown = desk.list_foreign()
    except FltrustError as error:
        if kept is None:
            raise
        _log.warning("going on with what is kept of %s: %s", domain, error)
        return kept
    for one in shown:
        if one.record.domain == domain and not one.record.has_ended:
            bundle = one.record.bundle
            if kept is not None and kept.bundle.sequence > bundle.sequence:
                bundle = kept.bundle
            record = HostRecord(one.record.address, bundle)
            record.save(path)
            return record
    raise NotFound(
        f"our coordinator does not lend this participant to {domain}",
        hint="its operators federate with that domain, and name whom they lend: fltrust federation --help",
    )


@dataclass(frozen=True, slots=True)
class HostedPair:
    """Our key and certificate, and the host's roots: what is shown there, and trusted there."""

    own: Pair
    bundle: TrustBundle

    @property
    def certificate(self) -> VerifiedCertificate:
        return self.own.certificate

    @property
    def chain_pem(self) -> bytes:
        return self.own.chain_pem

    @property
    def key_pem(self) -> bytes:
        return self.own.key_pem

    @property
    def hardware_signer(self) -> Signer | None:
        return self.own.hardware_signer


class HostedCredentials:
    """What a relay and a client of the host's need: `CredentialStore`'s pair under the host's roots."""

    def __init__(self, store: CredentialStore, record: HostRecord, *, folder: Path) -> None:
        if record.domain == store.spiffe_id.domain or store.spiffe_id.role is not Role.PARTICIPANT:
            raise Conflict(
                f"expected a participant and another domain than its own, got {store.spiffe_id} and "
                f"{record.domain}"
            )
        self._store = store
        self._path = folder / f"host-{record.domain}.json"
        self._record = record
        self._lock = threading.Lock()
        self._contexts: tuple[HostedPair, ssl.SSLContext, ssl.SSLContext] | None = None

    @property
    def record(self) -> HostRecord:
        return self._record

    @property
    def bundle(self) -> TrustBundle:
        return self._record.bundle

    @property
    def spiffe_id(self) -> SpiffeId:
        return self._store.spiffe_id

    @property
    def current(self) -> HostedPair:
        return HostedPair(self._store.current, self._record.bundle)

    def ssl_client_context(self, *, check_name: bool = True) -> ssl.SSLContext:
        """A TLS 1.3 context that shows our certificate and trusts the host's bundle alone."""
        now = self.current
        with self._lock:
            if self._contexts is None or self._contexts[0] != now:
                named = client_context(now.own, now.bundle)
                any_name = client_context(now.own, now.bundle, check_name=False)
                self._contexts = (now, named, any_name)
            return self._contexts[1] if check_name else self._contexts[2]

    def take_bundle(self, bundle: TrustBundle) -> bool:
        """Take a newer bundle of the host's, that came over a channel which the present one authenticated."""
        with self._lock:
            record = self._record
            if bundle.domain != record.domain or bundle.sequence <= record.bundle.sequence:
                return False
            self._record = HostRecord(record.address, bundle)
            self._contexts = None
        self._record.save(self._path)
        return True


class HostRoots:
    """Follows the host's roots: its feed tells of a change, its coordinator is asked for it."""

    def __init__(self, credentials: HostedCredentials, client: CoordinatorClient) -> None:
        self._credentials = credentials
        self._client = client

    def heed(self, event: TrustEvent) -> None:
        """Take one event in; returns at once."""
        bundle = self._credentials.bundle
        if (
            event.kind is EventKind.BUNDLE_CHANGED
            and event.domain == bundle.domain
            and (event.sequence or 0) > bundle.sequence
        ):
            threading.Thread(target=self._fetch, name="fltrust-host-roots", daemon=True).start()

    def _fetch(self) -> None:
        try:
            if self._credentials.take_bundle(self._client.get_bundle()):
                _log.info("%s has other roots", self._credentials.record.domain)
        except FltrustError as error:
            _log.warning("could not fetch the roots of %s: %s", self._credentials.record.domain, error)
