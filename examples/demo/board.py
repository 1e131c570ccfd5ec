"""The live table: who holds which certificate until when, and what became of each round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from rich.console import Console
from rich.live import Live
from rich.table import Table

from examples.demo.tail import Tail, short

ROUNDS = (1, 2, 3)
_MARK = {
    "asked": "[dim]asked[/]",
    "training": "[cyan]training[/]",
    "signed": "[cyan]signed[/]",
    "verified": "[green]verified[/]",
    "admitted": "[bold green]✓ admitted[/]",
}


@dataclass(slots=True)
class Board:
    """Knows nothing but what the event log and the coordinator say."""

    tail: Tail
    sites: Sequence[str]
    console: Console
    certificates: dict[str, tuple[str, datetime]] = field(default_factory=dict)
    standing: dict[str, str] = field(default_factory=dict)
    _live: Live | None = None

    def __enter__(self) -> Board:
        if self.console.is_terminal:
            self._live = Live(self.table(), console=self.console, refresh_per_second=8, transient=False)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.refresh()
        if self._live is not None:
            self._live.stop()
        else:
            self.console.print(self.table())

    def refresh(self) -> None:
        if self._live is not None:
            self._live.update(self.table())

    def table(self) -> Table:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for heading in ("SITE", "CERTIFICATE", "VALID UNTIL", "STANDING", *(f"ROUND {r}" for r in ROUNDS)):
            table.add_column(heading, no_wrap=True)
        for site in self.sites:
            serial, until = self.certificates.get(site, ("–", None))
            standing = self.standing.get(site, "–")
            colour = "green" if standing == "active" else "bold red"
            table.add_row(
                site,
                f"{serial[:8]}…",
                "–" if until is None else f"{until.astimezone():%H:%M:%S}",
                f"[{colour}]{standing}[/]",
                *(self._cell(site, r) for r in ROUNDS),
            )
        return table

    def _cell(self, site: str, server_round: int) -> str:
        """The furthest that this site came in this round."""
        state = ""
        for event in self.tail.events:
            if event.get("round") != server_round or event.get("phase") != "train":
                continue
            mine = short(event.get("participant")) == site
            match event["event"]:
                case "instruction-signed" if mine:
                    state = "asked"
                case "instruction-accepted" if mine:
                    state = "training"
                case "update-signed" if mine:
                    state = "signed"
                case "update-verified" if mine:
                    state = "verified"
                case "update-refused" if mine:
                    return f"[bold red]✗ {event['reason']}[/]"
                case "round-sealed" if state == "verified":
                    state = "admitted"
        return _MARK.get(state, "[dim]–[/]")
