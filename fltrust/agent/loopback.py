"""The local end of the relay: a certificate for 127.0.0.1 that lives as long as this process, and who calls.

The CA's key signs once and is dropped; name constraints keep the CA to 127.0.0.1, for whoever trusts it.
"""

from __future__ import annotations

import secrets
import socket
import ssl
import sys
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import IPv4Address, IPv4Network, ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fltrust.keys import generate
from fltrust.keys.tls import load_pair
from fltrust.pki.profiles import key_usage

_LOOPBACK = IPv4Address("127.0.0.1")
_LIFE = timedelta(days=3650)
"""Longer than any process: nobody renews it, and with the process the key is gone."""
_ESTABLISHED = "01"
_TCP_TABLE = Path("/proc/net/tcp")
_TCP6_TABLE = Path("/proc/net/tcp6")


@dataclass(frozen=True, slots=True)
class LoopbackTls:
    """A TLS 1.3 server context for 127.0.0.1, and the one root that vouches for it, in PEM."""

    context: ssl.SSLContext
    root_pem: bytes


def make_loopback_tls(*, now: datetime) -> LoopbackTls:
    """Make fresh keys and certificates for 127.0.0.1. The private key never stands in a file in the clear."""
    ca_key, signer = ec.generate_private_key(ec.SECP256R1()), generate()
    issuer = x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, f"fltrust local relay {secrets.token_hex(8)}")]
    )
    ca_id = x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key())
    root = (
        _builder(ca_key.public_key(), now=now)
        .subject_name(issuer)
        .issuer_name(issuer)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(key_usage(key_cert_sign=True), critical=True)
        .add_extension(
            x509.NameConstraints([x509.IPAddress(IPv4Network((_LOOPBACK, 32)))], None), critical=True
        )
        .add_extension(ca_id, critical=False)
        .sign(ca_key, SHA256())
    )
    leaf = (
        _builder(signer.public_key, now=now)
        .subject_name(x509.Name([]))
        .issuer_name(issuer)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(key_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(_LOOPBACK)]), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(signer.public_key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(ca_id), critical=False)
        .sign(ca_key, SHA256())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0
    load_pair(context, signer, leaf.public_bytes(Encoding.PEM))
    return LoopbackTls(context, root.public_bytes(Encoding.PEM))


def can_tell_peers() -> bool:
    """Whether this system says whose process is at the other end of a loopback connection."""
    return sys.platform == "linux" and _TCP_TABLE.exists()


def peer_uid(connection: socket.socket) -> int | None:
    """The user whose process holds the other end of this loopback connection, as `uid_between` says."""
    return uid_between(connection.getpeername()[:2], connection.getsockname()[:2])


def uid_between(peer: tuple[str, int], ours: tuple[str, int]) -> int | None:
    """The user whose socket is `peer`'s end of the connection to `ours`, from the kernel's table.

    None where the connection is not established (any more) or not in the table: unknown is no.
    """
    # Their socket is the one whose local address is our peer and whose remote address is ours.
    local, remote = _as_in_table(peer), _as_in_table(ours)
    with (_TCP6_TABLE if ":" in peer[0] else _TCP_TABLE).open(encoding="ascii") as table:
        for line in table:
            fields = line.split(None, 8)
            if len(fields) > 7 and fields[1] == local and fields[2] == remote and fields[3] == _ESTABLISHED:
                return int(fields[7])
    return None


def _as_in_table(address: tuple[str, int]) -> str:
    # The kernel prints an address as integers of 32 bits, each in its own byte order.
    packed = ip_address(address[0]).packed
    words = (int.from_bytes(packed[i : i + 4], sys.byteorder) for i in range(0, len(packed), 4))
    return "".join(f"{word:08X}" for word in words) + f":{address[1]:04X}"


def _builder(public_key: ec.EllipticCurvePublicKey, *, now: datetime) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + _LIFE)
    )
