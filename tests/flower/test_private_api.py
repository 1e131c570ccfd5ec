"""What we lean on in Flower's private API is there, on the version that is installed."""

from __future__ import annotations

import pytest

from fltrust.errors import Unavailable
from fltrust.flower import _private


@pytest.mark.parametrize("symbol", _private.SYMBOLS, ids=lambda symbol: symbol.where)
def test_flower_still_has(symbol: _private.Symbol) -> None:
    assert symbol.problem() is None


def test_a_name_that_moved_is_told_in_a_sentence() -> None:
    gone = _private.Symbol("flwr.supercore.constant:NO_SUCH_NAME", "the test")
    (text,) = _private.problems((gone,))
    assert "has no flwr.supercore.constant:NO_SUCH_NAME, needed for the test" in text
    with pytest.raises(Unavailable, match="needed for the test"):
        _private.require((gone,))


def test_a_parameter_that_moved_is_told_in_a_sentence() -> None:
    moved = _private.Symbol("flwr.superlink.main:create_app", "the test", ("config", "colour"))
    (text,) = _private.problems((moved,))
    assert "takes no colour, needed for the test" in text
