"""What CRLs say of a certificate (RFC 5280, 6.3): complete, delta, indirect, cut by reason or by kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cryptography import x509

from fltrust.pki.leaf import PARSE_ERRORS
from fltrust.pki.path.evidence import Crl, Entry, point_names
from fltrust.pki.path.facts import Facts
from fltrust.pki.path.names import NameKey, name_key
from fltrust.pki.path.types import CertificateStatus, StatusKind

ALL_REASONS: Final = frozenset(x509.ReasonFlags) - {
    x509.ReasonFlags.unspecified,
    x509.ReasonFlags.remove_from_crl,
}

Signer = Callable[[Crl], bytes | None]
"""Gives the key (SPKI) that signed a CRL, if somebody who may sign it did; None otherwise."""

UNKNOWN: Final = CertificateStatus(StatusKind.UNKNOWN, "", None)


@dataclass(frozen=True, slots=True)
class Verdict:
    """A revocation, or the status where there is none."""

    revoked: Entry | None
    status: CertificateStatus


@dataclass(frozen=True, slots=True)
class _Point:
    """A distribution point as the certificate names it, or the one that each certificate has (6.3.3, end)."""

    names: frozenset[object]
    reasons: frozenset[x509.ReasonFlags]
    crl_issuers: frozenset[NameKey]


@dataclass(frozen=True, slots=True)
class _Signed:
    """A CRL that may be believed, and the key that signed it."""

    crl: Crl
    key: bytes

    @property
    def scope(self) -> tuple[object, ...]:
        return self.crl.issuer, self.key, self.crl.scope

    @property
    def age(self) -> tuple[int, datetime]:
        return self.crl.number or -1, self.crl.this_update


def judge_by_crls(facts: Facts, crls: Sequence[Crl], *, at: datetime, signer: Signer) -> Verdict:
    """Say what the CRLs that may be believed say of one certificate at `at`. Never raises.

    1. Of each distribution point that the certificate names, and of its issuer's own CRLs, those count
       that cover it: by issuer or, where they are indirect, by the point's cRLIssuer; by the name in the
       issuing distribution point; by kind of certificate (6.3.3 b). None counts in which something
       critical is unknown.
    2. It is signed by somebody who may (`signer`, 6.3.3 f and g).
    3. The newest complete CRL of a scope counts that was made by `at`, and on top of it the newest delta
       that continues it (6.3.3 c): of the same scope, key and key identifier, with a base that the complete
       one reached.
    4. An entry is a revocation, unless the delta takes it back (removeFromCRL). A delta that continues
       nothing we have, or a CRL made after `at`, can only revoke: the latter by what was in force at `at`.
    5. The status is good when the reasons of what was found add up to all reasons; fresh when they do with
       those alone whose next update is not before `at`.
    """
    fresh: set[x509.ReasonFlags] = set()
    known: set[x509.ReasonFlags] = set()
    until: list[datetime] = []
    stale_until: list[datetime] = []
    used_delta = False
    for point in _points(facts):
        covering = [found for crl in crls if (found := _believed(crl, point, facts, signer)) is not None]
        past = [found for found in covering if found.crl.this_update <= at]
        later = [found for found in covering if found.crl.this_update > at]
        for found in later:
            entry = _lookup(found.crl, facts)
            if entry is not None and _counts(entry) and entry.is_in_force(at):
                return Verdict(entry, UNKNOWN)
        deltas = [found for found in past if found.crl.base is not None]
        for complete in _newest([found for found in past if found.crl.base is None]):
            delta = _continuation(complete, deltas)
            entry = _lookup(complete.crl, facts)
            if delta is not None:
                deltas = [found for found in deltas if found.scope != complete.scope]
                entry = _lookup(delta.crl, facts) or entry
            if entry is not None and _counts(entry):
                return Verdict(entry, UNKNOWN)
            used_delta = used_delta or delta is not None
            ends = [end for part in (complete, delta) if part and (end := part.crl.next_update) is not None]
            end = max(ends, default=complete.crl.this_update)
            reasons = _reasons(complete.crl) & point.reasons
            known |= reasons
            stale_until.append(end)
            if ends and at <= end:
                fresh |= reasons
                until.append(end)
        for delta in _newest(deltas):
            entry = _lookup(delta.crl, facts)
            if entry is not None and _counts(entry):
                return Verdict(entry, UNKNOWN)
    source = "delta-crl" if used_delta else "crl"
    if fresh == ALL_REASONS:
        return Verdict(None, CertificateStatus(StatusKind.GOOD, source, min(until)))
    if known == ALL_REASONS:
        return Verdict(None, CertificateStatus(StatusKind.STALE, source, min(stale_until)))
    return Verdict(None, UNKNOWN)


def _points(facts: Facts) -> Iterator[_Point]:
    found = facts.get(x509.CRLDistributionPoints)
    for point in found or ():
        issuers = tuple(
            name_key(name.value) for name in point.crl_issuer or () if isinstance(name, x509.DirectoryName)
        )
        names = point_names(point.full_name, point.relative_name, under=issuers or (facts.issuer,))
        if point.crl_issuer and not (point.full_name or point.relative_name):
            names = point_names(point.crl_issuer, None, under=())
        reasons = ALL_REASONS if point.reasons is None else point.reasons & ALL_REASONS
        yield _Point(names, reasons, frozenset(issuers) if point.crl_issuer else frozenset({facts.issuer}))
    yield _Point(frozenset({facts.issuer}), ALL_REASONS, frozenset({facts.issuer}))


def _believed(crl: Crl, point: _Point, facts: Facts, signer: Signer) -> _Signed | None:
    try:
        if not _covers(crl, point, facts) or not crl.is_understood:
            return None
        key = signer(crl)
        crl.find(facts.issuer, facts.serial)  # whatever cannot be read of it, it is not believed
    except PARSE_ERRORS:
        return None
    return None if key is None else _Signed(crl, key)


def _covers(crl: Crl, point: _Point, facts: Facts) -> bool:
    """6.3.3 b."""
    scope = crl.scope
    if crl.issuer not in point.crl_issuers:
        return False
    if crl.issuer != facts.issuer and not crl.is_indirect:
        return False
    if scope is None:
        return True
    names = point_names(scope.full_name, scope.relative_name, under=(crl.issuer,))
    if names and not names & point.names:
        return False
    if scope.only_contains_attribute_certs:
        return False
    return not (scope.only_contains_ca_certs if not facts.is_ca else scope.only_contains_user_certs)


def _continuation(complete: _Signed, deltas: Sequence[_Signed]) -> _Signed | None:
    number = complete.crl.number
    found = [
        delta
        for delta in deltas
        if number is not None
        and delta.scope == complete.scope
        and delta.crl.authority_key == complete.crl.authority_key
        and delta.crl.number is not None
        and delta.crl.base is not None
        and delta.crl.base <= number <= delta.crl.number
    ]
    return max(found, key=lambda delta: delta.age, default=None)


def _newest(crls: Sequence[_Signed]) -> list[_Signed]:
    found: dict[tuple[object, ...], _Signed] = {}
    for signed in crls:
        if signed.scope not in found or found[signed.scope].age < signed.age:
            found[signed.scope] = signed
    return list(found.values())


def _lookup(crl: Crl, facts: Facts) -> Entry | None:
    return crl.find(facts.issuer, facts.serial)


def _counts(entry: Entry) -> bool:
    return entry.reason is not x509.ReasonFlags.remove_from_crl


def _reasons(crl: Crl) -> frozenset[x509.ReasonFlags]:
    scope = crl.scope
    some = None if scope is None else scope.only_some_reasons
    return ALL_REASONS if some is None else some & ALL_REASONS
