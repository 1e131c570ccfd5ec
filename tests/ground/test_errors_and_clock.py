"""Errors form one tree with distinct reasons; times are aware and in UTC."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fltrust import errors
from fltrust.clock import SystemClock, from_rfc3339, to_rfc3339


def test_every_error_stands_in_the_drawing() -> None:
    drawing = errors.__doc__ or ""
    for cls in errors.leaf_classes():
        assert cls.__name__ in drawing


def test_a_message_carries_its_reason_and_its_hint() -> None:
    error = errors.Revoked("site-a is revoked", hint="ask the operator")
    assert (error.reason, str(error)) == ("revoked", "site-a is revoked (ask the operator)")
    assert errors.StatementRefused("x", reason=errors.Refusal.WRONG_RUN).reason == "wrong-run"


@given(st.datetimes(timezones=st.just(UTC)))
def test_a_time_reads_back_as_itself(at: datetime) -> None:
    assert from_rfc3339(to_rfc3339(at)) == at


def test_naive_and_foreign_zones_are_not_taken_for_utc() -> None:
    with pytest.raises(ValueError, match="aware"):
        to_rfc3339(datetime(2026, 1, 1))  # noqa: DTZ001 - the point of the test
    with pytest.raises(ValueError, match="UTC"):
        from_rfc3339("2026-01-01T00:00:00+02:00")
    assert (
        to_rfc3339(datetime(2026, 1, 1, 2, tzinfo=timezone(timedelta(hours=2))))
        == "2026-01-01T00:00:00.000000Z"
    )


def test_the_systems_clock_is_aware() -> None:
    assert SystemClock().now().utcoffset() == timedelta(0)
