"""``[status]`` in coordinator.toml: what is not understood is refused, what is written is read back."""

from __future__ import annotations

import tomllib
from datetime import timedelta

import pytest

from fltrust.coordinator.folder import CoordinatorSettings
from fltrust.coordinator.status_settings import StatusSettings
from fltrust.errors import Malformed
from fltrust.identity import TrustDomain

HOUR = timedelta(hours=1)


def test_what_is_written_is_read_back() -> None:
    given = StatusSettings(crl_lifetime=12 * HOUR, crl_interval=HOUR, name_point=True)
    settings = CoordinatorSettings(
        domain=TrustDomain("hospitals.example"), bootstrap="a:1", address="a:2", status=given
    )
    text = settings.to_toml()
    assert tomllib.loads(text)["status"]["crl-lifetime"] == 43_200
    assert CoordinatorSettings.from_toml(text).status == given
    assert settings.for_authority().status == given
    assert StatusSettings.from_table({}) == StatusSettings()
    assert StatusSettings().to_toml() == []


@pytest.mark.parametrize(
    "table",
    [
        [],
        {"crl-lifespan": 60},
        {"crl-lifetime": "24h"},
        {"crl-lifetime": True},
        {"crl-lifetime": 1},
        {"ocsp-lifetime": 10**18},
        {"crl-lifetime": 3600, "crl-interval": 3600},
        {"name-distribution-point": "yes"},
    ],
)
def test_what_is_not_understood_is_refused(table: object) -> None:
    with pytest.raises(Malformed):
        StatusSettings.from_table(table)
