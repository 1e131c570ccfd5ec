"""The proof on the digits: a poisoner's effect is found, refused and undone, in real processes."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from examples.demo.story import Story
from examples.lab import Lab
from examples.poison import Poisoning, tell

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(600)]


def test_a_poisoned_model_is_refused_and_made_again_without_the_poisoner(tmp_path: Path) -> None:
    story = Story(Console(quiet=True))
    with Lab(tmp_path) as lab:
        found = tell(story, Poisoning(lab))
    assert [claim for claim, holds in story.claims if not holds] == []
    assert len(story.claims) == 13
    assert found["poisoned"] < 0.6 < 0.85 < found["repaired"]
