"""The section ``[approvals]`` of coordinator.toml: how many operators approve what.

[approvals]
operations = 1          # beside the one who proposes a sensitive operation
replace = 1             # to take an enrolled or revoked name over
manual-requests = true  # take requests without evidence: operators decide the name
decide-within = 604800  # seconds

[approvals.roles]       # to enroll somebody of this role
operator = 2
[approvals.evidence]    # to enroll by this kind of evidence
oidc = 1
[approvals.protocols]   # to enroll through this protocol
scep = 1
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from enum import StrEnum
from typing import TypeVar

from fltrust.enrollment.approvals import ApprovalPolicy
from fltrust.enrollment.types import EnrollmentProtocol
from fltrust.errors import Malformed
from fltrust.identity import Role

SECTION = "approvals"
_KEYS = {"operations", "replace", "manual-requests", "decide-within", "roles", "evidence", "protocols"}
_KIND = re.compile(r"[a-z][a-z0-9-]{0,31}\Z")
_W = TypeVar("_W", bound=StrEnum)


def policy_from_table(table: object) -> ApprovalPolicy:
    """Read the section; None is the default. `Malformed` names what is unknown or not a number."""
    if table is None:
        return ApprovalPolicy()
    if not isinstance(table, dict):
        raise Malformed(f"expected a table [{SECTION}] in the settings")
    if unknown := set(table) - _KEYS:
        raise Malformed(f"expected no setting {min(unknown)!r} under [{SECTION}]")
    manual = table.get("manual-requests", False)
    if not isinstance(manual, bool):
        raise Malformed(f"expected true or false for 'manual-requests' under [{SECTION}]")
    default = ApprovalPolicy()
    return ApprovalPolicy(
        operations=_count(table, "operations"),
        replace=_count(table, "replace"),
        roles=_by_word(table.get("roles", {}), "roles", Role),
        evidence=_counts(table.get("evidence", {}), "evidence"),
        protocols=_by_word(table.get("protocols", {}), "protocols", EnrollmentProtocol),
        is_manual_taken=manual,
        decide_within=timedelta(
            seconds=_count(table, "decide-within", int(default.decide_within.total_seconds()))
        ),
    )


def policy_to_toml(policy: ApprovalPolicy) -> list[str]:
    """The lines of the section; none for the default. `policy_from_table` reads them back."""
    if policy == ApprovalPolicy():
        return []
    lines = [
        "",
        f"[{SECTION}]  # how many operators approve what",
        f"operations = {policy.operations}",
        f"replace = {policy.replace}",
        f"manual-requests = {'true' if policy.is_manual_taken else 'false'}",
        f"decide-within = {int(policy.decide_within.total_seconds())}  # seconds",
    ]
    tables: dict[str, Mapping[str, int]] = {
        "roles": {str(role): count for role, count in policy.roles.items()},
        "evidence": policy.evidence,
        "protocols": {str(protocol): count for protocol, count in policy.protocols.items()},
    }
    for name, counts in tables.items():
        if counts:
            lines += ["", f"[{SECTION}.{name}]", *(f"{key} = {count}" for key, count in counts.items())]
    return lines


def _counts(table: object, name: str) -> dict[str, int]:
    if not isinstance(table, dict):
        raise Malformed(f"expected a table [{SECTION}.{name}] in the settings")
    found = {}
    for key, count in table.items():
        if not isinstance(key, str) or not _KIND.match(key) or not _is_count(count):
            raise Malformed(f"expected '<kind> = <operators>' under [{SECTION}.{name}], got {key!r}")
        found[key] = count
    return found


def _by_word(table: object, name: str, kind: type[_W]) -> dict[_W, int]:
    found = {}
    for key, count in _counts(table, name).items():
        if key not in set(kind):
            raise Malformed(f"expected one of {', '.join(kind)} under [{SECTION}.{name}], got {key!r}")
        found[kind(key)] = count
    return found


def _count(table: dict[str, object], key: str, default: int = 0) -> int:
    value = table.get(key, default)
    if not isinstance(value, int) or not _is_count(value):
        raise Malformed(f"expected a number for {key!r} under [{SECTION}]")
    return value


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31
