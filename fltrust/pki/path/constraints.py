"""Name constraints along a path (RFC 5280, 4.2.1.10, 6.1.3 b and c, 6.1.4 g), for every kind of name."""

from __future__ import annotations

from collections.abc import Iterator

from cryptography import x509
from cryptography.x509.oid import NameOID

from fltrust.errors import Refusal
from fltrust.pki.leaf import PARSE_ERRORS, refuse
from fltrust.pki.path.budget import Budget
from fltrust.pki.path.facts import Facts
from fltrust.pki.path.general_names import CONSTRAINABLE, is_covered
from fltrust.pki.path.names import MAX_ATTRIBUTES


class NameConstraintState:
    """The constraints in force at one place of a path: each CA's apply to everything below it.

    A name must lie within what every CA permits, where that CA permits some of its kind, and in nothing that
    any CA excludes. A kind that is not processed (otherName, registeredID…) is refused if it is constrained.
    """

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._permitted: list[list[x509.GeneralName]] = []
        self._excluded: list[x509.GeneralName] = []

    def add(self, constraints: x509.NameConstraints | None) -> None:
        """Put a CA's constraints in force for what follows."""
        if constraints is None:
            return
        self._permitted.append(list(constraints.permitted_subtrees or ()))
        self._excluded.extend(constraints.excluded_subtrees or ())

    def check(self, facts: Facts) -> None:
        """Return only if every name of the certificate is admitted; refuse with ``certificate-path``."""
        if not self._permitted and not self._excluded:
            return
        try:
            for name in _names_of(facts):
                self._check_name(name, facts)
        except PARSE_ERRORS:
            refuse(
                "expected names and name constraints that can be compared for the certificate of "
                f"{facts.label}, found others",
                reason=Refusal.CERTIFICATE_PATH,
            )

    def _check_name(self, name: x509.GeneralName, facts: Facts) -> None:
        kind = type(name)
        for subtrees in self._permitted:
            same = [base for base in subtrees if type(base) is kind]
            if same and not self._is_in_one(name, same):
                self._refuse(name, facts, "is not within what a CA above it permits")
        same = [base for base in self._excluded if type(base) is kind]
        if same and self._is_in_one(name, same, excluded=True):
            self._refuse(name, facts, "is excluded by a CA above it")

    def _is_in_one(
        self, name: x509.GeneralName, bases: list[x509.GeneralName], *, excluded: bool = False
    ) -> bool:
        if not isinstance(name, CONSTRAINABLE):
            return excluded  # neither permitted nor known not to be excluded
        self._budget.comparisons(len(bases))
        # Every base is compared, so that one that is malformed is found wherever it stands.
        return True in [is_covered(name, base, excluded=excluded) for base in bases]

    @staticmethod
    def _refuse(name: x509.GeneralName, facts: Facts, why: str) -> None:
        refuse(
            f"expected names that the CAs above allow, the {type(name).__name__} of the certificate of "
            f"{facts.label} {why}",
            reason=Refusal.CERTIFICATE_PATH,
        )


def _names_of(facts: Facts) -> Iterator[x509.GeneralName]:
    subject = facts.certificate.subject
    if facts.subject:
        yield x509.DirectoryName(subject)
    alternative = facts.get(x509.SubjectAlternativeName)
    if alternative is not None:
        yield from alternative
    if alternative is None or not any(isinstance(name, x509.RFC822Name) for name in alternative):
        for attribute in subject.get_attributes_for_oid(NameOID.EMAIL_ADDRESS)[:MAX_ATTRIBUTES]:
            yield x509.RFC822Name(str(attribute.value))
