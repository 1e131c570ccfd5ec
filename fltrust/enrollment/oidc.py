"""Evidence of the second kind: a token of an OpenID Connect issuer that the operator trusts, used once.

What a token earns is said by a rule in `coordinator.toml`, never by whoever shows it. A token is a bearer's:
keep its life short and its audience ours alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Protocol

from fltrust.enrollment.jwt import (
    IssuerKey,
    JwsAlgorithm,
    SignedToken,
    key_for,
    read_token,
    verify_token,
)
from fltrust.enrollment.ports import TokenStore
from fltrust.enrollment.types import Approval, EnrollRequest, Evidence
from fltrust.errors import EvidenceRefused, FltrustError, Malformed
from fltrust.identity import Name, Role
from fltrust.strictjson import decode_any

KIND = "oidc"
CLOCK_SKEW = timedelta(seconds=30)
DEFAULT_MAX_AGE = timedelta(hours=1)
MAX_CLAIM = 512
"""Characters of a claim that a rule reads."""


@dataclass(frozen=True, slots=True)
class OidcEvidence:
    """A token, as it came over the wire."""

    token: str

    def binding(self) -> bytes:
        return b"oidc\x00" + self.token.encode()

    def __repr__(self) -> str:
        return "OidcEvidence(token=…)"


@dataclass(frozen=True, slots=True, kw_only=True)
class OidcRule:
    """Whose tokens earn which name, in which role.

    The name is the group ``name`` of `pattern`, which must match the whole of the claim `claim`; the rule's
    `prefix` goes before it. Every claim in `require` must be there with exactly that text.
    """

    issuer: str
    audience: str
    jwks: str
    role: Role
    claim: str
    pattern: re.Pattern[str]
    prefix: str = ""
    require: Mapping[str, str]
    algorithms: frozenset[JwsAlgorithm] = frozenset({JwsAlgorithm.RS256, JwsAlgorithm.ES256})
    max_age: timedelta = DEFAULT_MAX_AGE
    ca_file: str | None = None
    """Roots for the JWKS server, where the system's do not lead to it."""

    def name_for(self, claims: Mapping[str, object]) -> Name | None:
        """The name that this rule gives the holder of these claims, or None if it is not theirs."""
        for claim, wanted in self.require.items():
            if claims.get(claim) != wanted:
                return None
        text = claims.get(self.claim)
        if not isinstance(text, str) or len(text) > MAX_CLAIM:
            return None
        found = self.pattern.fullmatch(text)
        return None if found is None else Name(self.prefix + found.group("name"))


class IssuerKeys(Protocol):
    """Where issuers' keys come from: fetched by somebody else, bounded and kept."""

    def keys_of(self, rule: OidcRule, token: SignedToken) -> Sequence[IssuerKey]:
        """The keys that may have signed the token. `Unavailable` while none is known that it names: they
        are being fetched, or the issuer was asked a moment ago. Never waits for the network."""
        ...


@dataclass(frozen=True, slots=True)
class VerifiedToken:
    """What a token says that was verified, and the approval it earns when it is spent."""

    approval: Approval
    spending: bytes
    """SHA-256 of what makes the token the same token: issuer and ``jti``, or what was signed."""

    def binding(self) -> bytes:
        return b"oidc-verified\x00" + self.spending


class OidcChecker:
    """Judges tokens by rules, in the order in which they stand; the first that fits decides."""

    kind = KIND

    def __init__(self, rules: Sequence[OidcRule], keys: IssuerKeys) -> None:
        self._rules = tuple(rules)
        self._keys = keys

    def accepts(self, evidence: Evidence) -> bool:
        return isinstance(evidence, OidcEvidence | VerifiedToken)

    def examine(self, request: EnrollRequest, *, now: datetime) -> Evidence:
        """Verify a token.

        1. It is a signed JWT within bounds, by an algorithm that is known here (`read_token`).
        2. Its issuer, which is a claim until 4, is that of a rule.
        3. The rule allows its algorithm, and the issuer's key set has the key that it names.
        4. The signature verifies under that key.
        5. ``iss`` and ``aud`` are the rule's, and ours is its only audience: a token that others take, too,
           others can show. It has not expired, has begun, and is no older than the rule's `max_age`.
        6. A rule of this issuer and audience gives it a name.

        Raises `Malformed`, `SignatureInvalid`, `EvidenceRefused` or `Unavailable`.
        """
        evidence = request.evidence
        if not isinstance(evidence, OidcEvidence):
            raise Malformed("expected a token of an OpenID Connect issuer")
        # 1.
        token = read_token(evidence.token)
        # 2.
        claimed = _claimed_issuer(token)
        rules = [rule for rule in self._rules if rule.issuer == claimed]
        if not rules:
            raise EvidenceRefused(
                "expected a token of an issuer that this coordinator trusts, got one of another",
                reason="issuer-unknown",
                hint="an operator adds a rule under [[evidence.oidc]] in coordinator.toml",
            )
        refusal: FltrustError | None = None
        for rule in rules:
            try:
                return self._examine_by(rule, token, now)
            except EvidenceRefused as error:  # another rule of this issuer may fit
                refusal = refusal or error
        assert refusal is not None  # noqa: S101 - there is a rule, and each returns or refuses
        raise refusal

    def approve(self, evidence: Evidence, *, tokens: TokenStore, now: datetime) -> Approval:
        """Spend the token, for good; one that was shown before raises `EvidenceRefused`, ``token-used``."""
        if not isinstance(evidence, VerifiedToken):
            raise Malformed("expected a token that was examined")
        if not tokens.spend_once(KIND, evidence.spending, now=now):
            raise EvidenceRefused(
                "expected a token that was not used before, this one was",
                reason="token-used",
                hint="ask the issuer for a new one",
            )
        return evidence.approval

    def _examine_by(self, rule: OidcRule, token: SignedToken, now: datetime) -> VerifiedToken:
        # 3.
        if token.algorithm not in rule.algorithms:
            raise EvidenceRefused(
                f"expected a token signed by {', '.join(sorted(rule.algorithms))}, got {token.algorithm}",
                reason="token-algorithm",
            )
        key = key_for(token, self._keys.keys_of(rule, token))
        if key is None:
            raise EvidenceRefused(
                "expected a token whose key is in its issuer's set, it is not", reason="key-unknown"
            )
        # 4.
        claims = verify_token(token, key)
        # 5.
        _check_claims(rule, claims, now)
        # 6.
        name = rule.name_for(claims)
        if name is None:
            raise EvidenceRefused(
                f"expected a token that a rule for {rule.issuer} gives a name, none does",
                reason="no-rule",
                hint=f"compare its claims with the rule's: {', '.join((rule.claim, *rule.require))}",
            )
        said = {"iss": rule.issuer, rule.claim: str(claims[rule.claim])}
        subject = claims.get("sub")
        if isinstance(subject, str) and len(subject) <= MAX_CLAIM:
            said["sub"] = subject
        approval = Approval(rule.role, name, replace=False, claims={**said, **rule.require})
        return VerifiedToken(approval, _spending(rule, token, claims))


def _claimed_issuer(token: SignedToken) -> object:
    claims = decode_any(token.payload, limit=len(token.payload), what="a token's claims", values=4096)
    return claims.get("iss") if isinstance(claims, dict) else None


def _check_claims(rule: OidcRule, claims: Mapping[str, object], now: datetime) -> None:
    if claims.get("iss") != rule.issuer:
        raise EvidenceRefused("expected a token of the rule's issuer", reason="issuer-unknown")
    audience = claims.get("aud")
    if audience not in (rule.audience, [rule.audience]):
        raise EvidenceRefused(
            f"expected a token for the audience {rule.audience!r} and no other, got one for another",
            reason="token-audience",
            hint="ask the issuer for a token with exactly this audience",
        )
    expires, issued = _time(claims, "exp"), _time(claims, "iat")
    begins = _time(claims, "nbf") if "nbf" in claims else issued
    if now >= expires + CLOCK_SKEW or now >= issued + rule.max_age + CLOCK_SKEW:
        raise EvidenceRefused(
            f"expected a token that is in force and at most {rule.max_age} old, this one is older",
            reason="token-expired",
            hint="ask the issuer for a new one; is this host's clock right?",
        )
    if max(begins, issued) > now + CLOCK_SKEW:
        raise EvidenceRefused("expected a token that has begun", reason="token-not-yet-valid")


def _time(claims: Mapping[str, object], name: str) -> datetime:
    value = claims.get(name)
    if type(value) is not int or not 0 <= value < 2**33:
        raise EvidenceRefused(f"expected a time {name!r} in the token", reason="token-times")
    return datetime.fromtimestamp(value, UTC)


def _spending(rule: OidcRule, token: SignedToken, claims: Mapping[str, object]) -> bytes:
    """What is remembered. Not the signature: an ECDSA signature has a second form."""
    jti = claims.get("jti")
    if isinstance(jti, str) and jti:
        return sha256(b"\x00".join((b"jti", rule.issuer.encode(), jti.encode()))).digest()
    return sha256(b"token\x00" + token.signing_input).digest()
