"""Measure everything, and write docs/benchmarks.md. Each ratio is from one run on one machine."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fltrust.clock import SystemClock

TARGET = Path(__file__).resolve().parent.parent / "docs" / "benchmarks.md"
RESULTS = Path(__file__).resolve().parent / "results.json"
NOTES = Path(__file__).resolve().parent / "notes.json"
"""For each row that falls short, why; written by people."""


@dataclass(frozen=True, slots=True)
class Goal:
    """One figure that is promised: where it is measured, and its bound."""

    what: str
    section: str
    key: str
    bound: float
    unit: str = "×"
    at_least: bool = False

    def holds(self, value: float) -> bool:
        return value >= self.bound if self.at_least else value <= self.bound


GOALS = (
    Goal(
        "digest + sign of a 100 MB update, beside one SHA-256 pass, one core",
        "digest",
        "sign_ratio_one_core",
        1.10,
    ),
    Goal(
        "digest + verify of a 100 MB update, beside one SHA-256 pass, one core",
        "digest",
        "verify_ratio_one_core",
        1.10,
    ),
    Goal("digest + sign, two cores against one", "digest", "sign_speedup_two_cores", 1.8, at_least=True),
    Goal("digest + verify, two cores against one", "digest", "verify_speedup_two_cores", 1.8, at_least=True),
    Goal(
        "trusted round beside a stock round, tiny model, pulls not held",
        "rounds",
        "tiny_ratio_not_held",
        0.85,
    ),
    Goal("trusted round beside a stock round, tiny model", "rounds", "tiny_ratio", 0.6),
    Goal("trusted round beside a stock round, 100 MB model, relay", "rounds", "large_ratio", 1.10),
    Goal(
        "trusted round beside a stock round, 100 MB model, `--direct`", "rounds", "large_ratio_direct", 1.10
    ),
    Goal("revocation acknowledged to the round released", "revocation", "round_released_s", 0.3, "s"),
    Goal("revocation to pushed to all of 1,000 watchers, p99", "coordinator", "revoke_p99_s", 0.1, "s"),
    Goal(
        "sign 1 GiB by shards, beside model-signing's API",
        "artifacts",
        "sign_shards_speedup",
        1.8,
        at_least=True,
    ),
    Goal(
        "sign 1 GiB of safetensors by file and by tensor, beside model-signing's API",
        "artifacts",
        "sign_default_speedup",
        1.8,
        at_least=True,
    ),
    Goal(
        "verify 1 GiB of safetensors, beside model-signing's API",
        "artifacts",
        "verify_speedup",
        1.8,
        at_least=True,
    ),
    Goal(
        "sign 1 GiB by shards: share of what SHA-256 on all cores allows",
        "artifacts",
        "sign_shards_of_limit",
        0.9,
        at_least=True,
    ),
    Goal(
        "verify 1 GiB: share of what SHA-256 on all cores allows",
        "artifacts",
        "verify_of_limit",
        0.9,
        at_least=True,
    ),
    Goal("verify and load 1 GiB into torch, beside hash-then-load", "artifacts", "load_ratio", 1.0),
    Goal("sign 2,000 files of 8 KiB", "artifacts", "sign_small_files_s", 0.1, "s"),
    Goal("verify 2,000 files of 8 KiB", "artifacts", "verify_small_files_s", 0.1, "s"),
    Goal(
        "`fltrust verify` of a small model, a whole process",
        "artifacts",
        "verify_small_model_process_s",
        0.25,
        "s",
    ),
    Goal("durable appends to the log, 64 at a time", "log", "appends_64_writers_per_s", 1_000, "/s", True),
    Goal(
        "inclusion proof from a log of 1 M entries, beside one from a thousand",
        "log",
        "inclusion_ratio_1M",
        2.5,
    ),
    Goal(
        "checkpoint of a log of 1 M entries, beside one of a thousand",
        "log",
        "checkpoint_ratio_1M",
        1.5,
    ),
    Goal(
        "issuing through the network, one by one, beside OpenBao",
        "pki",
        "single_beside_openbao",
        1.0,
        at_least=True,
    ),
    Goal(
        "issuing in bulk, beside OpenBao's one by one",
        "pki",
        "bulk_beside_openbao_single",
        3.0,
        at_least=True,
    ),
    Goal("10,000 participants enrolled in bulk", "pki", "bulk_10000_s", 15, "s"),
    Goal("1,000 agents renewing within a minute: errors", "pki", "herd_errors", 0, ""),
    Goal("and growth of the coordinator's memory", "pki", "herd_memory_growth_mb", 32, "MB"),
    Goal("complete CRL of 100,000", "status", "crl_complete_s", 1.0, "s"),
    Goal("delta CRL of 1,000 changes", "status", "crl_delta_ms", 50, "ms"),
    Goal("OCSP answers with a nonce, one core", "status", "ocsp_on_demand_per_s", 1_000, "/s", True),
    Goal("revoking the 100,000th, beside the first", "status", "revoke_last_ratio", 1.5),
    Goal("`fltrust --help`, a whole process", "startup", "help", 0.25, "s"),
)
SECTIONS = (
    *("startup", "digest", "artifacts", "coordinator", "revocation", "relay", "rounds", "log"),
    *("status", "pki", "keys"),
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument(
        "sections", nargs="*", choices=[*SECTIONS, []], help="only these; the others stay as they were"
    )
    wanted = parser.parse_args().sections or SECTIONS
    found: dict[str, Mapping[str, float]] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for section in wanted:
        print(f"measuring: {section} …", file=sys.stderr, flush=True)
        found[section] = importlib.import_module(f"benchmarks.{section}").measure()
        print(json.dumps(found[section], indent=2), file=sys.stderr, flush=True)
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    if set(found) == set(SECTIONS):
        TARGET.write_text(render(found))
        print(f"wrote {TARGET.name}", file=sys.stderr)
    return 0


def render(found: Mapping[str, Mapping[str, float]]) -> str:
    notes: dict[str, str] = json.loads(NOTES.read_text()) if NOTES.exists() else {}
    lines = [
        "# Benchmarks",
        "",
        f"Written by `make bench` on {SystemClock().now():%Y-%m-%d}: {_machine()}.",
        "Ratios are of things measured beside each other in one run; absolute times are this machine's.",
        "",
        "| what | measured | goal | |",
        "|---|--:|--:|---|",
    ]
    for goal in GOALS:
        value = found[goal.section][goal.key]
        bound = f"{'≥' if goal.at_least else '≤'} {goal.bound:g} {goal.unit}"
        verdict = "✓" if goal.holds(value) else f"falls short: {notes.get(goal.key, 'not explained yet')}"
        lines.append(f"| {goal.what} | {value:.3g} {goal.unit} | {bound} | {verdict} |")
    lines += ["", "## Everything measured", ""]
    for section, figures in found.items():
        lines += [f"### {section}", "", "| | |", "|---|--:|"]
        lines += [f"| {name} | {value:.4g} |" for name, value in figures.items()]
        lines.append("")
    return "\n".join(lines)


def _machine() -> str:
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    return f"{os.cpu_count()} cores ({model}), {platform.system()}, Python {platform.python_version()}"


if __name__ == "__main__":
    raise SystemExit(main())
