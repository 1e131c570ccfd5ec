"""The reference's table of callers is the one that decides."""

from __future__ import annotations

import re
from pathlib import Path

from fltrust.coordinator.permissions import BOOTSTRAP_METHODS, METHODS
from fltrust.identity import Role

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "callers.md"
ROLES = (Role.PARTICIPANT, Role.AGGREGATOR, Role.OPERATOR, Role.SIGNER, Role.DEVICE)


def table() -> str:
    """What stands between the marks on the page."""
    lines = [f"| method | {' | '.join(ROLES)} |", "|---|" + "---|" * len(ROLES)]
    for method, roles in METHODS.items():
        marks = " | ".join("yes" if role in roles else "" for role in ROLES)
        lines.append(f"| `{method.removeprefix('/fltrust.v1.')}` | {marks} |")
    return "\n".join(lines)


def test_the_table_of_callers_is_the_one_that_decides() -> None:
    page = PAGE.read_text()
    written = re.search(r"<!-- callers -->\n(.*?)\n?<!-- end -->", page, re.DOTALL)
    assert written
    assert written[1] == table()
    assert not set().union(*METHODS.values()) - set(ROLES)
    for method in BOOTSTRAP_METHODS:
        assert f"`{method.removeprefix('/fltrust.v1.')}`" in page
