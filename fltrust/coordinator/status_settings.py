"""How long what is said of revocation is good: ``[status]`` in coordinator.toml, in seconds."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import timedelta

from fltrust.errors import Malformed

_SHORTEST, _LONGEST = timedelta(seconds=10), timedelta(days=10)
_NAMES = {
    "crl-lifetime": "crl_lifetime",
    "crl-interval": "crl_interval",
    "delta-lifetime": "delta_lifetime",
    "ocsp-lifetime": "ocsp_lifetime",
}
_POINT = "name-distribution-point"


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusSettings:
    """What CRLs and OCSP answers promise.

    A complete CRL is good for `crl_lifetime` and scheduled every `crl_interval`, which is shorter; between,
    one is made when something changed. Delta CRLs and OCSP answers are good for `delta_lifetime` and
    `ocsp_lifetime`, and made anew after half of it.

    `name_point`: CRLs name their own address (issuingDistributionPoint). Relying parties then take them
    only for certificates that point there: switch it on when every certificate in use does.
    """

    crl_lifetime: timedelta = timedelta(hours=24)
    crl_interval: timedelta = timedelta(hours=6)
    delta_lifetime: timedelta = timedelta(hours=1)
    ocsp_lifetime: timedelta = timedelta(hours=1)
    name_point: bool = False

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, timedelta) and not _SHORTEST <= value <= _LONGEST:
                raise Malformed(
                    f"expected {field.name.replace('_', '-')} between 10 seconds and 10 days, got {value}"
                )
        if self.crl_interval * 2 > self.crl_lifetime:
            raise Malformed(
                "expected a CRL to live for at least two intervals, so that one can be missed",
                hint="raise crl-lifetime or lower crl-interval",
            )

    @classmethod
    def from_table(cls, table: object) -> StatusSettings:
        """Read ``[status]``; an unknown key raises `Malformed` and names it."""
        if not isinstance(table, dict):
            raise Malformed("expected a table [status]")
        given: dict[str, timedelta] = {}
        for key, value in table.items():
            if key == _POINT:
                continue
            if key not in _NAMES or not isinstance(value, int) or isinstance(value, bool):
                raise Malformed(f"expected '<name> = <seconds>' under [status], got {str(key)[:40]!r}")
            given[_NAMES[key]] = timedelta(seconds=min(value, 10**9))
        point = table.get(_POINT, False)
        if not isinstance(point, bool):
            raise Malformed(f"expected true or false for {_POINT!r} under [status]")
        return cls(**given, name_point=point)

    def to_toml(self) -> list[str]:
        """Lines of coordinator.toml; none where everything is as it is by default."""
        if self == StatusSettings():
            return []
        lines = [f"{key} = {int(getattr(self, name).total_seconds())}" for key, name in _NAMES.items()]
        return ["", "[status]  # in seconds", *lines, f"{_POINT} = {str(self.name_point).lower()}"]
