"""Names: who a certificate, a statement or an event speaks of.

An identity is a SPIFFE ID (SPIFFE-ID, section 2) of a fixed shape:

    spiffe://<trust domain>/participant/<name>
    spiffe://<trust domain>/aggregator/<name>
    spiffe://<trust domain>/operator/<name>
    spiffe://<trust domain>/signer/<name>
    spiffe://<trust domain>/server/<name>
    spiffe://<trust domain>/device/<name>
    spiffe://<trust domain>/workload/<name>
    spiffe://<trust domain>/coordinator

Parsing is the only way in; a value that exists is well formed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from typing import Self

from fltrust.errors import Malformed

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_NAME = re.compile(rf"{_LABEL}\Z")
_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\Z")
_MAX_DOMAIN = 128  # leaves room for `<name>.<role>.<domain>` within DNS's 253


class Role(StrEnum):
    """What an identity may be; the coordinator's method table is written in these."""

    PARTICIPANT = "participant"
    AGGREGATOR = "aggregator"
    OPERATOR = "operator"
    SIGNER = "signer"
    SERVER = "server"
    """A TLS server beside the federation, such as a host that serves a model. It may call nothing."""
    DEVICE = "device"
    """A machine that wants a client certificate of ours and nothing else."""
    WORKLOAD = "workload"
    """A process that an agent vouches for (SPIFFE Workload API), named after the agent's own identity."""
    COORDINATOR = "coordinator"


class TrustDomain(str):
    """A SPIFFE trust domain: lower-case DNS labels, at most 128 characters."""

    __slots__ = ()

    def __new__(cls, value: str) -> Self:
        if len(value) > _MAX_DOMAIN or not _DOMAIN.match(value):
            raise Malformed(
                f"expected a trust domain such as 'hospitals.example', got {value[:80]!r}",
                hint="lower-case letters, digits, '-' and '.', at most 128 characters",
            )
        return super().__new__(cls, value)


class Name(str):
    """The name of an identity within its role: one lower-case DNS label."""

    __slots__ = ()

    def __new__(cls, value: str) -> Self:
        if not _NAME.match(value):
            raise Malformed(
                f"expected a name such as 'site-a', got {value[:80]!r}",
                hint="1 to 63 lower-case letters, digits and '-', not starting or ending with '-'",
            )
        return super().__new__(cls, value)


@dataclass(frozen=True, slots=True, order=True)
class SpiffeId:
    """One identity of the federation. ``str()`` gives the URI that stands in the certificate."""

    domain: TrustDomain
    role: Role
    name: Name | None

    def __post_init__(self) -> None:
        if (self.name is None) != (self.role is Role.COORDINATOR):
            raise Malformed(
                f"expected a name for every role but the coordinator, got {self.role}/{self.name}"
            )

    @classmethod
    def of(cls, domain: str, role: Role, name: str | None = None) -> Self:
        return cls(TrustDomain(domain), role, None if name is None else Name(name))

    @classmethod
    def parse(cls, uri: str) -> Self:
        """Read a SPIFFE ID of ours; any other URI, case or extra segment raises `Malformed`."""
        if len(uri) > 512 or not uri.startswith("spiffe://"):
            raise Malformed(f"expected a SPIFFE ID 'spiffe://…', got {uri[:80]!r}")
        domain, _, path = uri[len("spiffe://") :].partition("/")
        role_text, *names = path.split("/")
        try:
            role = Role(role_text)
        except ValueError:
            raise Malformed(
                f"expected a role of {', '.join(Role)} in the SPIFFE ID, got {role_text[:80]!r}"
            ) from None
        if len(names) > 1:
            raise Malformed(f"expected 'spiffe://<domain>/<role>/<name>', got {uri[:80]!r}")
        return cls(TrustDomain(domain), role, Name(names[0]) if names else None)

    def __str__(self) -> str:
        tail = "" if self.name is None else f"/{self.name}"
        return f"spiffe://{self.domain}/{self.role}{tail}"

    @property
    def dns_name(self) -> str:
        """The DNS SAN of a serving identity, e.g. ``main.aggregator.hospitals.example``.

        Clients of ours verify this name whatever address they dialled, so a
        certificate does not have to know the addresses of its host.
        """
        head = "" if self.name is None else f"{self.name}."
        return f"{head}{self.role}.{self.domain}"


class Epoch(int):
    """A position in the trust feed: 0 is before the first event; no number is skipped."""

    __slots__ = ()

    def __new__(cls, value: int) -> Self:
        if not 0 <= value < 2**63:
            raise Malformed(f"expected an epoch between 0 and 2^63-1, got {value}")
        return super().__new__(cls, value)

    def next(self) -> Epoch:
        return Epoch(int(self) + 1)


class Serial(int):
    """A certificate serial number, positive and at most 20 octets (RFC 5280, 4.1.2.2)."""

    __slots__ = ()

    def __new__(cls, value: int) -> Self:
        if not 0 < value < 2**159:
            raise Malformed("expected a positive serial number of at most 20 octets")
        return super().__new__(cls, value)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read lower- or upper-case hex, with or without colons, as openssl prints it."""
        digits = text.replace(":", "")
        if not re.fullmatch(r"[0-9A-Fa-f]{1,40}", digits):
            raise Malformed(f"expected a serial number in hex, got {text[:80]!r}")
        return cls(int(digits, 16))

    @property
    def hex(self) -> str:
        return f"{int(self):040x}"


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """A named digest, e.g. ``sha256:9f86…``; equality is for lookups, not for verification."""

    algorithm: str
    value: bytes

    @classmethod
    def parse(cls, text: str) -> Self:
        algorithm, _, value = text.partition(":")
        if not re.fullmatch(r"[a-z0-9-]{1,32}", algorithm) or not re.fullmatch(
            r"(?:[0-9a-f]{2}){16,64}", value
        ):
            raise Malformed(f"expected '<algorithm>:<hex>', got {text[:80]!r}")
        return cls(algorithm, bytes.fromhex(value))

    @classmethod
    def sha256_of(cls, data: bytes | memoryview) -> Self:
        return cls("sha256", sha256(data).digest())

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.value.hex()}"

    @property
    def hex(self) -> str:
        return self.value.hex()


class KeyId(str):
    """SHA-256 of a public key's SubjectPublicKeyInfo in DER, as 64 hex digits."""

    __slots__ = ()

    def __new__(cls, value: str) -> Self:
        if not re.fullmatch(r"[0-9a-f]{64}", value):
            raise Malformed(f"expected a key id of 64 hex digits, got {value[:80]!r}")
        return super().__new__(cls, value)

    @classmethod
    def of_spki(cls, spki_der: bytes) -> Self:
        return cls(sha256(spki_der).hexdigest())


class CaKeyId(str):
    """A CA's key as certificates name it: its key identifier (RFC 5280, 4.2.1.2) as 40 hex digits.

    Ours is the first 160 bits of SHA-256 of the key's point (RFC 7093, section 2, method 1).
    """

    __slots__ = ()

    def __new__(cls, value: str) -> Self:
        if not re.fullmatch(r"[0-9a-f]{40}", value):
            raise Malformed(f"expected a CA's key identifier of 40 hex digits, got {value[:80]!r}")
        return super().__new__(cls, value)


class RunId(int):
    """A Flower run id, an unsigned 64-bit number; written as a decimal string in JSON."""

    __slots__ = ()

    def __new__(cls, value: int) -> Self:
        if not 0 <= value < 2**64:
            raise Malformed(f"expected a run id of 64 bits, got {value}")
        return super().__new__(cls, value)


class NodeId(int):
    """A Flower node id, an unsigned 64-bit number; written as a decimal string in JSON."""

    __slots__ = ()

    def __new__(cls, value: int) -> Self:
        if not 0 <= value < 2**64:
            raise Malformed(f"expected a node id of 64 bits, got {value}")
        return super().__new__(cls, value)
