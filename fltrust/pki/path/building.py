"""Paths from a leaf to a trust anchor, one after the other, likely ones first, within bounds (RFC 4158)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TypeAlias

from fltrust.pki.path.budget import Budget
from fltrust.pki.path.facts import Facts
from fltrust.pki.path.names import NameKey
from fltrust.pki.path.signatures import is_issued_by

Path: TypeAlias = tuple[Facts, ...]
"""Leaf first, the anchor last: never the leaf alone."""


class PathBuilder:
    """Knows the certificates that a path may be built of; remembers which signatures it checked.

    A path does not come by one name and key twice, so cycles of cross-certificates end; a mesh of many, which
    has more paths than anybody could try, ends with the budget.
    """

    def __init__(
        self, pool: Sequence[Facts], anchors: Sequence[Facts], *, at: datetime, budget: Budget
    ) -> None:
        self._at = at
        self._budget = budget
        self._anchors = _by_subject(anchors)
        trusted = {anchor.der for anchor in anchors}
        others = [facts for facts in pool if facts.der not in trusted]
        self._pool = _by_subject([facts for facts in others if facts.is_ca])
        self._all = _by_subject([*anchors, *others])
        self._signed: dict[tuple[bytes, bytes], bool] = {}

    def paths(self, leaf: Facts, *, to: Facts | None = None) -> Iterator[Path]:
        """Every path whose names and signatures chain, to any anchor or one, the shortest first.

        Nothing else of it is judged. A long way through many CAs keeps nobody from finding a short one.
        """
        for length in range(2, self._budget.limits.path_length + 1):
            yield from self._of_length(length, (leaf,), frozenset({(leaf.subject, leaf.spki)}), to)

    def named(self, name: NameKey) -> Sequence[Facts]:
        """Everybody of this name, CA or not, anchors first."""
        return self._all.get(name, ())

    def is_signed(self, certificate: Facts, issuer: Facts) -> bool:
        """Whether the issuer's key signed the certificate; each pair is checked once."""
        pair = (certificate.der, issuer.spki)
        if pair not in self._signed:
            self._signed[pair] = is_issued_by(certificate, issuer, budget=self._budget)
        return self._signed[pair]

    def _of_length(
        self, length: int, path: Path, seen: frozenset[tuple[NameKey, bytes]], to: Facts | None
    ) -> Iterator[Path]:
        head, is_last = path[-1], len(path) + 1 == length
        for issuer in self._sorted(head, (self._anchors if is_last else self._pool).get(head.issuer, ())):
            self._budget.step()
            step = (issuer.subject, issuer.spki)
            if is_last:
                if (
                    (to is None or issuer is to)
                    and issuer.der != path[0].der
                    and self.is_signed(head, issuer)
                ):
                    self._budget.path()
                    yield (*path, issuer)
            elif step not in seen and issuer.may_sign() and self.is_signed(head, issuer):
                yield from self._of_length(length, (*path, issuer), seen | {step}, to)

    def _sorted(self, below: Facts, candidates: Sequence[Facts]) -> list[Facts]:
        wanted = below.authority_key_id

        def likelihood(facts: Facts) -> tuple[bool, bool, float]:
            named = wanted is None or facts.subject_key_id is None or facts.subject_key_id == wanted
            is_valid = facts.not_before <= self._at <= facts.not_after
            return not named, not is_valid, -facts.not_before.timestamp()

        return sorted(candidates, key=likelihood)


def _by_subject(certificates: Sequence[Facts]) -> dict[NameKey, list[Facts]]:
    found: dict[NameKey, list[Facts]] = {}
    for facts in certificates:
        found.setdefault(facts.subject, []).append(facts)
    return found
