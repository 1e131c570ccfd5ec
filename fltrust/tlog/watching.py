"""One look of a monitor at a log: fetch, judge, remember. What a monitor says to machines: metrics."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from pathlib import Path

from fltrust.errors import Tampered
from fltrust.files import write_durably
from fltrust.tlog.checkpoint import CheckpointPolicy, VerifiedCheckpoint
from fltrust.tlog.expectations import Expectations
from fltrust.tlog.merkle import Prover
from fltrust.tlog.monitor import Alert, AlertKind, MonitorState, Step, advance, count_alerts
from fltrust.tlog.reader import Fetch, TileReader
from fltrust.tlog.tiles import CHECKPOINT_PATH

_PUBLIC = 0o644


def look(
    fetch: Fetch, policy: CheckpointPolicy, state: MonitorState, expectations: Expectations, *, at: datetime
) -> Step:
    """Fetch the newest checkpoint and what is new under it, and judge them (`advance`).

    The consistency proof is computed from the log's own tiles, each of which hashes to the new root first.
    A log whose tiles or entries do not is an alert, and the state stays with the old checkpoint. Raises what
    `CheckpointPolicy.verify` and `fetch` raise: nothing is then known to be wrong, and nothing was learnt.
    """
    new = policy.verify(fetch(CHECKPOINT_PATH))
    reader = TileReader(fetch, new.head)
    try:
        return advance(
            state,
            new,
            proof=_prove(reader, state.size, new),
            entries=reader.entries(min(state.size, new.head.size), new.head.size),
            expectations=expectations,
            at=at,
        )
    except Tampered as error:
        known = None if state.checkpoint is None else state.checkpoint.note.decode()
        alert = Alert(AlertKind.TAMPERED, error.message, state.origin, known=known, found=new.note.decode())
        return Step(count_alerts(replace(state, checked_at=at), [alert]), (alert,))


def write_metrics(path: Path, state: MonitorState, *, is_up: bool) -> None:
    """Write what is known in Prometheus' text format, whole or not at all (for a textfile collector)."""
    label = f'origin="{_escape(state.origin)}"'
    checked = 0.0 if state.checked_at is None else state.checked_at.timestamp()
    lines = [
        "# HELP fltrust_log_watch_up Whether the last look at the log came to an end.",
        "# TYPE fltrust_log_watch_up gauge",
        f"fltrust_log_watch_up{{{label}}} {int(is_up)}",
        "# HELP fltrust_log_watch_tree_size Entries of the log that were read and found consistent.",
        "# TYPE fltrust_log_watch_tree_size gauge",
        f"fltrust_log_watch_tree_size{{{label}}} {state.size}",
        "# HELP fltrust_log_watch_last_check_timestamp_seconds When the log was last looked at.",
        "# TYPE fltrust_log_watch_last_check_timestamp_seconds gauge",
        f"fltrust_log_watch_last_check_timestamp_seconds{{{label}}} {checked:.3f}",
        "# HELP fltrust_log_watch_alerts_total Alerts given, by kind.",
        "# TYPE fltrust_log_watch_alerts_total counter",
    ]
    lines += [
        f'fltrust_log_watch_alerts_total{{{label},kind="{kind}"}} {state.alerts.get(str(kind), 0)}'
        for kind in AlertKind
    ]
    write_durably(path, ("\n".join(lines) + "\n").encode(), mode=_PUBLIC)


def _prove(reader: TileReader, old: int, new: VerifiedCheckpoint) -> tuple[bytes, ...]:
    return Prover(reader, new.head.size).consistency(old) if old <= new.head.size else ()


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
