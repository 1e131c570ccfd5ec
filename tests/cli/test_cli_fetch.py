"""`fltrust fetch-verified` and `fltrust pack-oci`, as run: exit codes, and what is left behind."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fltrust.artifacts import sign
from fltrust.clock import SystemClock
from fltrust.testing.desk import RELEASE, ScratchDesk

FLTRUST = Path(sys.executable).parent / "fltrust"
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs a command in a folder with a signed model, its trust file and a policy."""
    desk = ScratchDesk(clock=SystemClock())
    (tmp_path / "digits" / "parts").mkdir(parents=True)
    (tmp_path / "digits" / "parts" / "a.dat").write_bytes(b"a" * 1000)
    sign(tmp_path / "digits", desk=desk, lineage=desk)
    (tmp_path / "trust.json").write_bytes(desk.trust_file())
    (tmp_path / "policy.toml").write_text(
        f'version = 1\nmode = "advisory"\n[[signers]]\nidentity = "{RELEASE}"\n'
    )

    def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("FLTRUST_")}
        return subprocess.run(
            [FLTRUST, *arguments],
            cwd=tmp_path,
            env={**kept, **variables},
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run


def test_a_model_that_verifies_is_copied_and_its_place_is_printed(run: Run, tmp_path: Path) -> None:
    done = run("fetch-verified", "digits", "out", "--trust", "trust.json", "--identity", str(RELEASE))
    assert (done.returncode, done.stdout) == (0, "out\n"), done.stderr
    assert (tmp_path / "out" / "parts" / "a.dat").read_bytes() == b"a" * 1000


def test_the_variables_of_an_init_container_are_enough(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mount").mkdir()
    done = run("fetch-verified", "digits", "mount", FLTRUST_TRUST="trust.json", FLTRUST_POLICY="policy.toml")
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in (tmp_path / "mount").iterdir()) == ["model.sig", "parts"]


def test_of_a_refused_model_nothing_is_copied_also_where_the_policy_advises(run: Run, tmp_path: Path) -> None:
    other = tmp_path / "policy.toml"
    other.write_text(other.read_text().replace("/release", "/somebody-else"))
    done = run("fetch-verified", "digits", "out", "--trust", "trust.json", "--policy", "policy.toml")
    assert done.returncode == 11
    (tmp_path / "digits" / "parts" / "a.dat").write_bytes(b"b" * 1000)
    done = run("fetch-verified", "digits", "out", "--trust", "trust.json", "--identity", str(RELEASE))
    assert done.returncode == 12
    assert "file-changed" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_name_is_demanded_before_anything_is_copied(run: Run, tmp_path: Path) -> None:
    done = run("fetch-verified", "digits", "out", "--trust", "trust.json")
    assert (done.returncode, "identity-required" in done.stderr) == (11, True)
    assert not (tmp_path / "out").exists()


def test_a_layout_is_packed_and_fetched(run: Run, tmp_path: Path) -> None:
    packed = run("pack-oci", "digits", "layout", "--tag", "1.0")
    assert packed.returncode == 0, packed.stderr
    assert "(tag 1.0)" in packed.stdout
    done = run("fetch-verified", "oci:layout:1.0", "out", "--trust", "trust.json", "--identity", str(RELEASE))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "parts" / "a.dat").read_bytes() == b"a" * 1000
    assert run("pack-oci", "digits", "layout").returncode == 7
