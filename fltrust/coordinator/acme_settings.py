"""`[acme]` in coordinator.toml: whether ACME is served, and where validation may reach out to."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from fltrust.errors import Malformed

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_KEYS = {"enabled", "networks", "http-port", "tls-port"}
_MAX_NETWORKS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class AcmeSettings:
    """A challenge is validated by connecting to the name that a client stated: from here, to addresses and
    ports that are stated here."""

    enabled: bool = True
    """Served on the services port. Without a credential that an operator made, nobody gets an account."""
    networks: tuple[Network, ...] = ()
    """Where names may lead beside public addresses. Private networks, this host and the link are out of
    bounds unless one of these has them: whoever holds an account could probe them from here."""
    http_port: int = 80
    """http-01 is validated there and nowhere else."""
    tls_port: int = 443
    """tls-alpn-01 likewise."""

    @classmethod
    def from_table(cls, table: object) -> Self:
        """Read the section; an unknown key or a value of another type raises `Malformed`."""
        if not isinstance(table, Mapping):
            raise Malformed("expected a table [acme] in coordinator.toml")
        if unknown := set(table) - _KEYS:
            raise Malformed(f"expected no setting {sorted(unknown)[0]!r} under [acme] in coordinator.toml")
        enabled = table.get("enabled", True)
        if not isinstance(enabled, bool):
            raise Malformed("expected 'enabled' under [acme] to be true or false")
        return cls(
            enabled=enabled,
            networks=_networks(table.get("networks", [])),
            http_port=_port(table, "http-port", 80),
            tls_port=_port(table, "tls-port", 443),
        )

    def to_toml(self) -> list[str]:
        """The lines of the section, as `from_table` reads it; none where all of it is the default."""
        if self == type(self)():
            return []
        networks = ", ".join(f'"{network}"' for network in self.networks)
        return [
            "",
            "[acme]",
            f"enabled = {str(self.enabled).lower()}",
            f"networks = [{networks}]",
            f"http-port = {self.http_port}",
            f"tls-port = {self.tls_port}",
        ]


def _networks(value: object) -> tuple[Network, ...]:
    if not isinstance(value, list) or len(value) > _MAX_NETWORKS:
        raise Malformed(f"expected a list of at most {_MAX_NETWORKS} 'networks' under [acme]")
    try:
        return tuple(ipaddress.ip_network(item) for item in value if _is_text(item))
    except ValueError as error:
        raise Malformed(f"expected networks such as '10.0.0.0/8' under [acme]: {str(error)[:100]}") from None


def _is_text(item: object) -> bool:
    if not isinstance(item, str):
        raise Malformed("expected 'networks' under [acme] as a list of text")
    return True


def _port(table: Mapping[str, object], key: str, default: int) -> int:
    value = table.get(key, default)
    if type(value) is not int or not 0 < value < 2**16:
        raise Malformed(f"expected {key!r} under [acme] to be a port")
    return value
