"""What a demo tells, and whether it is true."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from rich.console import Console


@dataclass(slots=True)
class Story:
    """Chapters and claims on a console; every claim counts."""

    console: Console
    began: float = field(default_factory=time.monotonic)
    claims: list[tuple[str, bool]] = field(default_factory=list)

    def chapter(self, title: str) -> None:
        self.console.print()
        self.console.rule(f"[bold]{title}[/]  [dim]{time.monotonic() - self.began:.0f} s[/]", align="left")

    def tell(self, text: str) -> None:
        self.console.print(text)

    def claim(self, text: str, holds: bool) -> None:
        """Print a claim with its verdict, and remember it for the exit code."""
        self.claims.append((text, holds))
        self.console.print(f"  {'[bold green]✓[/]' if holds else '[bold red]✗ NOT SO:[/]'} {text}")

    def end(self) -> int:
        """Say how many claims hold; the exit code is 0 only if all do."""
        held, seconds = sum(holds for _, holds in self.claims), time.monotonic() - self.began
        self.console.print(f"\n[bold]{held} of {len(self.claims)} claims hold[/], {seconds:.0f} s in all.")
        return 0 if held == len(self.claims) else 1
