"""Certificate policies along a path (RFC 5280, 6.1, with the policy graph of RFC 9618 in place of the tree).

A tree of policies can grow without bound with the length of the path; the graph has one node for each policy
at each depth, and is bounded besides.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cryptography import x509

from fltrust.errors import Refusal
from fltrust.pki.leaf import refuse
from fltrust.pki.path.facts import Facts
from fltrust.pki.path.types import ANY_POLICY, PathPolicy

Oid = x509.ObjectIdentifier


@dataclass(slots=True, eq=False)
class _Node:
    policy: Oid
    expected: frozenset[Oid]
    parents: frozenset[_Node] = field(default=frozenset())


class PolicyState:
    """The graph and the three counters of RFC 5280, 6.1.2, moved on certificate by certificate."""

    def __init__(self, policy: PathPolicy, *, length: int) -> None:
        self._limit = policy.limits.policy_nodes
        self._initial = policy.policies
        self._length = length
        self._at = 0
        self._explicit = 0 if policy.require_explicit_policy else length + 1
        self._inhibit_any = 0 if policy.inhibit_any_policy else length + 1
        self._mapping = 0 if policy.inhibit_policy_mapping else length + 1
        root = _Node(ANY_POLICY, frozenset({ANY_POLICY}))
        self._levels: list[dict[Oid, _Node]] | None = [{ANY_POLICY: root}]

    def enter(self, facts: Facts) -> None:
        """6.1.3 d to f, for the next certificate; refuse if no policy is left where one must be."""
        self._at += 1
        policies = facts.policies
        if policies is None:
            self._levels = None
        elif self._levels is not None:
            self._grow(policies, facts)
        if self._explicit == 0 and self._levels is None:
            self._refuse(facts)

    def leave(self, facts: Facts) -> None:
        """6.1.4 a, b and h to j, for a certificate that others follow."""
        if any(ANY_POLICY in pair for pair in facts.mappings):
            refuse(
                f"expected no mapping of anyPolicy in the certificate of {facts.label}, found one",
                reason=Refusal.CERTIFICATE_PATH,
            )
        self._map(facts.mappings)
        if not facts.is_self_issued:
            self._explicit = max(0, self._explicit - 1)
            self._mapping = max(0, self._mapping - 1)
            self._inhibit_any = max(0, self._inhibit_any - 1)
        constraints = facts.get(x509.PolicyConstraints)
        if constraints is not None:
            if constraints.require_explicit_policy is not None:
                self._explicit = min(self._explicit, constraints.require_explicit_policy)
            if constraints.inhibit_policy_mapping is not None:
                self._mapping = min(self._mapping, constraints.inhibit_policy_mapping)
        inhibit = facts.get(x509.InhibitAnyPolicy)
        if inhibit is not None:
            self._inhibit_any = min(self._inhibit_any, inhibit.skip_certs)

    def finish(self, facts: Facts) -> frozenset[Oid]:
        """6.1.5 a, b and g: the user-constrained policy set; refuse where it is empty and must not be."""
        self._explicit = max(0, self._explicit - 1)
        constraints = facts.get(x509.PolicyConstraints)
        if constraints is not None and constraints.require_explicit_policy == 0:
            self._explicit = 0
        valid = self._constrained()
        if self._explicit == 0 and not valid:
            self._refuse(facts)
        return valid

    def _grow(self, policies: frozenset[Oid], facts: Facts) -> None:
        levels = self._levels
        assert levels is not None  # noqa: S101 - the caller's branch
        above = levels[-1]
        level: dict[Oid, _Node] = {}
        for oid in policies - {ANY_POLICY}:  # d.1
            parents = frozenset(node for node in above.values() if oid in node.expected)
            if not parents and ANY_POLICY in above:
                parents = frozenset({above[ANY_POLICY]})
            if parents:
                level[oid] = _Node(oid, frozenset({oid}), parents)
        is_last = self._at == self._length
        if ANY_POLICY in policies and (
            self._inhibit_any > 0 or (not is_last and facts.is_self_issued)
        ):  # d.2
            wanted: dict[Oid, set[_Node]] = {}
            for node in above.values():
                for oid in node.expected:
                    wanted.setdefault(oid, set()).add(node)
            for oid, nodes in wanted.items():
                if oid not in level:
                    level[oid] = _Node(oid, frozenset({oid}), frozenset(nodes))
        levels.append(level)
        self._prune()  # d.3
        if self._levels is not None and sum(map(len, self._levels)) > self._limit:
            refuse(f"expected at most {self._limit} policies in a path, got more", reason=Refusal.OVERSIZED)

    def _map(self, mappings: tuple[tuple[Oid, Oid], ...]) -> None:
        if self._levels is None or not mappings:
            return
        level = self._levels[-1]
        targets: dict[Oid, set[Oid]] = {}
        for issuer, subject in mappings:
            targets.setdefault(issuer, set()).add(subject)
        if self._mapping == 0:
            for issuer in targets:
                level.pop(issuer, None)
            self._prune()
            return
        for issuer, subjects in targets.items():
            if issuer in level:
                level[issuer].expected = frozenset(subjects)
            elif ANY_POLICY in level:
                level[issuer] = _Node(issuer, frozenset(subjects), level[ANY_POLICY].parents)

    def _prune(self) -> None:
        """Drop every node above the last level that leads to none on it; with the root goes the graph."""
        levels = self._levels
        assert levels is not None  # noqa: S101 - the callers' branches
        for upper, lower in zip(reversed(levels[:-1]), reversed(levels[1:]), strict=True):
            alive = frozenset[_Node]().union(*(node.parents for node in lower.values()))
            for oid in [oid for oid, node in upper.items() if node not in alive]:
                del upper[oid]
        if not levels[0] or not levels[-1]:
            self._levels = None

    def _constrained(self) -> frozenset[Oid]:
        """RFC 9618, 5.4: the policies under which the anchor's domain vouches, cut to those asked for."""
        if self._levels is None:
            return frozenset()
        found = {
            node.policy
            for level in self._levels[1:]
            for node in level.values()
            if node.policy != ANY_POLICY and any(parent.policy == ANY_POLICY for parent in node.parents)
        }
        is_any = ANY_POLICY in self._levels[-1]
        if ANY_POLICY in self._initial:
            return frozenset(found | {ANY_POLICY} if is_any else found)
        return self._initial if is_any else frozenset(found & self._initial)

    @staticmethod
    def _refuse(facts: Facts) -> None:
        refuse(
            "expected a certificate policy that is acceptable and valid along the path, found none at the "
            f"certificate of {facts.label}",
            reason=Refusal.CERTIFICATE_PATH,
        )
