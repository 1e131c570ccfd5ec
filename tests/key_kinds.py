"""Every kind of key, made for real on this machine: files, SoftHSM, a software TPM, moto for KMS's shape.

Here are the kinds whose libraries are in this environment; `tests/clients/test_key_kinds_elsewhere.py` runs
the same suite where the others are (``FLTRUST_TEST_KEY_KINDS``).
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest

KINDS = os.environ.get("FLTRUST_TEST_KEY_KINDS", "file,pkcs11").split(",")
SOFTHSM = Path("/usr/lib/softhsm/libsofthsm2.so")
PIN, WRONG_PIN = "48161", "11111"


class Kind:
    """One kind of key. `folder` is for whatever it needs; nothing of it outlives the test."""

    name = ""
    has_pin = True

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._count = 0
        self.pin = self.secret(PIN)

    def secret(self, text: str) -> Path:
        self._count += 1
        path = self.folder / f"pin-{self._count}"
        path.write_text(text)
        path.chmod(0o600)
        return path

    def uri(self, label: str, *, pin: Path | None = None) -> str:
        raise NotImplementedError

    def lose(self) -> None:
        """Whatever was open is lost: a service restarted, a session closed."""

    def remove(self, uri: str) -> None:
        """The key is taken away by somebody else."""
        raise NotImplementedError


class FileKind(Kind):
    name = "file"

    def uri(self, label: str, *, pin: Path | None = None) -> str:
        return f"file:{self.folder}/{label}.key?pin-source=file:{pin or self.pin}"

    def remove(self, uri: str) -> None:
        Path(uri.removeprefix("file:").partition("?")[0]).unlink()


class Pkcs11Kind(Kind):
    name = "pkcs11"

    def uri(self, label: str, *, pin: Path | None = None) -> str:
        path = quote(str(pin or self.pin))
        return f"pkcs11:token=suite;object={label}?module-path={SOFTHSM}&pin-source=file:{path}"

    def lose(self) -> None:
        from fltrust.keys.pkcs11_module import _modules

        module = _modules[str(SOFTHSM)]
        with module.lock:
            module._library.finalize()

    def remove(self, uri: str) -> None:
        label = uri.partition("object=")[2].partition("?")[0].partition(";")[0]
        for kind in ("privkey", "pubkey"):
            run(
                "pkcs11-tool", "--module", SOFTHSM, "--token-label", "suite", "--login", "--pin", PIN,
                "--delete-object", "--type", kind, "--label", label,
            )  # fmt: skip


class TpmKind(Kind):
    name = "tpm"

    def __init__(self, folder: Path, port: int) -> None:
        super().__init__(folder)
        self.port = port
        self.state = folder / "state"
        self.state.mkdir(exist_ok=True)
        self._process: subprocess.Popen[bytes] | None = None
        self.start()
        # A TPM that loses power counts that as a wrong password; a new one bears three.
        run("tpm2_dictionarylockout", "-T", self.tcti, "--setup-parameters", "--max-tries=10")

    def start(self) -> None:
        tpm, control = (f"type=tcp,port={port},bindaddr=127.0.0.1" for port in (self.port, self.port + 1))
        command = ["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={self.state}", "--flags", "startup-clear"]
        self._process = subprocess.Popen([*command, "--server", tpm, "--ctrl", control])
        wait_for_port(self.port + 1)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)

    @property
    def tcti(self) -> str:
        return f"swtpm:host=127.0.0.1,port={self.port}"

    def uri(self, label: str, *, pin: Path | None = None) -> str:
        return f"tpm:file={self.folder}/{label}.tpm;tcti={self.tcti};pin-source=file:{pin or self.pin}"

    def lose(self) -> None:
        self.stop()
        self.start()

    def remove(self, uri: str) -> None:
        from fltrust.keys.tpm import close_contexts

        Path(uri.partition("file=")[2].partition(";")[0]).unlink()
        close_contexts()  # a key that is loaded goes on to work: that is the TPM's nature


class KmsKind(Kind):
    name = "awskms"
    has_pin = False

    def __init__(self, folder: Path, port: int) -> None:
        super().__init__(folder)
        self.port = port

    def uri(self, label: str, *, pin: Path | None = None) -> str:
        assert pin is None, "KMS asks for no PIN"
        return f"awskms:///alias/{label}?region=eu-central-1&endpoint=http://127.0.0.1:{self.port}"

    def remove(self, uri: str) -> None:
        from fltrust.keys.awskms import KmsUri, client_of

        kms, key = client_of(KmsUri.parse(uri)), KmsUri.parse(uri).key
        found = kms.describe_key(KeyId=key)["KeyMetadata"]["KeyId"]
        kms.schedule_key_deletion(KeyId=found, PendingWindowInDays=7)


def run(*command: object, **environment: str) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def free_ports() -> int:
    """A port on loopback that is free, and the one after it."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
            try:
                second.bind(("127.0.0.1", port + 1))
            except (OSError, OverflowError):
                continue
        return port


def wait_for_port(port: int) -> None:
    for _ in range(200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise TimeoutError(f"nothing listens on {port}")


def needs(*, module: str, binary: str | None = None, file: Path | None = None) -> None:
    missing = [module] if importlib.util.find_spec(module) is None else []
    missing += [binary] if binary is not None and shutil.which(binary) is None else []
    missing += [str(file)] if file is not None and not file.exists() else []
    if missing:
        pytest.skip(f"not on this machine: {', '.join(missing)}")


@contextmanager
def softhsm(folder: Path) -> Iterator[None]:
    """A SoftHSM of our own, with one token; the process's other tokens, if any, are out of sight."""
    needs(module="pkcs11", binary="softhsm2-util", file=SOFTHSM)
    tokens = folder / "tokens"
    tokens.mkdir(parents=True)
    config = folder / "softhsm2.conf"
    config.write_text(f"directories.tokendir = {tokens}\nobjectstore.backend = file\nlog.level = ERROR\n")
    before = os.environ.get("SOFTHSM2_CONF")
    os.environ["SOFTHSM2_CONF"] = str(config)
    from fltrust.keys import pkcs11_module

    run("softhsm2-util", "--init-token", "--free", "--label", "suite", "--pin", PIN, "--so-pin", "87654321")
    for module in pkcs11_module._modules.values():
        with module.lock:
            module.restart()  # it reads its settings at the start alone
    try:
        yield
    finally:
        pkcs11_module.close_sessions()
        if before is None:
            os.environ.pop("SOFTHSM2_CONF")
        else:
            os.environ["SOFTHSM2_CONF"] = before


@contextmanager
def made(name: str, folder: Path) -> Iterator[Kind]:
    """The kind of this name, ready to use."""
    if name == "file":
        yield FileKind(folder)
    elif name == "pkcs11":
        with softhsm(folder):
            yield Pkcs11Kind(folder)
    elif name == "tpm":
        needs(module="tpm2_pytss", binary="swtpm")
        needs(module="tpm2_pytss", binary="tpm2_dictionarylockout")
        kind = TpmKind(folder, free_ports())
        try:
            yield kind
        finally:
            from fltrust.keys.tpm import close_contexts

            close_contexts()
            kind.stop()
    else:
        needs(module="boto3")
        needs(module="moto")
        with moto() as port:
            yield KmsKind(folder, port)


@contextmanager
def moto() -> Iterator[int]:
    port = free_ports()
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "testing"))
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for_port(port)
        yield port
    finally:
        server.terminate()
        server.wait(10)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value
