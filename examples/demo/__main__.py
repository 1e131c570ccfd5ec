"""A federation under trust, an attack and the record. Exits with 0 only if every claim held."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from examples.demo.attacks import return_of
from examples.demo.board import ROUNDS, Board
from examples.demo.story import Story
from examples.demo.tail import Tail, short
from examples.lab import Lab, Run, StockLab
from examples.lab.federation import DIGITS, without_fltrust

SITES = ("site-a", "site-b", "site-c", "site-d")
HOSTILE = "site-d"


def main() -> int:
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--folder", type=Path, help="keep everything in this (new) folder")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    console = Console(highlight=False)
    story = Story(console)
    with tempfile.TemporaryDirectory(prefix="fltrust-demo-") as temporary:
        folder = options.folder or Path(temporary)
        (folder / "stock").mkdir(parents=True)
        (folder / "trusted").mkdir()
        try:
            with StockLab(folder / "stock") as stock, Lab(folder / "trusted") as lab:
                tell(story, stock, lab)
        except (TimeoutError, RuntimeError) as error:
            console.print(f"\n[bold red]The demo did not get through:[/] {error}", markup=True)
            return 1
        except KeyboardInterrupt:
            console.print("\n[bold]Interrupted: every process was ended.[/]")
            return 130
    return story.end()


def tell(story: Story, stock: StockLab, lab: Lab) -> None:
    tail = Tail(lab.events)
    board = Board(tail, SITES, story.console)

    story.chapter("1 · Without fltrust, in the background: the same app, the same attack")
    story.tell(f"Plain Flower, four sites. From round 2 on, {HOSTILE} sends a scaled, label-flipped update.")
    start_stock(stock)

    story.chapter("2 · A trust domain, and who is in it")
    tokens = start_trusted(lab)
    read_certificates(board, lab)
    story.tell("A coordinator with its own CA; each site joined with a single-use token:")
    story.console.print(board.table())
    story.claim("every site holds a short-lived certificate", all(s in board.certificates for s in SITES))
    plain = run_stock(stock)
    lab.wait_for_sites(len(SITES))

    story.chapter("3 · Three rounds under trust")
    report = lab.folder / "report.json"
    run = lab.run(config={"report": str(report)})
    story.tell(f"flwr run examples/digits · run {run.run_id}")
    with board:
        released, refused = rounds(story, lab, board, run, token=tokens[HOSTILE])
    run.process.wait(60)

    story.chapter("4 · What happened")
    check_rounds(story, tail, released)
    for attempt in refused:
        story.claim(f"{HOSTILE} tries to return with {attempt.what}: {attempt.outcome}", attempt.was_refused)

    story.chapter("5 · Accuracy on data no site has, by round")
    plain.process.wait(120)
    compare(story, stock.folder / "report.json", report)

    story.chapter("6 · The written record")
    show_record(story, lab, run.run_id)


def start_stock(stock: StockLab) -> None:
    stock.start_superlink()
    for number, site in enumerate(SITES):
        stock.start_site(
            site, f"partition-id={number}" + (" hostile-from-round=2" if site == HOSTILE else "")
        )


def run_stock(stock: StockLab) -> Run:
    stock.wait_for_sites(len(SITES))
    app = without_fltrust(DIGITS, stock.folder / "app")
    return stock.run(app, config={"report": str(stock.folder / "report.json")})


def start_trusted(lab: Lab) -> dict[str, str]:
    lab.start_coordinator()
    lab.join("main", "aggregator")
    lab.start_superlink()
    tokens = {}
    for number, site in enumerate(SITES):
        tokens[site] = lab.fltrust("token", "create", site).stdout
        lab.fltrust("join", stdin=tokens[site])
        hostile = " hostile-from-round=2 hang-seconds=600" if site == HOSTILE else ""
        lab.start_site(site, f"partition-id={number}{hostile}")
    return tokens


def read_certificates(board: Board, lab: Lab) -> None:
    for row in lab.fltrust_json("participants", "list"):
        name = short(row["spiffe_id"])
        board.standing[name] = row["standing"]
        if row["certificate_serial"]:
            until = datetime.fromisoformat(row["certificate_not_after"])
            board.certificates[name] = (row["certificate_serial"], until)


def rounds(story: Story, lab: Lab, board: Board, run: Run, *, token: str) -> tuple[float, list]:
    """Watch the rounds, revoke in the second, let the revoked one try to return in the third."""
    tail = board.tail

    def verified(server_round: int) -> set[str]:
        return {
            short(e["participant"]) for e in tail.find("update-verified", round=server_round, phase="train")
        }

    honest = set(SITES) - {HOSTILE}
    tail.wait(
        lambda: (
            verified(2) >= honest and bool(tail.find("instruction-accepted", participant=HOSTILE, round=2))
        ),
        "round 2 to wait for the hostile site alone",
        seconds=240,
        idle=board.refresh,
    )
    began = time.time()
    (event,) = lab.fltrust_json("revoke", HOSTILE, "--reason", "key-compromise", "--compromised-since", "1m")
    ended = time.time()
    acknowledged = datetime.fromisoformat(event["at"]).timestamp()
    tail.wait(
        lambda: bool(tail.find("round-sealed", round=2)),
        "round 2 to be sealed",
        seconds=30,
        idle=board.refresh,
    )
    sealed = datetime.fromisoformat(tail.find("round-sealed", round=2)[0]["at"]).timestamp()
    read_certificates(board, lab)
    board.refresh()
    refused = return_of(HOSTILE, lab=lab, token=token, run_id=run.run_id)
    tail.wait(
        lambda: bool(tail.find("round-sealed", round=3)),
        "round 3 to be sealed",
        seconds=60,
        idle=board.refresh,
    )
    story.console.print(
        f"[dim]second terminal:[/] $ fltrust revoke {HOSTILE} --reason key-compromise   "
        f"[dim]({ended - began:.1f} s with its start-up)[/]"
    )
    return sealed - acknowledged, refused


def check_rounds(story: Story, tail: Tail, released: float) -> None:
    def sealed(server_round: int) -> tuple[int, int]:
        found = tail.find("round-sealed", round=server_round, phase="train")
        return (found[0]["admitted"], found[0]["refused"]) if found else (0, 0)

    signed = len(tail.find("instruction-signed"))
    checked = len(tail.find("instruction-accepted"))
    updates = len(tail.find("update-verified"))
    story.tell(
        f"  {signed} instructions signed, {checked} verified at the sites, {updates} updates verified."
    )
    story.claim("round 1: all four contributed", sealed(1) == (4, 0))
    story.claim(
        "round 2: the other three, without the site that was revoked while it hung", sealed(2) == (3, 1)
    )
    story.claim(
        f"round 2 went on {max(released, 0) * 1000:.0f} ms after the revocation was acknowledged",
        released < 0.5,
    )
    story.claim("round 3: the other three", sealed(3) == (3, 0))
    admitted_late = [
        e
        for e in tail.find("update-verified", participant=HOSTILE)
        if e["round"] in ROUNDS and e["round"] >= 2
    ]
    story.claim(f"no update of {HOSTILE} was taken after round 1", not admitted_late)


def compare(story: Story, stock_report: Path, trusted_report: Path) -> None:
    stock, trusted = (json.loads(path.read_text()) for path in (stock_report, trusted_report))
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("", *(f"ROUND {r}" for r in ROUNDS)):
        table.add_column(heading)
    for name, found in (("plain Flower", stock), ("with fltrust", trusted)):
        table.add_row(name, *(f"{found[str(r)]['accuracy']:.1%}" for r in ROUNDS))
    story.console.print(table)
    last = str(ROUNDS[-1])
    story.claim("without fltrust the attack spoilt the model", stock[last]["accuracy"] < 0.6)
    story.claim("with fltrust the model went on learning", trusted[last]["accuracy"] > 0.85)


def show_record(story: Story, lab: Lab, run_id: str) -> None:
    story.tell(f"$ fltrust rounds show {run_id}")
    story.console.print(lab.fltrust("rounds", "show", run_id).stdout.rstrip(), markup=False)
    rows = [r for r in lab.fltrust_json("rounds", "show", run_id) if r["phase"] == "train"]
    story.claim("the record says the same", [len(r["admitted"]) for r in rows] == [4, 3, 3])
    story.claim("it names the revoked site and why", rows[1]["refused"].get(HOSTILE) == "revoked")
    story.tell(f"$ fltrust rounds verify {run_id}")
    verified = lab.fltrust("rounds", "verify", run_id, "--json", check=False)
    report = json.loads(verified.stdout)
    problems = [p for r in report["rounds"] for p in r["problems"]]
    story.claim("every signature, certificate and link of it verifies, outside Flower", not problems)


if __name__ == "__main__":
    raise SystemExit(main())
