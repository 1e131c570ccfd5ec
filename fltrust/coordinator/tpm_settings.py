"""``[evidence.tpm]`` of coordinator.toml: whose TPMs are taken, and which of them earns which name.

[evidence.tpm]
roots = "tpm-makers.pem"        # beside coordinator.toml: the manufacturers' root certificates

[[evidence.tpm.devices]]
endorsement = "0835…"           # SHA-256 of the endorsement key, as 'fltrust keys tpm' prints it
role = "participant"
name = "site-a"
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from cryptography import x509

from fltrust.enrollment.tpm import TpmChecker, TpmDevice
from fltrust.errors import Malformed
from fltrust.files import read_bounded
from fltrust.identity import KeyId, Name, Role

MAX_DEVICES = 10_000
_MAX_ROOTS = 1024 * 1024
_ROLES = frozenset({Role.PARTICIPANT, Role.AGGREGATOR, Role.DEVICE, Role.SIGNER})
"""Roles that a TPM may earn: none that operates, and none that serves names of others."""


@dataclass(frozen=True, slots=True)
class TpmSettings:
    """The manufacturers' roots, in a file beside coordinator.toml, and the devices."""

    roots: str
    devices: tuple[TpmDevice, ...]

    @classmethod
    def from_table(cls, table: object) -> Self:
        """Read the table; an unknown key, a role that a TPM cannot earn or a device twice is `Malformed`."""
        if not isinstance(table, dict) or not set(table) <= {"roots", "devices"}:
            raise Malformed("expected 'roots' and [[devices]] under [evidence.tpm], got others")
        roots, devices = table.get("roots"), table.get("devices", [])
        if not isinstance(roots, str) or "/" in roots or not roots:
            raise Malformed("expected a file beside coordinator.toml as 'roots' of [evidence.tpm]")
        if not isinstance(devices, list) or len(devices) > MAX_DEVICES:
            raise Malformed(f"expected at most {MAX_DEVICES} [[evidence.tpm.devices]]")
        found = tuple(_device(device) for device in devices)
        if len({device.endorsement for device in found}) != len(found):
            raise Malformed("expected each TPM once in [[evidence.tpm.devices]], got one twice")
        return cls(roots, found)

    def checker(self, folder: Path) -> TpmChecker:
        """Put the checker together; roots are read now."""
        path = folder / self.roots
        try:
            roots = x509.load_pem_x509_certificates(read_bounded(path, limit=_MAX_ROOTS))
        except ValueError:
            raise Malformed(f"expected the roots of TPM manufacturers in PEM in {path}") from None
        return TpmChecker(roots=roots, devices=self.devices)


def _device(table: object) -> TpmDevice:
    fields = {"endorsement", "role", "name"}
    if (
        not isinstance(table, dict)
        or set(table) != fields
        or not all(isinstance(value, str) for value in table.values())
    ):
        raise Malformed("expected 'endorsement', 'role' and 'name' in each of [[evidence.tpm.devices]]")
    if table["role"] not in _ROLES:
        raise Malformed(
            f"expected a role of {', '.join(sorted(_ROLES))} for a TPM, got {table['role'][:40]!r}"
        )
    return TpmDevice(KeyId(table["endorsement"]), Role(table["role"]), Name(table["name"]))
