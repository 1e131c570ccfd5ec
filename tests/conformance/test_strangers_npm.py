"""npm's @sigstore/verify, unmodified and offline, checks what we sign: versions 3 and 4."""

from __future__ import annotations

from pathlib import Path

import pytest
from cases import Case
from conftest import ask_about, made

from fltrust.artifacts.ports import EntryKind
from tools import strangers

pytestmark = pytest.mark.slow  # the first run installs

KNOWS = {"3": {EntryKind.DSSE}, "4": set(EntryKind)}
"""Version 3 does not know hashedrekord 0.0.2: for it we sign with a dsse 0.0.1 entry."""


@pytest.mark.parametrize("major", KNOWS)
def test_sigstore_verify_takes_what_is_good_and_nothing_else(
    major: str, cases: tuple[Case, ...], tmp_path: Path
) -> None:
    node, modules = made(strangers.node), made(strangers.node_modules)
    answers = ask_about(node, "verify.cjs", cases, tmp_path, major=major, modules=str(modules))
    taken = {name for name, answer in answers.items() if "error" not in answer}
    assert taken == {case.name for case in cases if case.is_good and case.kind in KNOWS[major]}, answers


def test_what_version_3_does_not_know_is_the_entry_alone(cases: tuple[Case, ...], tmp_path: Path) -> None:
    node, modules = made(strangers.node), made(strangers.node_modules)
    answers = ask_about(node, "verify.cjs", cases, tmp_path, major="3", modules=str(modules))
    assert answers[f"{EntryKind.HASHEDREKORD}: as we sign it"]["error"].startswith("TLOG_BODY_ERROR")
