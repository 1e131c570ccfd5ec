"""General names: which a constraint covers (RFC 5280, 4.2.1.10), and which a peer is known by (RFC 9525)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final

from cryptography import x509

from fltrust.errors import Malformed
from fltrust.pki.path.names import is_within, name_key
from fltrust.pki.path.types import PeerName

_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\Z")
_LOCAL_PART = re.compile(r"[!-?A-~]{1,64}\Z")
_AUTHORITY = re.compile(
    r"[A-Za-z][A-Za-z0-9+.-]{0,30}://(?:[A-Za-z0-9._~!$&'()*+,;=:%-]*@)?([A-Za-z0-9._-]+)(?::[0-9]{0,5})?"
    r"(?:[/?#][!#$%&-;=?-Z_a-z~\[\]@]*)?\Z"
)
_MAX_HOST: Final = 253

CONSTRAINABLE: Final = (
    x509.DirectoryName,
    x509.DNSName,
    x509.RFC822Name,
    x509.UniformResourceIdentifier,
    x509.IPAddress,
)
"""The kinds of names whose constraints are processed. A constraint on another kind admits no name of it."""


def is_covered(name: x509.GeneralName, base: x509.GeneralName, *, excluded: bool = False) -> bool:
    """Whether a name lies in the subtree `base` of the same kind; raises ``ValueError`` where either is none.

    A wildcard stands for every name that it matches: it is permitted if all of them are, and `excluded` if
    one of them is.
    """
    if isinstance(name, x509.DirectoryName) and isinstance(base, x509.DirectoryName):
        return is_within(name_key(name.value), name_key(base.value))
    if isinstance(name, x509.DNSName) and isinstance(base, x509.DNSName):
        return _is_dns_covered(name.value, base.value, excluded=excluded)
    if isinstance(name, x509.RFC822Name) and isinstance(base, x509.RFC822Name):
        return _is_mailbox_covered(name.value, base.value)
    if isinstance(name, x509.UniformResourceIdentifier) and isinstance(base, x509.UniformResourceIdentifier):
        return _is_host_covered(_uri_host(name.value), base.value)
    if isinstance(name, x509.IPAddress) and isinstance(base, x509.IPAddress):
        return _is_address_covered(name.value, base.value)
    raise ValueError("names of kinds that are not compared")


def is_peer(names: Sequence[x509.GeneralName], peer: PeerName) -> bool:
    """Whether one of a certificate's alternative names is the peer's; its subject names none (RFC 9525).

    A DNS name may match a wildcard that is the whole of the leftmost label, with two labels or more after it.
    """
    return any(_is_named(name, peer) for name in names)


def check_peer(peer: PeerName) -> None:
    """Return only if a peer can be known by this name; else `Malformed`."""
    try:
        if isinstance(peer, x509.DNSName):
            _host(peer.value)
        elif isinstance(peer, x509.RFC822Name):
            _mailbox(peer.value)
        elif isinstance(peer, x509.IPAddress) and not isinstance(peer.value, IPv4Address | IPv6Address):
            raise ValueError("a network")
    except ValueError:
        raise Malformed(
            f"expected the name of one host, mailbox, address or URI, got {str(peer.value)[:80]!r}"
        ) from None


def _is_named(name: x509.GeneralName, peer: PeerName) -> bool:
    if isinstance(name, x509.DNSName) and isinstance(peer, x509.DNSName):
        return _is_host_named(_host(peer.value), name.value.lower())
    if isinstance(name, x509.RFC822Name) and isinstance(peer, x509.RFC822Name):
        try:
            return _mailbox(name.value) == _mailbox(peer.value)
        except ValueError:
            return False  # what the certificate says is no mailbox
    return name == peer


def _is_host_named(host: str, presented: str) -> bool:
    if not presented.startswith("*."):
        return _is_host(presented) and host == presented
    parent = presented[2:]
    head, _, rest = host.partition(".")
    return bool(head) and _is_host(parent) and "." in parent and rest == parent


def _is_dns_covered(name: str, base: str, *, excluded: bool) -> bool:
    base = _host(base) if base else ""
    wildcard = name.startswith("*.")
    host = _host(name[2:] if wildcard else name)
    if not base or host == base or host.endswith(f".{base}"):
        return True
    # `*.example.com` may be any child of example.com, so it meets a subtree that begins at such a child.
    return wildcard and excluded and base.partition(".")[2] == host


def _is_mailbox_covered(name: str, base: str) -> bool:
    mailbox = _mailbox(name)
    if "@" in base:
        return mailbox == _mailbox(base)
    return _is_host_covered(mailbox[1], base)


def _is_host_covered(host: str, base: str) -> bool:
    """For mailboxes and URIs: a host names itself alone, with a period before it everything below it."""
    if base.startswith("."):
        return host.endswith(f".{_host(base[1:])}")
    return host == _host(base)


def _is_address_covered(
    name: IPv4Address | IPv6Address | IPv4Network | IPv6Network,
    base: IPv4Address | IPv6Address | IPv4Network | IPv6Network,
) -> bool:
    if not isinstance(name, IPv4Address | IPv6Address) or not isinstance(base, IPv4Network | IPv6Network):
        raise ValueError("an address that is a network, or a constraint that is none")
    return name.version == base.version and name in base


def _mailbox(text: str) -> tuple[str, str]:
    local, at, host = text.rpartition("@")
    if not at or not _LOCAL_PART.match(local) or "@" in local:
        raise ValueError("a mailbox that is none")
    return local, _host(host)


def _uri_host(uri: str) -> str:
    """The host of a URI with an authority. An address is none (4.2.1.10: such URIs must be refused).

    Read strictly (RFC 3986, 3.2): what another reader could take for another host has none here.
    """
    found = _AUTHORITY.match(uri)
    host = found[1].lower() if found is not None else ""
    if not _is_host(host) or host.rpartition(".")[2].isdigit():
        raise ValueError("a URI without the name of a host")
    return host


def _host(text: str) -> str:
    host = text.lower()
    if not _is_host(host):
        raise ValueError("a host name that is none")
    return host


def _is_host(text: str) -> bool:
    return len(text) <= _MAX_HOST and _HOST.match(text) is not None
