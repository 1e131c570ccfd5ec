"""The event log, read as it grows."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Event = dict[str, Any]


class Tail:
    """Keeps every event that was appended so far; `poll` reads what is new."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at = 0
        self.events: list[Event] = []

    def poll(self) -> None:
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._at)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._at += len(whole)
        self.events.extend(json.loads(line) for line in whole.splitlines())

    def find(self, event: str, **fields: object) -> list[Event]:
        """Events of this name whose fields are these; a participant matches by its name, too."""
        return [
            e
            for e in self.events
            if e["event"] == event and all(_matches(e.get(key), value) for key, value in fields.items())
        ]

    def wait(
        self, ready: Callable[[], bool], what: str, *, seconds: float, idle: Callable[[], None] = lambda: None
    ) -> None:
        """Poll until `ready()`; `TimeoutError` naming `what` after `seconds`. `idle` runs between polls."""
        end = time.monotonic() + seconds
        while True:
            self.poll()
            idle()
            if ready():
                return
            if time.monotonic() > end:
                raise TimeoutError(f"waited {seconds:.0f} s for {what}")
            time.sleep(0.05)


def short(identity: object) -> str:
    """`site-a` of `spiffe://…/participant/site-a`."""
    return str(identity).rpartition("/")[2]


def _matches(found: object, wanted: object) -> bool:
    return found == wanted or (
        isinstance(found, str) and found.startswith("spiffe://") and short(found) == wanted
    )
