"""``[keys]`` in coordinator.toml: which of the coordinator's keys lie elsewhere, by URI.

    [keys]
    issuing = "pkcs11:token=hospital;object=issuing?module-path=/usr/lib/softhsm/libsofthsm2.so"
    tsa = "awskms:///alias/fltrust-tsa?region=eu-central-1"

A key that is not named lies in its file in the folder, encrypted, as ever.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from fltrust.errors import Malformed
from fltrust.keys.homes import KeyHome, check_uri, home_of


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySettings:
    """URIs of keys that are not files in the folder (`fltrust.keys.homes`). PINs never stand here."""

    root: str | None = None
    """Needed to make and renew the issuing CA's certificate, and never to run."""
    issuing: str | None = None
    tsa: str | None = None
    """The timestamp authority's."""
    ct: str | None = None
    """Signs certificate timestamps and signed entry timestamps."""
    note: str | None = None
    """Signs the log's checkpoints. Ed25519: a file, or a PKCS#11 token that has CKM_EDDSA."""

    def __post_init__(self) -> None:
        given = [getattr(self, field.name) for field in fields(self)]
        uris = [check_uri(uri) for uri in given if uri is not None]
        if len(set(uris)) != len(uris):
            raise Malformed("expected a key of its own for each purpose in [keys], got one URI twice")
        if self.note is not None and home_of(self.note) not in (KeyHome.FILE, KeyHome.PKCS11):
            raise Malformed(
                "expected 'note' in [keys] to be in a file or a PKCS#11 token: it is an Ed25519 key",
                hint="leave it out, and the log's key lies in log/note.key",
            )

    @classmethod
    def from_table(cls, table: object) -> KeySettings:
        """Read the section; an unknown key or a value that is no text raises `Malformed`."""
        known = {field.name for field in fields(cls)}
        if not isinstance(table, dict) or not all(isinstance(value, str) for value in table.values()):
            raise Malformed("expected a table [keys] of URIs in coordinator.toml")
        if unknown := set(table) - known:
            raise Malformed(
                f"expected {', '.join(sorted(known))} under [keys] in coordinator.toml, got {min(unknown)!r}"
            )
        return cls(**table)

    def to_toml(self) -> list[str]:
        """The section's lines; none where every key is a file in the folder."""
        given = [(field.name, getattr(self, field.name)) for field in fields(self)]
        lines = [f'{name} = "{uri}"' for name, uri in given if uri is not None]
        return ["", "[keys]", *lines] if lines else []
