from __future__ import annotations

from pathlib import Path

from fltrust.coordinator.permissions import METHODS
from fltrust.coordinator.rest.table import ENDPOINTS

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "rest.md"


def test_the_table_of_rest_calls_is_the_code() -> None:
    expected = [
        f"| {one.verb} {one.path} | {one.method.removeprefix('/fltrust.v1.')} | "
        f"{', '.join(sorted(METHODS[one.method]))} |"
        for one in ENDPOINTS
    ]
    rows = [
        line for line in PAGE.read_text().splitlines() if line.startswith(("| GET", "| POST", "| DELETE"))
    ]
    assert rows == expected
