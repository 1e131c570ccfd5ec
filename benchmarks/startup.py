"""How long `fltrust --help` takes, as a whole process."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

RUNS = 10


def measure() -> dict[str, float]:
    """Median seconds of `fltrust --help`, and of a bare interpreter beside it."""
    command = [str(Path(sys.executable).parent / "fltrust"), "--help"]
    bare = [sys.executable, "-c", "pass"]
    times: dict[str, list[float]] = {"help": [], "bare": []}
    for _ in range(RUNS):
        for name, arguments in (("help", command), ("bare", bare)):
            start = time.perf_counter()
            subprocess.run(arguments, check=True, capture_output=True)
            times[name].append(time.perf_counter() - start)
    return {name: sorted(found)[RUNS // 2] for name, found in times.items()}


if __name__ == "__main__":
    print(json.dumps(measure(), indent=2))
