"""A child process that does not outlive us, nor leave children of its own behind.

It leads a process group of its own: a Ctrl-C at the terminal reaches us alone, and we pass it on once.
When it has ended, whatever is left of the group ends too. Should we die without a word, the kernel ends
it (Linux).
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

GRACE = 10.0
"""Seconds that a child has after SIGTERM; Flower's own clean-up takes up to five."""

OWN_TIME = 2.5
GROUP_GRACE = 3.0
"""Seconds that the rest of its group has to notice that it has ended, and then to end after SIGTERM."""

_PROC = Path("/proc") if sys.platform == "linux" else Path(os.devnull)
_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_Handler = Callable[[int, FrameType | None], Any] | int | None

_log = logging.getLogger("fltrust.supernode")

# Runs in the child before it becomes what it is to be: code between fork and exec of a process with threads
# (`preexec_fn`) can deadlock, a fresh interpreter cannot. PR_SET_PDEATHSIG is 1.
_BOUND_TO_PARENT = """\
import ctypes, os, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, int(signal.SIGTERM), 0, 0, 0)
if os.getppid() != int(sys.argv[1]):
    os._exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""


class Child:
    """One command, run from `start` to `wait`."""

    def __init__(
        self, command: Sequence[str], *, environment: Mapping[str, str], pass_fds: Sequence[int] = ()
    ) -> None:
        self._command = tuple(command)
        self._environment = dict(environment)
        self._pass_fds = tuple(pass_fds)
        self._process: subprocess.Popen[bytes] | None = None
        self._ended = threading.Event()
        self._stopping = threading.Lock()
        self._asked = threading.Event()
        self._handlers: dict[signal.Signals, _Handler] = {}

    def start(self) -> None:
        """Start it, from a thread that lives as long as the child should: the kernel watches that one."""
        bound = (sys.executable, "-I", "-S", "-c", _BOUND_TO_PARENT, str(os.getpid()), *self._command)
        self._process = subprocess.Popen(  # noqa: S603 - our own command line
            bound,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            pass_fds=self._pass_fds,
            process_group=0,
        )

    def wait(self) -> int:
        """Return its exit code (128 and the number for a signal); nothing is left of its group then."""
        code = self._started.wait()
        self._ended.set()
        self._end_group()
        return code if code >= 0 else 128 - code

    def send(self, number: int) -> None:
        """Pass a signal on to the child itself, not to its children: Flower sees to those."""
        self._started.send_signal(number)

    def stop(self) -> None:
        """Ask it to end, and end it after `GRACE`. Returns when it has ended; for any thread but `wait`'s."""
        with self._stopping:
            if self._ended.is_set():
                return
            self.send(signal.SIGTERM)
            if not self._ended.wait(GRACE):
                _log.warning("flower-supernode did not end within %g s of SIGTERM and is killed", GRACE)
                self._signal_group(signal.SIGKILL)
                self._ended.wait()

    def __enter__(self) -> Self:
        """Start it, and pass on what is sent to this process (from its main thread)."""
        self.start()
        if threading.current_thread() is threading.main_thread():
            self._handlers = {number: signal.signal(number, self._forward) for number in _FORWARDED}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._ended.is_set():  # something else went wrong
            self._signal_group(signal.SIGKILL)
            self.wait()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}

    def _forward(self, number: int, frame: FrameType | None) -> None:
        """Once to the child; after `GRACE`, or at the second signal, the whole group ends."""
        del frame
        if self._asked.is_set():
            self._signal_group(signal.SIGKILL)
            return
        self._asked.set()
        self.send(number)
        threading.Thread(target=self._kill_after_grace, daemon=True).start()

    @property
    def was_told_to_end(self) -> bool:
        """Whether a signal to this process was passed on to it."""
        return self._asked.is_set()

    @property
    def pid(self) -> int:
        return self._started.pid

    @property
    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("expected a child that was started")
        return self._process

    def _kill_after_grace(self) -> None:
        if not self._ended.wait(GRACE):
            self._signal_group(signal.SIGKILL)

    def _end_group(self) -> None:
        """Flower's own processes look every 0.2 s whether their parent lives; what does not is ended."""
        for number, seconds in (
            (signal.SIGCONT, OWN_TIME),
            (signal.SIGTERM, GROUP_GRACE),
            (signal.SIGKILL, 1.0),
        ):
            self._signal_group(number)
            pause, left = threading.Event(), seconds
            while left > 0:
                if not self._has_group():
                    return
                pause.wait(0.05)
                left -= 0.05
        _log.warning("processes of flower-supernode's group %d could not be ended", self.pid)

    def _has_group(self) -> bool:
        try:
            os.killpg(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return any(_is_alive_in(self.pid, entry) for entry in _PROC.iterdir()) if _PROC.is_dir() else True

    def _signal_group(self, number: int) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)


def _is_alive_in(group: int, entry: Path) -> bool:
    """Whether this entry of /proc is a process of the group that has not ended.

    One that has ended stays a member until somebody collects it, which in a container may be nobody.
    """
    try:
        state, _, member_of = (entry / "stat").read_text().rpartition(")")[2].split()[:3]
    except (OSError, ValueError):
        return False
    return int(member_of) == group and state not in "ZX"
