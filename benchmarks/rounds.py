"""What trust costs a round: the same app, with and without, in real processes, in one run."""

from __future__ import annotations

import json
import statistics
import tempfile
from itertools import pairwise
from pathlib import Path

from examples.lab.federation import Lab, StockLab, without_fltrust

APP = Path(__file__).resolve().parent / "app"
NODES = 2
ROUNDS = 4
"""The first is left out: processes warm up, and the run begins in it."""


def measure() -> dict[str, float]:
    """Median seconds of a round: tiny (1 kB; train and evaluate), and 100 MB (train only)."""
    tiny = {"model-bytes": 1000, "fraction-evaluate": 1.0}
    large = {"model-bytes": 100_000_000, "fraction-evaluate": 0.0}
    found = {
        "tiny_stock": stock(tiny),
        "tiny_trusted_not_held": trusted(tiny, "--no-hold"),
        "tiny_trusted": trusted(tiny),
        "large_stock": stock(large),
        "large_trusted": trusted(large),
        "large_trusted_direct": trusted(large, direct=True),
    }
    return {
        **found,
        "tiny_ratio_not_held": found["tiny_trusted_not_held"] / found["tiny_stock"],
        "tiny_ratio": found["tiny_trusted"] / found["tiny_stock"],
        "large_ratio": found["large_trusted"] / found["large_stock"],
        "large_ratio_direct": found["large_trusted_direct"] / found["large_stock"],
    }


def stock(config: dict[str, float]) -> float:
    """Plain Flower."""
    with tempfile.TemporaryDirectory() as name, StockLab(Path(name)) as lab:
        app = without_fltrust(APP, Path(name) / "app")
        lab.start_superlink()
        for i in range(NODES):
            lab.start_site(f"site-{i}", f"partition-id={i}")
        return _rounds(lab, app, config)


def trusted(config: dict[str, float], *superlink_options: str, direct: bool = False) -> float:
    """The same app with its two words, under fltrust."""
    with tempfile.TemporaryDirectory() as name, Lab(Path(name)) as lab:
        lab.start_coordinator()
        lab.join("main", "aggregator")
        lab.start_superlink("main", *superlink_options)
        for i in range(NODES):
            lab.join(f"site-{i}")
            lab.start_site(f"site-{i}", f"partition-id={i}", *(["--direct"] if direct else []))
        return _rounds(lab, APP, config)


def _rounds(lab: Lab | StockLab, app: Path, config: dict[str, float]) -> float:
    report = lab.folder / "report.json"
    lab.wait_for_sites(NODES)
    run = lab.run(app, config={**config, "num-server-rounds": ROUNDS, "nodes": NODES, "report": str(report)})
    log = run.wait(300)
    if not report.exists():
        raise RuntimeError(f"the run left no report\n{log[-3000:]}")
    ends = json.loads(report.read_text())
    return statistics.median(later - earlier for earlier, later in pairwise(ends[1:]))


if __name__ == "__main__":
    print(json.dumps(measure(), indent=2))
