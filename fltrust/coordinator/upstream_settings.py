"""``[upstream]`` in coordinator.toml: another CA that issues to enrolled identities.

[upstream]
url = "https://bao.hospitals.example:8200"
mount = "pki"
role-prefix = "fltrust"                    # the roles fltrust-participant, fltrust-operator, …
token-file = "/run/secrets/bao-token"      # 0600; read anew for every call
ca-file = "/etc/fltrust/bao-ca.pem"        # who signs the server's TLS certificate; default: the system's
namespace = "hospitals"                    # optional
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from pathlib import Path

from fltrust.errors import Malformed

_URL = re.compile(r"https://[A-Za-z0-9.-]{1,253}(?::[0-9]{1,5})?\Z")
_LOCAL = re.compile(r"http://127\.0\.0\.1(?::[0-9]{1,5})?\Z")
_PATH = re.compile(r"[A-Za-z0-9_-]{1,64}(?:/[A-Za-z0-9_-]{1,64}){0,4}\Z")
_WORD = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
_FILE = re.compile(r"[^\x00-\x1f\"\\\x7f]{1,500}\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamSettings:
    """A mount of OpenBao's or Vault's PKI engine, and how to call it."""

    url: str
    mount: str
    token_file: Path
    role_prefix: str = "fltrust"
    ca_file: Path | None = None
    namespace: str | None = None

    def __post_init__(self) -> None:
        if not _URL.match(self.url) and not _LOCAL.match(self.url):
            raise Malformed(
                "expected 'url' of [upstream] as https://host:port",
                hint="plain http is for 127.0.0.1 alone: the token goes over it",
            )
        texts = ((self.mount, _PATH, "mount"), (self.role_prefix, _WORD, "role-prefix"))
        for text, pattern, name in (*texts, (self.namespace or "x", _PATH, "namespace")):
            if not pattern.match(text):
                raise Malformed(f"expected a plain name for {name!r} of [upstream], got {text[:40]!r}")
        for path in (self.token_file, self.ca_file):
            if path is not None and not _FILE.match(str(path)):
                raise Malformed("expected paths without quotes and control characters in [upstream]")

    @classmethod
    def from_table(cls, table: object) -> UpstreamSettings | None:
        """Read the section; None where there is none. An unknown key raises `Malformed` and names it."""
        if table is None:
            return None
        known = {field.name.replace("_", "-") for field in fields(cls)}
        if not isinstance(table, dict) or not all(isinstance(value, str) for value in table.values()):
            raise Malformed("expected a table [upstream] of texts in coordinator.toml")
        if unknown := set(table) - known:
            raise Malformed(f"expected no {min(unknown)[:40]!r} under [upstream] in coordinator.toml")
        if missing := {"url", "mount", "token-file"} - set(table):
            raise Malformed(f"expected {min(missing)!r} under [upstream] in coordinator.toml, found none")
        return cls(
            url=table["url"],
            mount=table["mount"],
            token_file=Path(table["token-file"]),
            role_prefix=table.get("role-prefix", "fltrust"),
            ca_file=Path(table["ca-file"]) if "ca-file" in table else None,
            namespace=table.get("namespace"),
        )

    def to_toml(self) -> list[str]:
        """The section's lines."""
        given = [(field.name.replace("_", "-"), getattr(self, field.name)) for field in fields(self)]
        return ["", "[upstream]", *(f'{name} = "{value}"' for name, value in given if value is not None)]
