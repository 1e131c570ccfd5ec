"""The coordinator's folder and its settings file, read once when the process is put together.

coordinator.toml   what `init` was told; edit it with the coordinator stopped
ca/                root.pem, root.key, issuing.pem, issuing.key
profiles.toml      where it is there: the operator's narrower certificate profiles (`pki.profile_file`)
names.key          with pseudonyms: the key that makes and opens them
enrollment.key     what the shared keys of enrollment protocols are derived from (`enrollment.mackeys`)
log/, tsa/         keys of the log and the timestamp authority (`fltrust.coordinator.notary`)
state.db           the database, unless the settings name another
"""

from __future__ import annotations

import ipaddress
import re
import tomllib
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from fltrust.coordinator.acme_settings import AcmeSettings
from fltrust.coordinator.approvals_settings import policy_from_table, policy_to_toml
from fltrust.coordinator.evidence_settings import EvidenceSettings
from fltrust.coordinator.federation_settings import FederationSettings
from fltrust.coordinator.protocol_settings import ProtocolSettings
from fltrust.coordinator.settings import DEFAULT_GRACE, AuthoritySettings, WitnessSetting
from fltrust.coordinator.status_settings import StatusSettings
from fltrust.coordinator.upstream_settings import UpstreamSettings
from fltrust.enrollment.approvals import ApprovalPolicy
from fltrust.errors import Malformed
from fltrust.files import read_bounded, write_durably
from fltrust.identity import Role, TrustDomain
from fltrust.pki.leaf import is_dns_name
from fltrust.pki.pointers import PublicUrl
from fltrust.pki.profiles import Profiles, builtin
from fltrust.tlog.entries import PublicNames

SETTINGS_FILE = "coordinator.toml"
NAMING_KEY_FILE = "names.key"
PROFILES_FILE = "profiles.toml"
_MAX_SETTINGS = 64 * 1024
_VERSION = 1
_MAX_GRACE = 30 * 24 * 3600
_KEYS = {
    "version",
    "trust-domain",
    "bootstrap",
    "address",
    "listen-bootstrap",
    "listen",
    "public",
    "listen-public",
    "public-url",
    "services",
    "listen-services",
    "witnesses",
    "public-names",
    "database",
    "lifetimes",
    "lapsed-grace",
    "status",
    "approvals",
    "evidence",
    "protocols",
    "upstream",
    "acme",
    "federation",
}
_PLAIN = re.compile(r"[^\x00-\x1f\"\\\x7f]*\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class CoordinatorSettings:
    """What stands in `coordinator.toml`.

    `bootstrap` and `address` are ``host:port`` as sites reach them, and go into join tokens; the `listen`
    pair says where to listen if that differs. `public` is where log, trust file and timestamps are served
    over plain HTTP; None serves them to nobody but callers of `address`. `services` is where other protocols
    (ACME, EST, REST, the SPIFFE bundle) are served over HTTPS; None serves them to nobody. Its host, if it is
    a name, stands in the coordinator's certificate. `witnesses` are asked to cosign the
    public log. `public_names` says under which names participants stand in the log, for good. `database` of
    None is SQLite in the folder.
    """

    domain: TrustDomain
    bootstrap: str
    address: str
    listen_bootstrap: str | None = None
    listen: str | None = None
    public: str | None = None
    listen_public: str | None = None
    public_url: PublicUrl | None = None
    """Where certificates say that their status is published; None: they say nothing of it."""
    services: str | None = None
    listen_services: str | None = None
    witnesses: tuple[WitnessSetting, ...] = ()
    public_names: PublicNames = PublicNames.SPIFFE
    database: str | None = None
    lifetimes: dict[Role, timedelta] = field(default_factory=dict)
    lapsed_grace: timedelta = DEFAULT_GRACE
    """For how long a certificate that ran out brings a node back that was off; 0 for never."""
    approvals: ApprovalPolicy = field(default_factory=ApprovalPolicy)
    evidence: EvidenceSettings = field(default_factory=EvidenceSettings)
    """Rules for tokens and certificates of others; written by hand."""
    status: StatusSettings = field(default_factory=StatusSettings)
    """How long what is said of revocation is good."""
    protocols: ProtocolSettings = field(default_factory=ProtocolSettings)
    acme: AcmeSettings = field(default_factory=AcmeSettings)
    federation: FederationSettings = field(default_factory=FederationSettings)
    upstream: UpstreamSettings | None = None
    """Another CA that issues to enrolled identities."""

    def __post_init__(self) -> None:
        self.for_authority()  # bounds lifetimes
        plain = (self.bootstrap, self.address, self.public, self.listen_bootstrap, self.listen)
        urls = (witness.url for witness in self.witnesses)
        more = (self.listen_public, self.services, self.listen_services, self.database)
        for text in (*plain, *more, *urls):
            if text is not None and not _PLAIN.match(text):
                raise Malformed("expected settings without quotes, backslashes and control characters")

    def for_authority(self, profiles: Profiles | None = None) -> AuthoritySettings:
        return AuthoritySettings(
            domain=self.domain,
            bootstrap=self.bootstrap,
            address=self.address,
            lifetimes=self.lifetimes,
            lapsed_grace=self.lapsed_grace,
            approvals=self.approvals,
            status=self.status,
            profiles=profiles or builtin(),
        )

    def served_names(self) -> tuple[str, ...]:
        """DNS names for the coordinator's certificate: the host of `services`, where it is a name."""
        host = (self.services or "").rpartition(":")[0].lower()
        try:
            ipaddress.ip_address(host.strip("[]"))
        except ValueError:
            return (host,) if is_dns_name(host) else ()
        return ()

    def database_url(self, folder: Path) -> str:
        return self.database or f"sqlite:///{folder.resolve() / 'state.db'}"

    def to_toml(self) -> str:
        """Write the settings; `from_toml` reads them back."""
        given = {
            "trust-domain": str(self.domain),
            "bootstrap": self.bootstrap,
            "address": self.address,
            "listen-bootstrap": self.listen_bootstrap,
            "listen": self.listen,
            "public": self.public,
            "listen-public": self.listen_public,
            "public-url": None if self.public_url is None else self.public_url.base,
            "services": self.services,
            "listen-services": self.listen_services,
            "public-names": self.public_names,
            "database": self.database,
        }
        lines = [
            f"version = {_VERSION}",
            *(f'{key} = "{text}"' for key, text in given.items() if text is not None),
        ]
        if self.lapsed_grace != DEFAULT_GRACE:
            lines.append(f"lapsed-grace = {int(self.lapsed_grace.total_seconds())}  # seconds")
        if self.lifetimes:
            lines += ["", "[lifetimes]  # of certificates, in seconds"]
            lines += [f"{role} = {int(life.total_seconds())}" for role, life in self.lifetimes.items()]
        lines += policy_to_toml(self.approvals)
        lines += self.status.to_toml()
        lines += self.protocols.to_toml()
        lines += self.acme.to_toml()
        lines += self.federation.to_toml()
        lines += [] if self.upstream is None else self.upstream.to_toml()
        for witness in self.witnesses:
            lines += ["", "[[witnesses]]", f'url = "{witness.url}"', f'vkey = "{witness.key}"']
        return "\n".join(lines) + "\n"

    @classmethod
    def from_toml(cls, text: str) -> CoordinatorSettings:
        """Read settings; an unknown key, role or version raises `Malformed` and names it."""
        try:
            found = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise Malformed(f"expected {SETTINGS_FILE} in TOML: {error}") from None
        if found.get("version") != _VERSION:
            raise Malformed(f"expected version {_VERSION} of {SETTINGS_FILE}, got {found.get('version')!r}")
        if unknown := set(found) - _KEYS:
            raise Malformed(f"expected no setting {sorted(unknown)[0]!r} in {SETTINGS_FILE}")
        return cls(
            domain=TrustDomain(_text(found, "trust-domain") or ""),
            bootstrap=_text(found, "bootstrap") or "",
            address=_text(found, "address") or "",
            listen_bootstrap=_text(found, "listen-bootstrap"),
            listen=_text(found, "listen"),
            public=_text(found, "public"),
            listen_public=_text(found, "listen-public"),
            upstream=UpstreamSettings.from_table(found.get("upstream")),
            public_url=_public_url(_text(found, "public-url")),
            services=_text(found, "services"),
            listen_services=_text(found, "listen-services"),
            witnesses=_witnesses(found.get("witnesses", [])),
            public_names=_public_names(_text(found, "public-names")),
            database=_text(found, "database"),
            lifetimes=_lifetimes(found.get("lifetimes", {})),
            lapsed_grace=_grace(found.get("lapsed-grace")),
            approvals=policy_from_table(found.get("approvals")),
            evidence=EvidenceSettings.from_table(found.get("evidence", {})),
            status=StatusSettings.from_table(found.get("status", {})),
            protocols=ProtocolSettings.from_table(found.get("protocols", {})),
            acme=AcmeSettings.from_table(found.get("acme", {})),
            federation=FederationSettings.from_table(found.get("federation", {})),
        )


def read_settings(folder: Path) -> CoordinatorSettings:
    """Read `coordinator.toml`; `Malformed` where there is none, with what to do."""
    path = folder / SETTINGS_FILE
    if not path.exists():
        raise Malformed(f"expected {path}, found none", hint="run 'fltrust coordinator init' first")
    return CoordinatorSettings.from_toml(read_bounded(path, limit=_MAX_SETTINGS).decode("utf-8", "strict"))


def write_settings(folder: Path, settings: CoordinatorSettings) -> None:
    write_durably(folder / SETTINGS_FILE, settings.to_toml().encode())


def _text(found: dict[str, Any], key: str) -> str | None:
    value = found.get(key)
    if value is not None and not isinstance(value, str):
        raise Malformed(f"expected text for {key!r} in {SETTINGS_FILE}, got {type(value).__name__}")
    return value


def _public_names(text: str | None) -> PublicNames:
    """Settings from before there was a choice leave it out."""
    try:
        return PublicNames.SPIFFE if text is None else PublicNames(text)
    except ValueError:
        raise Malformed(
            f"expected 'public-names' in {SETTINGS_FILE} to be one of {', '.join(PublicNames)}"
        ) from None


def _public_url(text: str | None) -> PublicUrl | None:
    return None if text is None else PublicUrl.parse(text)


def _witnesses(tables: object) -> tuple[WitnessSetting, ...]:
    if not isinstance(tables, list) or not all(
        isinstance(item, dict)
        and set(item) == {"url", "vkey"}
        and all(isinstance(text, str) for text in item.values())
        for item in tables
    ):
        raise Malformed(
            f"expected [[witnesses]] with 'url' and 'vkey' in {SETTINGS_FILE}, got something else"
        )
    return tuple(WitnessSetting.of(item["url"], item["vkey"]) for item in tables)


def _grace(seconds: object) -> timedelta:
    if seconds is None:
        return DEFAULT_GRACE
    if not isinstance(seconds, int) or isinstance(seconds, bool) or not 0 <= seconds <= _MAX_GRACE:
        raise Malformed(f"expected 'lapsed-grace = <seconds>' of at most {_MAX_GRACE} in {SETTINGS_FILE}")
    return timedelta(seconds=seconds)


def _lifetimes(table: object) -> dict[Role, timedelta]:
    if not isinstance(table, dict):
        raise Malformed(f"expected a table [lifetimes] in {SETTINGS_FILE}")
    lifetimes: dict[Role, timedelta] = {}
    for name, seconds in table.items():
        if name not in set(Role) or not isinstance(seconds, int) or isinstance(seconds, bool):
            raise Malformed(
                f"expected '<role> = <seconds>' under [lifetimes] in {SETTINGS_FILE}, got {name!r}"
            )
        lifetimes[Role(name)] = timedelta(seconds=seconds)
    return lifetimes
