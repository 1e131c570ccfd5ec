"""Who may have signed: one name as a certificate carries it, or a pattern of SPIFFE IDs."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from fltrust.errors import Malformed, UntrustedSigner

SPIFFE = "spiffe://"
_MAX_PATTERN = 512
_SEGMENT = re.compile(r"[a-z0-9*-]{1,64}\Z")


@dataclass(frozen=True, slots=True)
class IdentityRule:
    """A signer's name, and who vouches for it.

    `identity` is an e-mail address or URI, compared whole, or a SPIFFE ID in whose path ``*`` stands
    for characters of one segment: ``spiffe://hospitals.example/signer/*``. The trust domain has no
    wildcard. `issuer` is the OIDC issuer; it is demanded for a name that is no SPIFFE ID, since any
    issuer could vouch for an e-mail address, and is ``spiffe://<trust domain>`` otherwise.
    """

    identity: str
    issuer: str | None = None
    _pattern: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.identity or len(self.identity) > _MAX_PATTERN:
            raise Malformed(f"expected an identity of 1 to {_MAX_PATTERN} characters")
        if not self.identity.startswith(SPIFFE):
            if not self.issuer:
                raise Malformed(
                    f"expected an issuer beside the identity {self.identity!r}, got none",
                    hint="name the OIDC issuer that vouches for it, or use a SPIFFE ID",
                )
            object.__setattr__(self, "_pattern", re.compile(re.escape(self.identity)))
            return
        domain, *segments = self.identity[len(SPIFFE) :].split("/")
        if "*" in domain or not segments or not all(_SEGMENT.match(item) for item in segments):
            raise Malformed(
                f"expected a SPIFFE ID, with '*' in its path alone, got {self.identity!r}",
                hint="such as spiffe://hospitals.example/signer/*",
            )
        path = "/".join("[a-z0-9-]+".join(map(re.escape, item.split("*"))) for item in segments)
        object.__setattr__(self, "_pattern", re.compile(f"{SPIFFE}{re.escape(domain)}/{path}"))
        if self.issuer is None:
            object.__setattr__(self, "issuer", f"{SPIFFE}{domain}")

    def matches(self, signer: str, issuer: str | None) -> bool:
        """Say whether this rule names the signer."""
        return self._pattern.fullmatch(signer) is not None and issuer == self.issuer

    def __str__(self) -> str:
        return self.identity if self.identity.startswith(SPIFFE) else f"{self.identity} ({self.issuer})"


def require_identity(rules: Iterable[IdentityRule], signer: str, issuer: str | None) -> IdentityRule:
    """Return the rule that names the signer, or raise `UntrustedSigner`."""
    found = tuple(rules)
    for rule in found:
        if rule.matches(signer, issuer):
            return rule
    raise UntrustedSigner(
        f"expected a signature by {' or '.join(map(str, found))}, got one by {signer} (issuer {issuer})",
        hint="the signature is sound; name this signer, too, if you trust it",
    )
