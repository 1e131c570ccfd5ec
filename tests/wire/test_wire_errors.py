"""Errors cross the wire once, whole, and nothing of ours or of strangers is lost or told too much."""

from __future__ import annotations

import grpc
import pytest

from fltrust import errors
from fltrust.errors import CoordinatorUnavailable, FltrustError, LimitExceeded, Revoked, TokenRefused
from fltrust.wire.errors import (
    STATUS_KEY,
    agent_error_from_pb,
    agent_error_to_pb,
    code_of,
    error_from_status,
    status_of,
)


def across(error: BaseException) -> FltrustError:
    code, message, details = status_of(error)
    return error_from_status(code, message, [("x-other", "1"), (STATUS_KEY, details)])


@pytest.mark.parametrize("cls", errors.leaf_classes())
def test_every_class_of_the_tree_comes_back_as_itself(cls: type[FltrustError]) -> None:
    sent = cls("expected this, got that", reason="a-reason", hint="do so")
    for back in (across(sent), agent_error_from_pb(agent_error_to_pb(sent))):
        assert type(back) is cls
        assert (back.message, back.reason, back.hint) == (sent.message, sent.reason, sent.hint)
    plain = across(cls("no hint"))
    assert plain.hint is None
    assert plain.reason == cls.default_reason


@pytest.mark.parametrize("cls", errors.leaf_classes())
def test_every_class_has_a_grpc_code(cls: type[FltrustError]) -> None:
    assert code_of(cls("x")) is not grpc.StatusCode.OK


def test_a_subclass_from_elsewhere_crosses_as_the_root_with_its_reason() -> None:
    class Private(Revoked):
        pass

    back = across(Private("no", reason="held"))
    assert type(back) is FltrustError
    assert back.reason == "held"


def test_an_unexpected_error_crosses_without_its_words(caplog: pytest.LogCaptureFixture) -> None:
    code, message, details = status_of(RuntimeError("secret=hunter2"))
    assert code is grpc.StatusCode.INTERNAL
    assert b"hunter2" not in details
    assert "hunter2" not in message
    error_id = message.split()[-1]
    assert error_id in caplog.text
    assert "hunter2" in caplog.text
    assert "hunter2" not in agent_error_to_pb(RuntimeError("hunter2")).message


def test_a_class_that_is_not_known_here_keeps_its_reason() -> None:
    code, message, details = status_of(Revoked("gone", reason="quarantined", hint="ask"))
    renamed = details.replace(b"Revoked", b"Cursed!")
    back = error_from_status(code, message, [(STATUS_KEY, renamed)])
    assert type(back) is errors.PermissionDenied  # what the grpc code says
    assert (back.message, back.reason, back.hint) == ("gone", "quarantined", "ask")


@pytest.mark.parametrize("details", [b"\xff\xff", b"", b"\x08\x07"])
def test_details_that_are_not_ours_leave_the_code_and_the_words(details: bytes) -> None:
    back = error_from_status(grpc.StatusCode.RESOURCE_EXHAUSTED, "too much", [(STATUS_KEY, details)])
    assert type(back) is LimitExceeded
    assert "too much" in back.message


@pytest.mark.parametrize(
    "code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED]
)
def test_no_answer_is_an_unavailable_coordinator(code: grpc.StatusCode) -> None:
    assert type(error_from_status(code, "x", [])) is CoordinatorUnavailable


def test_a_long_message_is_cut_so_that_trailers_stay_small() -> None:
    sent = TokenRefused("漢" * 10_000, hint="語" * 10_000, reason="r" * 10_000)
    code, message, details = status_of(sent)
    assert len(details) * 4 / 3 + len(message.encode()) * 3 < 8_000
    assert type(error_from_status(code, message, [(STATUS_KEY, details)])) is TokenRefused
