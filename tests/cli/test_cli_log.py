"""`fltrust log`, run as people run it: real processes, and a log over real HTTP."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from log_certificates import Ca, leaf
from log_http import from_folder, serving
from log_world import AT, LogWorld, sealed_round

from fltrust.artifacts.trustroot import TransparencyLog, TrustedRoot, build_trusted_root
from fltrust.errors import EvidenceInvalid
from fltrust.pki.types import TrustedChain
from fltrust.tlog.checkpoint import CheckpointPolicy, add_signatures
from fltrust.tlog.entries import new_entry
from fltrust.tlog.merkle import consistency_proof, leaf_hash
from fltrust.tlog.note import VerifierKey
from fltrust.tlog.proof import TlogProof
from fltrust.tlog.witness import request_cosignature

FLTRUST = str(Path(sys.executable).with_name("fltrust"))
CA = Ca()
SITE = "spiffe://hospitals.example/participant/site-a"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([FLTRUST, *arguments], capture_output=True, text=True, timeout=60)


@pytest.fixture
def world(tmp_path: Path) -> LogWorld:
    world = LogWorld()
    world.grow(300)
    world.write_to(tmp_path / "log")
    return world


@pytest.fixture
def url(world: LogWorld, tmp_path: Path) -> Iterator[str]:
    with serving(from_folder(tmp_path / "log")) as url:
        yield f"{url}/log"


def test_the_proof_of_an_entry_is_one_file_that_the_log_s_key_verifies(
    world: LogWorld, url: str, tmp_path: Path
) -> None:
    key, out = str(world.key.verifier), tmp_path / "17.tlog-proof"
    done = run("log", "proof", url, "17", "--vkey", key, "--out", str(out))
    assert done.returncode == 0, done.stderr
    proof, entry = TlogProof.parse(out.read_bytes()), (tmp_path / "17.entry").read_bytes()
    policy = CheckpointPolicy.of(key)
    assert proof.verify(leaf=leaf_hash(entry), policy=policy).head.size == 301
    with pytest.raises(EvidenceInvalid):
        proof.verify(leaf=leaf_hash(entry + b" "), policy=policy)
    past = run("log", "proof", url, "301", "--vkey", key, "--out", str(tmp_path / "past"))
    assert (past.returncode, (tmp_path / "past").exists()) == (6, False)


def test_a_log_is_mirrored_and_the_mirror_verified(world: LogWorld, url: str, tmp_path: Path) -> None:
    key, mirror = str(world.key.verifier), str(tmp_path / "mirror")
    made = run("log", "mirror", url, mirror, "--vkey", key)
    assert (made.returncode, "up to 301 entries" in made.stderr) == (0, True), made.stderr
    told = run("log", "verify", mirror, "--vkey", key)
    assert told.returncode == 0
    assert "150 sealed-round" in told.stderr
    report = json.loads(run("log", "verify", mirror, "--vkey", key, "--json").stdout)
    assert report == {
        "origin": "hospitals.example/log",
        "size": 301,
        "root": world.log.head.root.hex(),
        "kinds": {"log-opened": 1, "sealed-round": 150, "trust-event": 150},
        "lastEpoch": 150,
        "cosigned": {},
    }


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (lambda log: (log / "tile/entries/000").write_bytes(b"x"), 12),
        (lambda log: (log / "tile/0/000").write_bytes(bytes(8192)), 12),
        (lambda log: (log / "tile/0/000").unlink(), 6),
        (lambda log: (log / "checkpoint").write_bytes(LogWorld().note()), 5),
        (lambda log: (log / "checkpoint").write_bytes(b"x"), 8),
    ],
)
def test_what_is_wrong_with_a_log_has_its_own_exit_code(
    world: LogWorld, tmp_path: Path, damage, code: int
) -> None:
    damage(tmp_path / "log")
    assert run("log", "verify", str(tmp_path / "log"), "--vkey", str(world.key.verifier)).returncode == code


def test_a_missing_cosignature_has_its_own_exit_code(world: LogWorld, url: str) -> None:
    arguments = ("--vkey", str(world.key.verifier), "--witness", str(world.witness.verifier))
    assert run("log", "verify", url, *arguments).returncode == 13
    assert run("log", "verify", url, *arguments, "--quorum", "0").returncode == 0
    assert run("log", "verify", url, *arguments, "--quorum", "2").returncode == 8
    assert run("log", "verify", url).returncode == 8


def test_a_trust_file_names_the_logs_key(world: LogWorld, url: str, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    raw = world.key.signer.public_key_raw
    log = TransparencyLog(
        "https://hospitals.example/log",
        Ed25519PublicKey.from_public_bytes(raw),
        world.key.verifier.full_id,
        AT,
    )
    root = TrustedRoot((TrustedChain((CA.certificate,), AT, None),), (), (log,), ())
    (tmp_path / "trusted_root.json").write_bytes(build_trusted_root(root))
    assert run("log", "verify", url, "--trust", str(tmp_path / "trusted_root.json")).returncode == 0


class Watch:
    """`fltrust log watch --once` with everything that it can write."""

    def __init__(self, world: LogWorld, url: str, folder: Path) -> None:
        self.folder = folder
        hook = folder / "hook.py"
        hook.write_text(
            "import sys\nopen(sys.argv[1], 'a').write(sys.stdin.read() + '\\n')\nsys.exit(int(sys.argv[2]))\n"
        )
        self.arguments = [url, "--vkey", str(world.key.verifier), "--state", str(folder / "state.json")]
        self.arguments += ["--metrics", str(folder / "watch.prom")]

    def once(self, *more: str, hook_exit: int = 0) -> subprocess.CompletedProcess[str]:
        hook = f"{sys.executable} '{self.folder}/hook.py' '{self.folder}/alerts.jsonl' {hook_exit}"
        return run("log", "watch", *self.arguments, "--hook", hook, "--once", *more)

    @property
    def alerts(self) -> list[dict[str, object]]:
        path = self.folder / "alerts.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    @property
    def metrics(self) -> str:
        return (self.folder / "watch.prom").read_text()


@pytest.fixture
def watch(world: LogWorld, url: str, tmp_path: Path) -> Watch:
    return Watch(world, url, tmp_path)


def test_an_unexpected_certificate_is_alerted_once(world: LogWorld, watch: Watch, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_bytes(CA.pem)
    expect = tmp_path / "expect.toml"
    expect.write_text(f'[[expect]]\nname = "{SITE}"\nissuers = ["ca.pem"]\n')
    world.append(new_entry(leaf(CA.issue(SITE))))
    world.write_to(tmp_path / "log")
    assert watch.once("--expect", str(expect)).returncode == 0
    assert (watch.alerts, 'up{origin="hospitals.example/log"} 1' in watch.metrics) == ([], True)

    world.append(new_entry(leaf(Ca("mallory").issue(SITE))))
    world.write_to(tmp_path / "log")
    found = watch.once("--expect", str(expect))
    assert (found.returncode, "ALERT [unexpected-certificate] at entry 302" in found.stderr) == (15, True)
    (alert,) = watch.alerts
    assert (alert["alert"], alert["name"], alert["index"]) == ("unexpected-certificate", SITE, 302)
    assert 'kind="unexpected-certificate"} 1' in watch.metrics
    assert watch.once("--expect", str(expect)).returncode == 0
    assert len(watch.alerts) == 1


def test_an_alert_whose_hook_fails_is_given_again(world: LogWorld, watch: Watch, tmp_path: Path) -> None:
    world.append(new_entry(leaf(CA.issue(SITE, SITE + "-too"))))
    world.write_to(tmp_path / "log")
    for hook_exit, count in ((1, 1), (1, 2), (0, 3)):
        assert watch.once(hook_exit=hook_exit).returncode == 15
        assert len(watch.alerts) == count
    assert watch.once().returncode == 0


@pytest.mark.parametrize("kind", ["fork", "rewind"])
def test_a_log_that_takes_back_what_it_showed_is_caught(
    world: LogWorld, watch: Watch, tmp_path: Path, kind: str
) -> None:
    assert watch.once().returncode == 0
    if kind == "rewind":
        (tmp_path / "log" / "checkpoint").write_bytes(world.note(10))
    else:
        fork = LogWorld()
        fork.key = world.key
        fork.append(new_entry(sealed_round(9)))
        fork.grow(500)
        fork.write_to(tmp_path / "log")
    caught = watch.once("--json")
    assert caught.returncode == 12
    assert json.loads(caught.stdout)["alert"] == kind
    (alert,) = watch.alerts
    assert alert["knownCheckpoint"] == world.note().decode()
    assert alert["foundCheckpoint"] == (tmp_path / "log" / "checkpoint").read_text()
    assert f'kind="{kind}"}} 1' in watch.metrics
    assert watch.once().returncode == 12, "and again, as long as it lasts"
    world.write_to(tmp_path / "log")
    assert watch.once().returncode == 0


def test_a_log_out_of_reach_is_unavailable_and_the_metrics_say_so(world: LogWorld, watch: Watch) -> None:
    watch.arguments[0] = "http://127.0.0.1:9/log"
    assert watch.once().returncode == 9
    assert 'up{origin="hospitals.example/log"} 0' in watch.metrics


def test_a_watch_goes_on_until_the_log_forks(world: LogWorld, watch: Watch, tmp_path: Path) -> None:
    command = [FLTRUST, "log", "watch", *watch.arguments, "--interval", "1s"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        _until(lambda: (tmp_path / "state.json").exists())
        world.append(new_entry(leaf(CA.issue(SITE, SITE + "-too"))))
        world.write_to(tmp_path / "log")
        _until(lambda: 'kind="unreadable-certificate"} 1' in watch.metrics)
        assert process.poll() is None
        (tmp_path / "log" / "checkpoint").write_bytes(world.note(10))
        assert process.wait(timeout=20) == 12
    finally:
        process.kill()
        process.communicate()


def test_a_witness_cosigns_remembers_and_refuses(world: LogWorld, tmp_path: Path) -> None:
    note = world.note()
    with _witness(world, tmp_path / "w", "--name", "witness.example/w1") as (address, key):
        line = request_cosignature(address, note, witness=key, prove=lambda _: ())
        assert CheckpointPolicy(world.policy.log, (key,), 1).verify(add_signatures(note, (line,)))
        second = run("log", "witness", "--state", str(tmp_path / "w"), "--log", str(world.key.verifier))
        assert second.returncode == 7
    world.grow(50)

    def prove(old: int) -> tuple[bytes, ...]:
        assert old in (0, 301), "it remembers"
        return consistency_proof(world.log, old, size=351)

    with _witness(world, tmp_path / "w") as (address, again):
        assert again == key
        assert request_cosignature(address, world.note(), witness=key, prove=prove)


def test_a_witness_that_was_killed_has_not_forgotten(world: LogWorld, tmp_path: Path) -> None:
    with _witness(world, tmp_path / "w", "--name", "w.example", end=signal.SIGKILL) as (address, key):
        request_cosignature(address, world.note(), witness=key, prove=lambda _: ())
    fork = LogWorld()
    fork.key = world.key
    fork.append(new_entry(sealed_round(9)))
    fork.grow(299)
    with _witness(world, tmp_path / "w") as (address, key), pytest.raises(Exception, match="has seen 301"):
        request_cosignature(address, fork.note(), witness=key, prove=lambda _: (), old=301)


def test_a_witness_needs_a_name_once_and_a_log(world: LogWorld, tmp_path: Path) -> None:
    state, log = ("--state", str(tmp_path / "w")), ("--log", str(world.key.verifier))
    nameless = run("log", "witness", *state, *log)
    assert (nameless.returncode, "--name" in nameless.stderr) == (8, True)
    assert run("log", "witness", *state, "--name", "w.example").returncode == 8
    assert run("log", "witness", *state, *log, "--name", "w.example", "--listen", "8008").returncode == 8


def _until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


class _witness:  # noqa: N801 - used as a function
    def __init__(
        self, world: LogWorld, state: Path, *more: str, end: signal.Signals = signal.SIGTERM
    ) -> None:
        command = [FLTRUST, "log", "witness", "--state", str(state), "--listen", "127.0.0.1:0", "--json"]
        command += ["--log", str(world.key.verifier), *more]
        self._end = end
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ})

    def __enter__(self) -> tuple[str, VerifierKey]:
        assert self._process.stdout is not None
        ready = json.loads(self._process.stdout.readline())
        return ready["listen"], VerifierKey.parse(ready["vkey"])

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(self._end)
        code = self._process.wait(timeout=20)
        self._process.communicate()
        assert code == (0 if self._end is signal.SIGTERM else -self._end)
