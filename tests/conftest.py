"""Databases for the tests: SQLite files, and a private PostgreSQL from the machine's own binaries."""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from glob import glob
from pathlib import Path

import pytest

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """URL of a fresh PostgreSQL server's ``postgres`` database; fsync stays on. Skips without binaries."""
    folders = [*sorted(glob("/usr/lib/postgresql/*/bin"), reverse=True), *os.get_exec_path()]
    folder = next((Path(f) for f in folders if (Path(f) / "initdb").exists()), None)
    if folder is None:
        if os.environ.get("CI") == "true":
            pytest.fail(
                "PostgreSQL's binaries (initdb, postgres) are not on this machine, and CI must not skip"
            )
        pytest.skip("PostgreSQL's binaries (initdb, postgres) are not on this machine")
    home = Path(tempfile.mkdtemp(prefix="fltrust-pg-"))
    user = None
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        user = "postgres"
        owner = pwd.getpwnam(user)
        os.chown(home, owner.pw_uid, owner.pw_gid)
    data, port = home / "data", _free_port()
    environment = {"PATH": os.environ.get("PATH", ""), "HOME": str(home), "LC_ALL": "C"}
    subprocess.run(
        [folder / "initdb", "-D", data, "-A", "trust", "-U", "fltrust", "-E", "UTF8", "--no-sync"],
        check=True,
        capture_output=True,
        user=user,
        env=environment,
        cwd=home,
        timeout=100,
    )
    log = (home / "log").open("wb")
    options = [f"-p{port}", "-c", f"unix_socket_directories={home}", "-c", "listen_addresses=127.0.0.1"]
    options += ["-c", "fsync=on", "-c", "shared_buffers=16MB", "-c", "max_connections=60"]
    server = subprocess.Popen(
        [folder / "postgres", "-D", data, *options],
        stdout=log,
        stderr=log,
        user=user,
        env=environment,
        cwd=home,
    )
    try:
        url = f"postgresql+psycopg://fltrust@127.0.0.1:{port}/postgres"
        _wait_until_up(url, server, home / "log")
        yield url
    finally:
        server.send_signal(signal.SIGQUIT)  # at once: nothing of it is kept
        server.wait(30)
        log.close()
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def new_database(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], str]:
    """Makes a new, empty database at each call and returns its URL; once for SQLite, once for PostgreSQL."""
    if request.param == "sqlite":
        tmp_path.chmod(0o700)
        return lambda: f"sqlite:///{tmp_path / 'state'}-{next(_numbers)}.db"
    server: str = request.getfixturevalue("postgresql")
    return lambda: _create_schema(server)


@pytest.fixture
def database_url(new_database: Callable[[], str]) -> str:
    """One new, empty database: the test runs once on SQLite, once on PostgreSQL."""
    return new_database()


def _create_schema(server: str) -> str:
    """A schema of its own is as good as a database here, and made in a tenth of the time."""
    import psycopg

    name = f"test_{next(_numbers)}"
    with psycopg.connect(server.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {name}")
    return f"{server}?options=-csearch_path%3D{name}"


def _wait_until_up(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    import psycopg

    deadline = time.monotonic() + 60
    while True:
        try:
            psycopg.connect(url.replace("+psycopg", ""), connect_timeout=5).close()
        except psycopg.OperationalError:
            if server.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"PostgreSQL did not start:\n{log.read_text()[-2000:]}")
            time.sleep(0.05)
        else:
            return


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
