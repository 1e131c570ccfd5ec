"""`[federation]` in coordinator.toml: how bundle endpoints with a certificate of the Web PKI are verified."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from fltrust.errors import Malformed

_KEYS = {"web-roots"}


@dataclass(frozen=True, slots=True, kw_only=True)
class FederationSettings:
    """`web_roots` is a file of roots in PEM for endpoints of the profile ``https_web``, in place of the
    machine's own; relative to the coordinator's folder."""

    web_roots: str | None = None

    @classmethod
    def from_table(cls, table: object) -> Self:
        """Read the section; an unknown key or a value of another type raises `Malformed`."""
        if not isinstance(table, Mapping):
            raise Malformed("expected a table [federation] in coordinator.toml")
        if unknown := set(table) - _KEYS:
            raise Malformed(f"expected no setting {min(unknown)!r} under [federation] in coordinator.toml")
        web_roots = table.get("web-roots")
        if web_roots is not None and (
            not isinstance(web_roots, str) or not web_roots.isprintable() or set(web_roots) & {'"', "\\"}
        ):
            raise Malformed("expected 'web-roots' under [federation] to be the path of a file")
        return cls(web_roots=web_roots)

    def to_toml(self) -> list[str]:
        """The lines of the section, as `from_table` reads it; none where all of it is the default."""
        return [] if self.web_roots is None else ["", "[federation]", f'web-roots = "{self.web_roots}"']

    def web_roots_in(self, folder: Path) -> Path | None:
        return None if self.web_roots is None else folder / self.web_roots
