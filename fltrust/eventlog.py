"""What happened, as JSON lines: for a site's SIEM, for the demo's table, for a person with `tail -f`.

Each line is one object: `at` (RFC 3339), `process`, `event`, and the event's own fields.
Lines are appended with one `write`, so several processes may share a file. No line
carries a secret or a tensor. Losing a line never stops the work: the record that
counts is the coordinator's.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from datetime import datetime
from pathlib import Path

from fltrust.clock import Clock, SystemClock, to_rfc3339

EVENT_LOG_VARIABLE = "FLTRUST_EVENT_LOG"
_MAX_LINE = 16 * 1024
_log = logging.getLogger("fltrust.events")

Field = str | int | float | bool | datetime | None


class EventLog:
    """Appends events to a file, and says them at DEBUG on the logger `fltrust.events`."""

    def __init__(self, path: Path | None, *, process: str, clock: Clock | None = None) -> None:
        self._path = path
        self._process = process
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._handle: int | None = None

    @classmethod
    def from_environment(cls, *, process: str) -> EventLog:
        """Write to the file that `FLTRUST_EVENT_LOG` names, or to no file."""
        path = os.environ.get(EVENT_LOG_VARIABLE)
        return cls(Path(path) if path else None, process=process)

    def emit(self, event: str, **fields: Field) -> None:
        """Append one event. A line over 16 KiB loses its fields; a failing disk is logged once."""
        record: dict[str, object] = {
            "at": to_rfc3339(self._clock.now()),
            "process": self._process,
            "event": event,
            **{key: to_rfc3339(v) if isinstance(v, datetime) else v for key, v in fields.items()},
        }
        line = json.dumps(record, separators=(",", ":"))
        _log.debug("%s", line)
        if self._path is None:
            return
        if len(line) > _MAX_LINE:
            line = json.dumps({**{k: record[k] for k in ("at", "process", "event")}, "truncated": True})
        try:
            os.write(self._open(self._path), line.encode() + b"\n")
        except OSError as error:
            _log.warning("cannot append to the event log %s: %s", self._path, error.strerror)
            self._path = None

    def _open(self, path: Path) -> int:
        with self._lock:
            if self._handle is None:
                self._handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            return self._handle
