"""What a statement had to say, and the refusal of one that says something else."""

from __future__ import annotations

from fltrust.errors import Refusal, StatementRefused


def expect(found: object, wanted: object, what: str, reason: Refusal) -> None:
    """Return only if the statement's `what` is the one wanted; raise `StatementRefused` with `reason`."""
    if found != wanted:
        raise refused(f"{what} {wanted}", found, reason)


def refused(wanted: str, found: object, reason: Refusal) -> StatementRefused:
    """The refusal, in the words that all of them have."""
    return StatementRefused(f"expected a statement for {wanted}, got one for {found}", reason=reason)
