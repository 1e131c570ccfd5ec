"""``[protocols]`` of coordinator.toml: enrollment protocols that are off until an operator wants them.

EST and ACME need no switch: they are served where the services port is, over TLS, with the same evidence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from fltrust.errors import Malformed

RISKS = {
    "cmp": (
        "CMP (RFC 9483) on the public port. Plain HTTP: who asks for what can be read on the way.",
        "A client that shares a password shows that it knows it, so use the generated ones alone.",
    ),
    "scep": (
        "SCEP (RFC 8894) on the public port, for devices with RSA keys alone. Weaker than all the others:",
        "the join token travels encrypted to one RSA key of this coordinator, for as long as that key lives;",
        "whoever gets it reads every challenge that was recorded. Prefer EST.",
    ),
    "scep-legacy": (
        "SCEP for clients that know DES (or triple DES) and SHA-1 alone; needs 'scep'. The join token can",
        "then be read by whoever records the request and breaks 56-bit DES: hours of work, not years. And",
        "whoever is on the way can talk clients that know better into it. Only on a network that you trust,",
        "with tokens that live for minutes; off again when the last such device has its certificate.",
    ),
}
"""What is said beside each switch."""


@dataclass(frozen=True, slots=True)
class ProtocolSettings:
    """Which protocols are switched on."""

    cmp: bool = False
    scep: bool = False
    scep_legacy: bool = False

    @classmethod
    def from_table(cls, table: object) -> Self:
        """Read the table; an unknown protocol, a value that is no switch, or ``scep-legacy``
        without ``scep``, raises `Malformed`."""
        if not isinstance(table, dict) or not set(table) <= set(RISKS):
            raise Malformed(f"expected {', '.join(RISKS)} under [protocols], got others")
        if not all(isinstance(value, bool) for value in table.values()):
            raise Malformed("expected true or false for every protocol under [protocols]")
        if table.get("scep-legacy") and not table.get("scep"):
            raise Malformed("expected 'scep = true' under [protocols] where 'scep-legacy' is, got false")
        return cls(**{_field(name): value for name, value in table.items()})

    def to_toml(self) -> list[str]:
        """The lines of the table, with what each switch risks above it."""
        lines = ["", "[protocols]  # enrollment by other protocols; ACME and EST come with 'services'"]
        for name, risks in RISKS.items():
            lines += [f"# {risk}" for risk in risks]
            lines.append(f"{name} = {'true' if getattr(self, _field(name)) else 'false'}")
        return lines


def _field(name: str) -> str:
    return name.replace("-", "_")
