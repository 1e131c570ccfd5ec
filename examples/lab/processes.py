"""Processes with their own logs, that end when we do: all of them, by pid."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

MARK = "FLTRUST_LAB"
"""Every process of a lab, and whatever those start, carries this in its environment."""


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(ready: Callable[[], bool], what: str, *, seconds: float, every: float = 0.05) -> None:
    """Return once `ready()`; `TimeoutError` naming `what` after `seconds`."""
    end = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {seconds:.0f} s for {what}")
        time.sleep(every)


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.2)
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Process:
    """One child in a session of its own; standard output and error go to `log`."""

    def __init__(
        self, arguments: Sequence[str], *, log: Path, environment: Mapping[str, str], cwd: Path | None = None
    ) -> None:
        self.log = log
        self._began = log.stat().st_size if log.exists() else 0
        self.arguments = tuple(arguments)
        with log.open("ab") as sink:
            self._child = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                env=dict(environment),
                cwd=cwd,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._child.pid

    def is_running(self) -> bool:
        return self._child.poll() is None

    def wait(self, seconds: float) -> int:
        """Its exit code; `TimeoutError` with the end of its log after `seconds`."""
        try:
            return self._child.wait(seconds)
        except subprocess.TimeoutExpired:
            raise TimeoutError(
                f"{self.arguments[0]} still runs after {seconds:.0f} s\n{self.tail()}"
            ) from None

    def stop(self, seconds: float = 10) -> None:
        """SIGTERM, and SIGKILL if that does not end it."""
        if self.is_running():
            self._child.terminate()
            try:
                self._child.wait(seconds)
            except subprocess.TimeoutExpired:
                self.kill()

    def kill(self) -> None:
        """SIGKILL: a crash."""
        if self.is_running():
            self._child.kill()
        self._child.wait()

    def freeze(self) -> list[int]:
        """SIGSTOP it and everything below it: a machine that hangs. Returns the pids (Linux)."""
        pids = [self.pid]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
            for task in Path(f"/proc/{pid}/task").glob("*"):
                pids.extend(int(child) for child in (task / "children").read_text().split())
        return pids

    def text(self) -> str:
        """What it wrote: a log may hold what earlier processes of this name wrote, too."""
        return self.log.read_bytes()[self._began :].decode(errors="replace")

    def tail(self, lines: int = 30) -> str:
        return "\n".join(self.text().splitlines()[-lines:])


class Brood:
    """All processes of a lab: those we start, and those that these start and leave behind."""

    def __init__(self) -> None:
        self.mark = uuid.uuid4().hex
        self._children: list[Process] = []

    def add(self, process: Process) -> Process:
        self._children.append(process)
        return process

    def end(self) -> None:
        """End every process: politely those we started, then whatever still carries our mark."""
        for child in self._children:
            if child.is_running():
                os.kill(child.pid, signal.SIGTERM)
        deadline = time.monotonic() + 5
        for child in self._children:
            child.stop(max(0.1, deadline - time.monotonic()))
        for _ in range(20):
            left = self.left_behind()
            if not left:
                return
            for pid in left:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            time.sleep(0.05)

    def left_behind(self) -> list[int]:
        """Pids, other than ours, whose environment carries our mark (Linux)."""
        needle = f"{MARK}={self.mark}".encode()
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                marked = needle in (entry / "environ").read_bytes().split(b"\0")
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if marked and state != "Z" and int(entry.name) != os.getpid():
                found.append(int(entry.name))
        return found
