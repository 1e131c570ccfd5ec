"""Run the Flower-facing tests against every Flower minor, from 1.40 on, that installs.

The version that `constraints.txt` pins is left to `make test`. A version that pip cannot resolve is
said so and passed over; one that installs and fails, fails.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MINORS = ("1.40", "1.41", "1.42")
TESTS = (
    "tests/flower",
    "tests/testing",
    "tests/e2e/test_federation.py::test_a_sleeper_that_is_revoked_does_not_hold_up_the_round",
)
TOOLS = ("pytest", "pytest-timeout", "hypothesis", "scikit-learn")


def main() -> int:
    failed = [minor for minor in MINORS if minor != pinned() and not passes(minor)]
    if failed:
        print(f"Flower {', '.join(failed)}: tests failed", file=sys.stderr)
    return 1 if failed else 0


def pinned() -> str:
    """The minor version that the suite runs with."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    version = next(line.partition("==")[2] for line in lines if line.startswith("flwr=="))
    return ".".join(version.split(".")[:2])


def passes(minor: str) -> bool:
    """Install this minor beside the pinned versions of everything else, and run the tests."""
    venv = ROOT / f".venv-flwr-{minor}"
    python = venv / "bin" / "python"
    stamp = venv / ".installed"
    if not stamp.exists():
        constraints = venv / "constraints.txt"
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
        kept = [
            line
            for line in (ROOT / "constraints.txt").read_text().splitlines()
            if not line.startswith("flwr==")
        ]
        constraints.write_text("\n".join(kept) + "\n")
        install = [str(python), "-m", "pip", "install", "--quiet", "--constraint", str(constraints)]
        wanted = [f"flwr=={minor}.*", *TOOLS, "--editable", f"{ROOT}[flower,coordinator]"]
        done = subprocess.run([*install, *wanted], capture_output=True, text=True)
        if done.returncode != 0:
            reason = next((s for s in done.stderr.splitlines() if s.startswith("ERROR")), "pip failed")
            print(f"Flower {minor} does not install here, so it is not tested: {reason[:200]}")
            return "No matching distribution" in done.stderr or "ResolutionImpossible" in done.stderr
        stamp.touch()
    print(f"Flower {minor}:", flush=True)
    command = [str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS]
    return subprocess.run(command, cwd=ROOT, env={**os.environ}).returncode == 0


if __name__ == "__main__":
    raise SystemExit(main())
