"""Durations, times, targets and exit codes, as people type and scripts read them."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest

from fltrust import errors
from fltrust.cli.exits import EXIT_CODES, MEANINGS, exit_code_of
from fltrust.cli.main import build_app
from fltrust.cli.session import identity_from
from fltrust.cli.times import parse_duration, parse_time
from fltrust.errors import Malformed
from fltrust.identity import Role, SpiffeId, TrustDomain

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
DOMAIN = TrustDomain("hospitals.example")


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("15m", 900), ("1h", 3600), ("7d", 604800), ("1h30m", 5400)]
)
def test_durations_are_read_as_people_write_them(text: str, seconds: int) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "15", "m", "15 m", "-5m", "1.5h", "1w", "9999999s", "15m "])
def test_what_is_no_duration_is_malformed(text: str) -> None:
    with pytest.raises(Malformed, match="15m"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2h", NOW - timedelta(hours=2)),
        ("2026-01-31T10:00:00Z", datetime(2026, 1, 31, 10, tzinfo=UTC)),
        ("2026-01-31T10:00", datetime(2026, 1, 31, 10, tzinfo=UTC)),
        ("2026-01-31T10:00:00+02:00", datetime(2026, 1, 31, 8, tzinfo=UTC)),
    ],
)
def test_times_are_utc_unless_they_say_otherwise(text: str, expected: datetime) -> None:
    assert parse_time(text, now=NOW) == expected


def test_what_is_no_time_is_malformed() -> None:
    with pytest.raises(Malformed):
        parse_time("yesterday", now=NOW)


@pytest.mark.parametrize(
    ("text", "role", "name"),
    [
        ("site-a", Role.PARTICIPANT, "site-a"),
        ("aggregator/main", Role.AGGREGATOR, "main"),
        ("spiffe://hospitals.example/operator/admin", Role.OPERATOR, "admin"),
    ],
)
def test_an_identity_is_a_name_a_role_and_name_or_a_spiffe_id(text: str, role: Role, name: str) -> None:
    assert identity_from(text, domain=DOMAIN) == SpiffeId.of(DOMAIN, role, name)


@pytest.mark.parametrize("text", ["", "nurse/a", "Site-A", "participant/", "/a", "coordinator/x", "a/b/c"])
def test_what_is_no_identity_is_malformed(text: str) -> None:
    with pytest.raises(Malformed):
        identity_from(text, domain=DOMAIN)


def test_every_error_has_an_exit_code_with_a_meaning() -> None:
    for cls in errors.leaf_classes():
        assert exit_code_of(cls("x")) in MEANINGS
    assert exit_code_of(errors.TokenRefused("x")) == EXIT_CODES[errors.Refused]
    assert exit_code_of(errors.Revoked("x")) == 4
    assert exit_code_of(errors.FltrustError("x")) == 1


@pytest.mark.parametrize(
    ("missing", "arguments", "extra"),
    [
        ("flwr", ["supernode", "--", "--superlink", "127.0.0.1:1"], "flower"),
        ("flwr", ["superlink", "--"], "flower"),
        ("sqlalchemy", ["coordinator", "serve"], "coordinator"),
    ],
)
def test_a_command_that_needs_an_extra_says_which(missing: str, arguments: list[str], extra: str) -> None:
    script = (
        "import sys\n"
        f"sys.modules[{missing!r}] = None\n"
        "from fltrust.cli.main import run\n"
        f"sys.exit(run({arguments!r}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 2, done.stderr
    assert f"pip install 'fltrust[{extra}]'" in done.stderr


def test_the_help_of_the_whole_is_the_same_without_what_commands_take(
    capsys: pytest.CaptureFixture[str],
) -> None:
    told = []
    for is_outline in (True, False):
        with suppress(SystemExit):
            build_app(is_outline=is_outline)(args=["--help"], standalone_mode=False, prog_name="fltrust")
        told.append(capsys.readouterr().out)
    assert told[0] == told[1]
    assert "coordinator" in told[0]
