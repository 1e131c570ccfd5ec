"""x509-limbo and NIST's PKITS: we say what they say, or the table in the docs says why not."""

from __future__ import annotations

import re

import pytest
from path_suites import TABLE, Case, agrees, differences, limbo_cases, pkits_cases

ABSENT = pytest.param(None, marks=pytest.mark.skip("x509-limbo is not at ../shared/data/limbo.json"))
LIMBO = limbo_cases()
PKITS = list(pkits_cases())

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.mark.parametrize("case", [pytest.param(c, id=c.name) for c in LIMBO] or [ABSENT])
def test_limbo_and_our_validation_agree_but_where_the_table_says_why(case: Case) -> None:
    assert agrees("limbo", case)


@pytest.mark.parametrize("case", [pytest.param(c, id=c.name) for c in PKITS])
def test_pkits_and_our_validation_agree_but_where_the_table_says_why(case: Case) -> None:
    assert agrees("PKITS", case)


@pytest.mark.parametrize(("suite", "cases"), [("limbo", LIMBO), ("PKITS", PKITS)])
def test_the_table_speaks_of_cases_that_there_are_and_counts_them(suite: str, cases: list[Case]) -> None:
    if not cases:
        pytest.skip("x509-limbo is not at ../shared/data/limbo.json")
    assert set(differences(suite)) <= {case.name for case in cases}
    counted = re.search(rf"^\| {suite} \| (\d+) \| (\d+) \| (\d+) \|$", TABLE.read_text(), re.MULTILINE)
    differ = len(differences(suite))
    assert counted is not None
    assert tuple(map(int, counted.groups())) == (len(cases), len(cases) - differ, differ)
