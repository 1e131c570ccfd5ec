"""A poisoned model: found out, refused, and made again without the poisoner. Real processes, a few minutes.

    python -m examples.poison [--folder FOLDER]

1. Four sites train for four rounds; the updates are kept, encrypted to a recovery key. From round 3 on site-d
   sends a scaled update of a label-flipped model. What comes out is signed and, so far, verifies.
2. The operator revokes site-d as compromised since round 3. `fltrust blast-radius` lists what holds its
   updates; with the new trust file `fltrust verify` refuses the model.
3. `fltrust rounds replay` makes the rounds again, as far as nothing depends on site-d, and signs the result
   with lineage to what it stands in for.
4. The three others train on from it, and once more from the start without site-d, for comparison.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from examples.demo.story import Story
from examples.lab import Lab, Run
from examples.lab.federation import DIGITS

SITES = ("site-a", "site-b", "site-c", "site-d")
BAD = "site-d"
ROUNDS, POISONED_FROM = 4, 3
TAINTED = 14
"""What `fltrust verify` exits with."""


@dataclass(frozen=True, slots=True)
class Trained:
    """A run of the app: its id, the model it wrote, and its accuracy after each round."""

    run_id: str
    model: Path
    accuracy: dict[int, float]

    @property
    def last(self) -> float:
        return self.accuracy[max(self.accuracy)]


class Poisoning:
    """The lab, the app, and the files that the story is about."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.out = lab.folder / "models"
        self.out.mkdir()
        self.trust = self.out / "trust.json"
        self.key = lab.folder / "recovery.pem"
        self.passphrase = lab.folder / "recovery-passphrase"
        self.passphrase.write_text("another passphrase for the lab\n")
        self.passphrase.chmod(0o600)
        self.signer = f"spiffe://{lab.domain}/signer/release"
        self.app = _keeping_app(lab.folder / "app")

    def start(self) -> None:
        lab = self.lab
        lab.start_coordinator()
        lab.fltrust("rounds", "recovery-key", str(self.key), "--passphrase-file", str(self.passphrase))
        lab.join("main", "aggregator")
        lab.join("release", "signer")
        lab.start_superlink()
        for number, site in enumerate(SITES):
            lab.join(site)
            hostile = f" hostile-from-round={POISONED_FROM}" if site == BAD else ""
            lab.start_site(site, f"partition-id={number}{hostile}")
        lab.wait_for_sites(len(SITES))

    def train(self, name: str, *, rounds: int, nodes: int, start_from: Path | None = None) -> Trained:
        """Run the app to its end."""
        model, report = self.out / f"{name}.safetensors", self.out / f"{name}.json"
        run: Run = self.lab.run(
            self.app,
            name=name,
            config={
                "num-server-rounds": rounds,
                "min-nodes": nodes,
                "retain": str(self.retained),
                "recipient": f"{self.key}.pub",
                "model": str(model),
                "report": str(report),
                "start-from": str(start_from or ""),
                "trust": str(self.trust),
                "signer": self.signer,
            },
        )
        log = run.wait(180)
        if not report.exists():
            raise RuntimeError(f"the run {name} did not get through\n{log[-3000:]}")
        found = {int(r): m["accuracy"] for r, m in json.loads(report.read_text()).items()}
        return Trained(run.run_id, model, found)

    @property
    def retained(self) -> Path:
        return self.lab.folder / "retained"

    def sign(self, model: Path) -> None:
        self.lab.fltrust("sign", str(model), "--as", "release")

    def export_trust(self) -> None:
        self.lab.fltrust("trust", "export", str(self.trust))

    def verify(self, model: Path) -> tuple[int, dict[str, Any]]:
        """Exit code and report of `fltrust verify`."""
        done = self.lab.fltrust(
            *("verify", str(model), "--trust", str(self.trust), "--identity", self.signer, "--json"),
            check=False,
        )
        return done.returncode, json.loads(done.stdout)

    def poisoned_since(self, run_id: str) -> str:
        """When the round with the first poisoned update was opened."""
        rows = self.lab.fltrust_json("rounds", "show", run_id)
        (row,) = [r for r in rows if r["phase"] == "train" and r["round"] == POISONED_FROM]
        opened: str = row["opened_at"]
        return opened

    def replay(self, run_id: str, since: str, out: Path) -> dict[str, Any]:
        found: dict[str, Any] = self.lab.fltrust_json(
            *("rounds", "replay", run_id, "--without", BAD, "--since", since),
            *("--retained", str(self.retained), "--key", str(self.key)),
            *("--passphrase-file", str(self.passphrase), "--out", str(out), "--as", "release"),
        )
        return found


def tell(story: Story, poisoning: Poisoning) -> dict[str, float]:
    """The whole story; returns the accuracies that it measured, by name."""
    lab = poisoning.lab
    story.chapter("1 · Four sites train, one of them turns in round 3")
    poisoning.start()
    poisoned = poisoning.train("poisoned", rounds=ROUNDS, nodes=len(SITES))
    poisoning.sign(poisoned.model)
    poisoning.export_trust()
    code, before = poisoning.verify(poisoned.model)
    story.claim("nobody knows yet: the signed model verifies", code == 0)
    story.claim(f"its lineage has {ROUNDS} rounds and four participants", _size(before) == (ROUNDS, 4))

    story.chapter("2 · Found out: revoked as compromised since round 3")
    since = poisoning.poisoned_since(poisoned.run_id)
    lab.fltrust("revoke", BAD, "--reason", "key-compromise", "--compromised-since", since)
    radius = lab.fltrust_json("blast-radius", BAD, "--since", since)
    rounds = [item["round"] for item in radius["rounds"]]
    story.claim("blast radius: rounds 3 and 4", rounds == [3, 4])
    story.claim("blast radius: the released model", len(radius["models"]) == 1)
    poisoning.export_trust()
    code, _ = poisoning.verify(poisoned.model)
    story.claim("with the new trust file the model is refused as tainted", code == TAINTED)

    story.chapter("3 · Made again without it, from retained updates")
    repaired = poisoning.out / "repaired.safetensors"
    replayed = poisoning.replay(poisoned.run_id, since, repaired)
    story.claim(
        "the rounds before came out as they were recorded", replayed["reproduced"] == POISONED_FROM - 1
    )
    code, report = poisoning.verify(repaired)
    story.claim("the repaired model verifies", code == 0)
    story.claim(
        "its lineage is three rounds, the last of them without site-d", _size(report) == (POISONED_FROM, 4)
    )
    story.console.print(
        lab.fltrust("lineage", "verify", str(repaired), "--trust", str(poisoning.trust)).stdout, markup=False
    )

    story.chapter("4 · Trained on by the others; and from the start without site-d, to compare")
    onward = poisoning.train("onward", rounds=1, nodes=3, start_from=repaired)
    poisoning.sign(onward.model)
    poisoning.export_trust()
    code, report = poisoning.verify(onward.model)
    story.claim("what was trained on from the repaired model verifies", code == 0)
    story.claim("its lineage goes back through the replay", _size(report)[0] == POISONED_FROM + 1)
    clean = poisoning.train("clean", rounds=ROUNDS, nodes=3)
    found = {
        "poisoned": poisoned.last,
        "before the poison": poisoned.accuracy[POISONED_FROM - 1],
        "repaired": onward.accuracy[0],
        "trained on": onward.last,
        "clean": clean.last,
    }
    table = Table("MODEL", "ACCURACY", box=None, pad_edge=False, header_style="bold")
    for name, accuracy in found.items():
        table.add_row(name, f"{accuracy:.1%}")
    story.console.print(table)
    story.claim("the poison spoilt the model", found["poisoned"] < 0.6)
    story.claim(
        "the repaired model is as good as before, or better", _is_near(found, "repaired", "before the poison")
    )
    story.claim("trained on, it is as good as a run without site-d", _is_near(found, "trained on", "clean"))
    return found


def _is_near(found: dict[str, float], name: str, other: str) -> bool:
    """No more than three percentage points below."""
    return found[name] >= found[other] - 0.03


def _size(report: dict[str, Any]) -> tuple[int, int]:
    return report["rounds"], len(report["participants"] or ())


def _keeping_app(to: Path) -> Path:
    """The digits app with `digits.keeping_app` as its ServerApp."""
    shutil.copytree(DIGITS, to, ignore=shutil.ignore_patterns("__pycache__"))
    project = to / "pyproject.toml"
    text = project.read_text().replace("digits.server_app:app", "digits.keeping_app:app")
    keys = ("retain", "recipient", "model", "start-from", "trust", "signer")
    project.write_text(text + "".join(f'{key} = ""\n' for key in keys if f"\n{key} = " not in text))
    return to


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m examples.poison", description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, help="keep everything in this (new) folder")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    story = Story(Console(highlight=False))
    with tempfile.TemporaryDirectory(prefix="fltrust-poison-") as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with Lab(folder) as lab:
                tell(story, Poisoning(lab))
        except (TimeoutError, RuntimeError) as error:
            story.console.print(f"\n[bold red]It did not get through:[/] {error}")
            return 1
    return story.end()


if __name__ == "__main__":
    raise SystemExit(main())
