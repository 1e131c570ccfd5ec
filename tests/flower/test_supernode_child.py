from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fltrust.flower import child as child_module
from fltrust.flower.child import Child

ENV = dict(os.environ)


def run(code: str, *args: str) -> Child:
    return Child((sys.executable, "-S", "-c", code, *args), environment=ENV)


def is_alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def wait_for(what: Callable[[], object]) -> None:
    end = time.monotonic() + 20
    while not what():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def read(path: Path) -> str:
    wait_for(lambda: path.exists() and path.read_text().endswith("\n"))
    return path.read_text().strip()


def test_the_exit_code_is_the_childs() -> None:
    with run("raise SystemExit(7)") as child:
        assert child.wait() == 7


def test_a_signal_that_ended_it_gives_128_and_its_number() -> None:
    with run("import os; os.kill(os.getpid(), 9)") as child:
        assert child.wait() == 128 + 9


def test_a_child_leads_its_own_group_and_reads_nothing() -> None:
    code = "import os, sys; sys.exit(0 if os.getpgrp() == os.getpid() and not sys.stdin.read() else 1)"
    with run(code) as child:
        assert child.wait() == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_us_is_passed_on_once(number: signal.Signals, tmp_path: Path) -> None:
    code = (
        "import signal, sys, time\n"
        "def end(n, f): print(n); sys.exit(n)\n"
        "for n in (1, 2, 15): signal.signal(n, end)\n"
        "open(sys.argv[1], 'w').write('x\\n')\n"
        "time.sleep(60)\n"
    )
    ready = tmp_path / "ready"
    with run(code, str(ready)) as child:
        read(ready)
        threading.Timer(0.05, os.kill, (os.getpid(), number)).start()
        assert child.wait() == number
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


GRANDCHILD = (
    "import signal, subprocess, sys, time\n"
    "stubborn = 'import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(300)'\n"
    "p = subprocess.Popen([sys.executable, '-S', '-c', stubborn])\n"
    "open(sys.argv[1], 'w').write(f'{p.pid}\\n')\n"
)


def test_what_the_child_leaves_behind_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_module, "OWN_TIME", 0.3)
    monkeypatch.setattr(child_module, "GROUP_GRACE", 0.3)
    with run(GRANDCHILD, str(tmp_path / "pid")) as child:
        assert child.wait() == 0
    assert not is_alive(int(read(tmp_path / "pid")))


def test_a_child_that_does_not_stop_is_killed_with_its_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child_module, "GRACE", 0.3)
    code = "import signal\nsignal.signal(15, signal.SIG_IGN)\n" + GRANDCHILD + "time.sleep(300)\n"
    with run(code, str(tmp_path / "pid")) as child:
        grandchild = int(read(tmp_path / "pid"))
        threading.Thread(target=child.stop).start()
        assert child.wait() == 128 + 9
    assert not is_alive(grandchild)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux's kernel ends a child with its parent")
def test_when_we_are_killed_the_child_ends(tmp_path: Path) -> None:
    code = (
        "import os, sys\n"
        "from fltrust.flower.child import Child\n"
        "inner = 'import os, sys, time; print(os.getpid(), file=open(sys.argv[1], \"w\")); time.sleep(300)'\n"
        "with Child((sys.executable, '-S', '-c', inner, sys.argv[1]), environment=os.environ) as child:\n"
        "    child.wait()\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "pid")])
    pid = int(read(tmp_path / "pid"))
    assert is_alive(pid)
    parent.kill()
    parent.wait()
    wait_for(lambda: not is_alive(pid))
