"""`fltrust lineage`: shown, verified, drawn; and the replay's commands as far as they need no coordinator."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from fltrust.artifacts.bundle import SigstoreBundle
from fltrust.artifacts.lineage import read_lineage, write_lineage
from fltrust.artifacts.manifest import sidecar_paths
from fltrust.artifacts.provenance import Provenance
from fltrust.artifacts.status import RevokedName, Status, TaintedAggregate
from fltrust.cli.exits import EXIT_CODES
from fltrust.cli.main import run
from fltrust.errors import Conflict, EvidenceInvalid, EvidenceMissing, InvalidInput, Revoked, Tainted
from fltrust.identity import Epoch
from fltrust.keys.recovery import RecoveryKey
from fltrust.testing.desk import DOMAIN

sys.path.append(str(Path(__file__).parents[1] / "artifacts"))
from signed_world import MAIN, SignedWorld


@pytest.fixture(autouse=True)
def _no_trust_of_this_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLTRUST_TRUST", raising=False)


@pytest.fixture
def world(tmp_path: Path) -> SignedWorld:
    world = SignedWorld.make(tmp_path)
    world.record_lineage()
    world.sign()
    export(world)
    return world


def export(world: SignedWorld) -> None:
    (world.folder / "trust.json").write_bytes(world.desk.trust_file())


def lineage(command: str, world: SignedWorld, *more: str, trusted: bool = True) -> int:
    trust = ["--trust", str(world.folder / "trust.json")] if trusted else []
    return run(["lineage", command, str(world.model), *trust, *more])


def test_it_shows_every_round_and_says_whether_it_was_verified(
    world: SignedWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lineage("show", world) == 0
    told = capsys.readouterr()
    assert "● run 1 · step 2 · round 2" in told.out
    assert "3 updates: site-a (100), site-b (100), site-c (100)" in told.out
    assert "2 rounds, 3 participants, 1 run; verified: yes" in told.out
    assert "no status" in told.err

    assert lineage("show", world, trusted=False) == 0
    told = capsys.readouterr()
    assert "verified: NO" in told.out
    assert "Nothing of this was verified" in told.err


def test_its_json_says_the_same(world: SignedWorld, capsys: pytest.CaptureFixture[str]) -> None:
    assert lineage("verify", world, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["verified"], found["isTheModels"], found["rounds"]) == (True, True, 2)
    assert [step["step"] for step in found["steps"]] == [2, 1, 0]
    assert found["steps"][0]["updates"][0]["examples"] == "100"
    assert found["builders"] == [str(MAIN)]


def test_verifying_asks_for_a_trust_file(world: SignedWorld) -> None:
    assert lineage("verify", world, trusted=False) == 2


def test_what_is_tainted_is_marked_and_has_an_exit_code_of_its_own(
    world: SignedWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    (newest, *_) = read_lineage(sidecar_paths(world.model).lineage)
    head = Provenance.from_payload(SigstoreBundle.parse(newest).envelope.payload)
    world.desk.status = Status(
        domain=DOMAIN,
        epoch=Epoch(3),
        at=world.desk.clock.now(),
        tainted_aggregates=(TaintedAggregate(head.tensors, head.run_id, head.step, True),),
    )
    export(world)
    assert lineage("verify", world) == EXIT_CODES[Tainted]
    assert "✗ run 1 · step 2 · round 2   TAINTED" in capsys.readouterr().out
    assert lineage("show", world) == 0


def test_a_revoked_aggregator_is_refused(world: SignedWorld) -> None:
    now = world.desk.clock.now()
    world.desk.status = Status(
        domain=DOMAIN,
        epoch=Epoch(3),
        at=now,
        revoked=(RevokedName(str(MAIN), now, now.replace(year=2020), True, frozenset(), "key-compromise"),),
    )
    export(world)
    assert lineage("verify", world) == EXIT_CODES[Revoked]


def test_a_model_with_other_tensors_is_refused_and_shown_as_such(
    world: SignedWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    data = bytearray(world.model.read_bytes())
    data[-1] ^= 1
    world.model.write_bytes(data)
    assert lineage("verify", world) == EXIT_CODES[EvidenceInvalid]
    capsys.readouterr()
    assert lineage("show", world, trusted=False) == 0
    assert "NOT those of the newest aggregate" in capsys.readouterr().err


def test_a_lineage_that_was_cut_or_changed_is_refused(world: SignedWorld) -> None:
    path = sidecar_paths(world.model).lineage
    lines = list(read_lineage(path))
    write_lineage(path, lines[:-1])
    assert lineage("verify", world) == EXIT_CODES[EvidenceMissing]
    write_lineage(path, [lines[0], lines[2]])
    assert lineage("verify", world) == EXIT_CODES[EvidenceInvalid]
    changed = lines[1].replace(b'"logIndex":"', b'"logIndex":"1')
    write_lineage(path, [lines[0], changed, lines[2]])
    assert lineage("verify", world) in (EXIT_CODES[EvidenceInvalid], EXIT_CODES[InvalidInput])
    path.unlink()
    for command in ("verify", "show"):
        assert lineage(command, world) == EXIT_CODES[EvidenceMissing]


def test_another_federations_trust_file_is_refused(world: SignedWorld, tmp_path: Path) -> None:
    other = SignedWorld.make(tmp_path, name="other.safetensors")
    (world.folder / "trust.json").write_bytes(other.desk.trust_file())
    assert lineage("verify", world) not in (0, 1, 2)


def test_it_draws_a_picture(world: SignedWorld, tmp_path: Path) -> None:
    out = tmp_path / "lineage.svg"
    assert lineage("graph", world, "--out", str(out)) == 0
    root = ElementTree.parse(out).getroot()
    assert root.tag.endswith("svg")
    assert "not verified" not in out.read_text()
    assert lineage("graph", world, "--out", str(out), trusted=False) == 0
    assert "(not verified)" in out.read_text()


def test_the_lineage_may_lie_elsewhere(world: SignedWorld, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere.jsonl"
    sidecar_paths(world.model).lineage.rename(moved)
    assert lineage("verify", world, "--lineage", str(moved)) == 0


def test_it_imports_nothing_heavy(world: SignedWorld) -> None:
    code = (
        "import sys; from fltrust.cli.main import run; code = run(sys.argv[1:]); "
        "heavy = {'flwr', 'grpc', 'sqlalchemy', 'torch', 'sigstore', 'numpy'} & set(sys.modules); "
        "sys.exit(code or (f'imported {heavy}' if heavy else 0))"
    )
    done = subprocess.run(
        [
            *(sys.executable, "-c", code, "lineage", "verify", str(world.model)),
            *("--trust", str(world.folder / "trust.json")),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


# --- the recovery key


def test_a_recovery_key_is_made_with_a_passphrase_from_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    passphrase, key = tmp_path / "passphrase", tmp_path / "recovery.pem"
    passphrase.write_text("long enough\n")
    passphrase.chmod(0o600)
    arguments = ["rounds", "recovery-key", str(key), "--passphrase-file", str(passphrase)]
    assert run(arguments) == 0
    made = RecoveryKey.load(key, passphrase=b"long enough")
    assert made.recipient.key_id in capsys.readouterr().err
    assert run(arguments) == EXIT_CODES[Conflict]
    passphrase.chmod(0o644)
    assert run([*arguments[:2], str(tmp_path / "k2"), *arguments[3:]]) == 3
    assert not (tmp_path / "k2").exists()


def test_a_passphrase_is_not_asked_of_nobody(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fltrust.cli.main", "rounds", "recovery-key", str(tmp_path / "k")],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env={**os.environ, "FLTRUST_RECOVERY_PASSPHRASE_FILE": ""},
    )
    assert done.returncode != 0
    assert not (tmp_path / "k").exists()


def test_a_strategy_that_cannot_be_found_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = run(
        [
            *("rounds", "replay", "5", "--without", "site-a", "--retained", str(tmp_path)),
            *("--key", str(tmp_path / "k"), "--out", str(tmp_path / "m"), "--strategy", "nowhere:nothing"),
        ]
    )
    assert code == EXIT_CODES[InvalidInput]
    assert "nowhere" in capsys.readouterr().err
