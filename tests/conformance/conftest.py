"""Strangers: other people's verifiers, each in an environment of its own, asked about all cases at once."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from cases import Case, all_cases

from tools import strangers

SCRIPTS = Path(__file__).parent / "strangers"


def made(make: Callable[[], Path]) -> Path:
    """A stranger's program, installed on first use. Where that cannot be, CI fails and others skip."""
    try:
        return make()
    except strangers.CannotInstall as error:
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI must not skip: {error}")
        pytest.skip(f"not to be had on this machine: {error}")


def ask(program: Path, script: str, question: Mapping[str, object]) -> object:
    """Run one of the scripts with a stranger's interpreter, without network settings; its answer."""
    done = subprocess.run(
        [program, SCRIPTS / script],
        input=json.dumps(question),
        capture_output=True,
        text=True,
        timeout=100,
        env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "LC_ALL": "C.UTF-8"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.fixture(scope="session")
def cases(tmp_path_factory: pytest.TempPathFactory) -> tuple[Case, ...]:
    return tuple(all_cases(tmp_path_factory.mktemp("cases")))


def ask_about(
    program: Path, script: str, cases: tuple[Case, ...], folder: Path, **more: object
) -> dict[str, dict[str, str]]:
    """Ask about every case in one process; the answers by the case's name."""
    roots = {root: folder / f"root-{n}.json" for n, root in enumerate(dict.fromkeys(c.root for c in cases))}
    for root, path in roots.items():
        path.write_bytes(root)
    questions = [
        {"bundle": c.bundle, "root": str(roots[c.root]), "identity": c.identity, "issuer": c.issuer}
        for c in cases
    ]
    found = ask(program, script, {"cases": questions, **more})
    assert isinstance(found, list)
    assert len(found) == len(cases)
    return dict(zip((case.name for case in cases), found, strict=True))
