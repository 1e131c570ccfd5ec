"""``[[evidence.oidc]]`` and ``[[evidence.x509]]`` of coordinator.toml: what others' words earn.

[[evidence.oidc]]
issuer = "https://token.actions.githubusercontent.com"
audience = "fltrust:hospitals.example"
jwks = "https://token.actions.githubusercontent.com/.well-known/jwks"
role = "device"
claim = "repository"
pattern = "hospitals/(?P<name>[a-z0-9-]+)"
require = { ref = "refs/heads/main" }

[[evidence.x509]]
roots = "corporate-ca.pem"
role = "device"
field = "subject-cn"
pattern = "(?P<name>[a-z0-9-]+)\\\\.plant\\\\.example"
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Self

from cryptography import x509

from fltrust.clock import Clock
from fltrust.coordinator.counters import Counters
from fltrust.coordinator.jwks import JwksKeeper, check_url
from fltrust.coordinator.tpm_settings import TpmSettings
from fltrust.enrollment.jwt import JwsAlgorithm
from fltrust.enrollment.oidc import DEFAULT_MAX_AGE, OidcChecker, OidcRule
from fltrust.enrollment.ports import EvidenceChecker
from fltrust.enrollment.x509_evidence import CertificateField, X509Checker, X509Rule
from fltrust.errors import Malformed
from fltrust.files import read_bounded
from fltrust.identity import Role, TrustDomain

MAX_RULES = 64
MAX_PATTERN = 256
_MAX_ROOTS = 256 * 1024
_OIDC = {
    *("issuer", "audience", "jwks", "role", "claim", "pattern", "prefix", "require", "algorithms"),
    *("max-age", "ca-file"),
}
_X509 = {"roots", "role", "field", "pattern", "prefix"}
_NEVER = frozenset({Role.COORDINATOR, Role.OPERATOR, Role.WORKLOAD, Role.SERVER})
"""Roles that no rule may give: whoever runs an issuer would be an operator, or a server of any name."""


@dataclass(frozen=True, slots=True)
class EvidenceSettings:
    """The rules, in the order in which they stand; of X.509 rules, their tables and files are read later."""

    oidc: tuple[OidcRule, ...] = ()
    x509: tuple[Mapping[str, str], ...] = ()
    tpm: TpmSettings | None = None

    @classmethod
    def from_table(cls, table: object) -> Self:
        """Read the table ``[evidence]``; an unknown key raises `Malformed` and names it."""
        if not isinstance(table, dict) or not set(table) <= {"oidc", "tpm", "x509"}:
            raise Malformed(
                "expected [[evidence.oidc]], [evidence.tpm] and [[evidence.x509]] under 'evidence'"
            )
        oidc = tuple(_oidc_rule(rule) for rule in _tables(table, "oidc", _OIDC))
        x509_rules = tuple(_x509_table(rule) for rule in _tables(table, "x509", _X509))
        tpm = None if "tpm" not in table else TpmSettings.from_table(table["tpm"])
        return cls(oidc, x509_rules, tpm)

    def checkers(
        self, folder: Path, domain: TrustDomain, *, clock: Clock, counters: Counters | None = None
    ) -> tuple[EvidenceChecker, ...]:
        """Put the checkers together; roots are read from files beside coordinator.toml."""
        found: list[EvidenceChecker] = []
        if self.oidc:
            rules = tuple(_with_ca_file(rule, folder) for rule in self.oidc)
            keeper = JwksKeeper(clock, counters=counters)
            keeper.warm(rules)
            found.append(OidcChecker(rules, keeper))
        if self.x509:
            found.append(X509Checker([x509_rule(rule, folder) for rule in self.x509], domain))
        if self.tpm is not None:
            found.append(self.tpm.checker(folder))
        return tuple(found)


def x509_rule(table: Mapping[str, str], folder: Path) -> X509Rule:
    """Make the rule of a table that was read, with the roots in its file."""
    return X509Rule(
        roots=_roots(folder / table["roots"]),
        role=_role(table["role"]),
        field=CertificateField(table["field"]),
        pattern=_pattern(table["pattern"]),
        prefix=table.get("prefix", ""),
    )


def _with_ca_file(rule: OidcRule, folder: Path) -> OidcRule:
    """Find the rule's CA file beside coordinator.toml; one that cannot be used stops the start."""
    if rule.ca_file is None:
        return rule
    path = folder / rule.ca_file
    _roots(path)
    return replace(rule, ca_file=str(path))


def _roots(path: Path) -> tuple[x509.Certificate, ...]:
    try:
        return tuple(x509.load_pem_x509_certificates(read_bounded(path, limit=_MAX_ROOTS)))
    except ValueError:
        raise Malformed(f"expected CA certificates in PEM in {path}") from None


def _oidc_rule(table: Mapping[str, Any]) -> OidcRule:
    require = table.get("require", {})
    if not isinstance(require, dict) or not all(isinstance(text, str) for text in require.values()):
        raise Malformed("expected claims and their texts under 'require' of a rule for OIDC")
    algorithms = table.get("algorithms", ["RS256", "ES256"])
    if not isinstance(algorithms, list) or not algorithms or not set(algorithms) <= set(JwsAlgorithm):
        raise Malformed(f"expected 'algorithms' of a rule for OIDC to be of {', '.join(JwsAlgorithm)}")
    max_age = table.get("max-age", int(DEFAULT_MAX_AGE.total_seconds()))
    if type(max_age) is not int or not 60 <= max_age <= 86_400:
        raise Malformed("expected 'max-age' of a rule for OIDC as 60 to 86400 seconds")
    check_url(_text(table, "jwks"))
    return OidcRule(
        issuer=_text(table, "issuer"),
        audience=_text(table, "audience"),
        jwks=_text(table, "jwks"),
        role=_role(_text(table, "role")),
        claim=_text(table, "claim"),
        pattern=_pattern(_text(table, "pattern")),
        prefix=_text(table, "prefix") if "prefix" in table else "",
        require=dict(require),
        algorithms=frozenset(map(JwsAlgorithm, algorithms)),
        max_age=timedelta(seconds=max_age),
        ca_file=_text(table, "ca-file") if "ca-file" in table else None,
    )


def _x509_table(table: Mapping[str, Any]) -> dict[str, str]:
    found = {key: _text(table, key) for key in table}
    if missing := {"roots", "role", "field", "pattern"} - set(found):
        raise Malformed(f"expected {sorted(missing)[0]!r} in a rule for X.509 evidence")
    if found["field"] not in set(CertificateField):
        raise Malformed(f"expected 'field' of a rule to be one of {', '.join(CertificateField)}")
    _role(found["role"])
    _pattern(found["pattern"])
    return found


def _tables(table: Mapping[str, Any], kind: str, keys: set[str]) -> list[dict[str, Any]]:
    found = table.get(kind, [])
    if not isinstance(found, list) or len(found) > MAX_RULES or not all(isinstance(r, dict) for r in found):
        raise Malformed(f"expected at most {MAX_RULES} tables [[evidence.{kind}]]")
    for rule in found:
        if unknown := set(rule) - keys:
            raise Malformed(f"expected no setting {sorted(unknown)[0]!r} under [[evidence.{kind}]]")
    return found


def _text(table: Mapping[str, Any], key: str) -> str:
    value = table.get(key)
    if not isinstance(value, str) or not value or len(value) > 1024:
        raise Malformed(f"expected text for {key!r} in a rule of evidence")
    return value


def _role(text: str) -> Role:
    if text not in set(Role) or Role(text) in _NEVER:
        allowed = ", ".join(role for role in Role if role not in _NEVER)
        raise Malformed(f"expected a rule of evidence to give one of the roles {allowed}, got {text[:40]!r}")
    return Role(text)


def _pattern(text: str) -> re.Pattern[str]:
    """A pattern of the operator's, with the group that is the name. It is tried on short texts alone."""
    try:
        pattern = re.compile(text)
    except (re.error, RecursionError):
        raise Malformed(f"expected a regular expression as 'pattern', got {text[:80]!r}") from None
    if len(text) > MAX_PATTERN or set(pattern.groupindex) != {"name"} or pattern.groups != 1:
        raise Malformed("expected a 'pattern' with exactly one group, (?P<name>…), and no other")
    return pattern
