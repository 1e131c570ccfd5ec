"""The event log is JSON lines, private, shared by processes, and never in the way."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fltrust.eventlog import EventLog


def test_an_event_is_one_line_of_json_in_a_private_file(tmp_path: Path) -> None:
    path = tmp_path / "events"
    EventLog(path, process="grid").emit(
        "reply-refused", participant="site-a", until=datetime(2026, 1, 1, tzinfo=UTC)
    )
    (line,) = path.read_text().splitlines()
    assert json.loads(line) | {"at": "-"} == {
        "at": "-",
        "process": "grid",
        "event": "reply-refused",
        "participant": "site-a",
        "until": "2026-01-01T00:00:00.000000Z",
    }
    assert path.stat().st_mode & 0o777 == 0o600


def test_many_writers_never_mix_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "events"

    def write(name: str) -> None:
        log = EventLog(path, process=name)
        for i in range(200):
            log.emit("tick", number=i, padding="x" * 500)

    threads = [threading.Thread(target=write, args=(f"p{i}",)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len([json.loads(line) for line in path.read_text().splitlines()]) == 800


def test_an_oversized_event_keeps_its_name_only(tmp_path: Path) -> None:
    EventLog(tmp_path / "events", process="grid").emit("odd", text="x" * 20_000)
    assert json.loads((tmp_path / "events").read_text())["truncated"] is True


def test_a_failing_disk_does_not_stop_the_work(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "absent" / "events", process="grid")
    log.emit("first")
    log.emit("second")
    assert not (tmp_path / "absent").exists()


def test_without_a_file_named_in_the_environment_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FLTRUST_EVENT_LOG", raising=False)
    EventLog.from_environment(process="grid").emit("quiet")
    monkeypatch.setenv("FLTRUST_EVENT_LOG", str(tmp_path / "events"))
    EventLog.from_environment(process="grid").emit("heard")
    assert "heard" in (tmp_path / "events").read_text()
