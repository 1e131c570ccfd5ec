"""docs/reference/certificate-profiles.md says of lifetimes, usages and names what the profiles say."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

import pytest

from fltrust.identity import Role
from fltrust.pki.profile_file import narrow
from fltrust.pki.profile_values import EXTENDED_NAMES
from fltrust.pki.profiles import CaKind, Pointer, ServiceKind, builtin

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = (DOCS / "reference" / "certificate-profiles.md").read_text("utf-8")
_UNITS = {"m": 60, "h": 3600, "d": 86_400}


def rows(page: str) -> dict[str, list[str]]:
    """Rows of tables, by their first cell."""
    lines = [line.strip().strip("|").split("|") for line in page.splitlines() if line.startswith("|")]
    return {cells[0].strip(): [cell.strip() for cell in cells[1:]] for cells in lines}


def span(text: str) -> timedelta:
    found = re.fullmatch(r"([0-9]+)([mhd])", text)
    assert found is not None, text
    return timedelta(seconds=int(found[1]) * _UNITS[found[2]])


def pointers(text: str) -> frozenset[Pointer]:
    return frozenset() if text == "none" else frozenset(map(Pointer, text.split(", ")))


@pytest.mark.parametrize("role", Role)
def test_the_row_of_every_role_is_its_profile(role: Role) -> None:
    profile = builtin().leaves[role]
    usages, names, default, most, pointed = rows(PAGE)[role]
    assert set(usages.split(", ")) == {EXTENDED_NAMES[oid] for oid in profile.extended_key_usage}
    own = "own" if profile.has_dns_name else ""
    more = {
        (0, 0): "" if own else "0",
        (1, 16): "1 to 16",
        (0, 16): "and up to 16",
    }[(profile.min_dns_names, profile.max_dns_names)]
    assert names == ", ".join(filter(None, (own, more)))
    assert (span(default), span(most)) == (profile.default_lifetime, profile.max_lifetime)
    assert pointers(pointed) == profile.pointers
    assert profile.may_be_rsa is (role is Role.DEVICE)


@pytest.mark.parametrize("kind", ServiceKind)
def test_the_row_of_every_service_is_its_profile(kind: ServiceKind) -> None:
    profile = builtin().services[kind]
    usage, _, default, most, pointed = rows(PAGE)[kind]
    assert usage.startswith(EXTENDED_NAMES[profile.extended_key_usage])
    assert ("critical" in usage, "no-check" in usage) == (profile.is_extended_critical, profile.has_no_check)
    assert (span(default), span(most)) == (profile.default_lifetime, profile.max_lifetime)
    assert pointers(pointed) == profile.pointers


@pytest.mark.parametrize("kind", CaKind)
def test_the_row_of_every_ca_is_its_profile(kind: CaKind) -> None:
    profile = builtin().authorities[kind]
    length, constraints, default, most, pointed = rows(PAGE)[kind]
    assert int(length) == profile.path_length
    assert constraints.startswith("always" if profile.is_constrained else "never")
    assert (span(default), span(most)) == (profile.lifetime, profile.max_lifetime)
    assert pointers(pointed) == profile.pointers


def test_the_operators_file_on_the_page_is_one() -> None:
    (text,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    found = narrow(builtin(), text)
    assert found.leaves[Role.PARTICIPANT].max_lifetime == timedelta(hours=2)
    assert found.leaves[Role.SERVER].max_dns_names == 4
