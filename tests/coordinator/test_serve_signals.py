"""A process that serves ends when it is told to, whatever happens inside of the interpreter."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

_PROGRAM = """
import ctypes, sys
from fltrust.coordinator.serve import serve_until_signalled

class Server:
    async def start(self) -> None:
        pass

    async def stop(self, *, grace=None) -> None:
        if sys.argv[1] == "stuck":
            ctypes.PyDLL(None).pause()  # with the interpreter's lock held, for good: no signal is heard

serve_until_signalled(Server(), lambda: print("ready", flush=True), give_up=float(sys.argv[2]))
print("stopped", flush=True)
"""


def stop(kind: str, give_up: float) -> tuple[int, str, str, float]:
    """Exit code, both outputs, and the seconds that stopping took."""
    process = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, kind, str(give_up)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        out, error = process.communicate(timeout=60)
        return process.returncode, out, error, time.monotonic() - began
    finally:
        process.kill()


def test_a_server_that_stops_is_not_ended() -> None:
    code, out, error, _ = stop("well", 30.0)
    assert (code, out, error) == (0, "stopped\n", "")


def test_a_server_that_hangs_with_the_interpreters_lock_is_ended_and_says_where() -> None:
    code, out, error, took = stop("stuck", 1.0)
    assert (code, out) == (1, "")
    assert "Timeout" in error
    assert "stop" in error
    assert took < 30
