"""`fltrust verify` and `fltrust sign` as people, registries and scripts rely on them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fltrust.artifacts.status import RevokedName, Status
from fltrust.cli.exits import EXIT_CODES
from fltrust.cli.main import run
from fltrust.errors import (
    EvidenceMissing,
    InvalidInput,
    NotFound,
    PolicyNotMet,
    Revoked,
    SignatureInvalid,
    Tampered,
    UntrustedSigner,
)
from fltrust.identity import Epoch
from fltrust.testing.desk import DOMAIN, RELEASE, ScratchDesk

sys.path.append(str(Path(__file__).parents[1] / "artifacts"))
from signed_world import SignedWorld, safetensors

MALFORMED = EXIT_CODES[InvalidInput]
ANY_SIGNER = f"spiffe://{DOMAIN}/signer/*"


@pytest.fixture(autouse=True)
def _no_trust_of_this_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("FLTRUST_TRUST", "FLTRUST_POLICY", "FLTRUST_IDENTITY", "FLTRUST_ISSUER"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def world(tmp_path: Path) -> SignedWorld:
    world = SignedWorld.make(tmp_path)
    world.record_lineage()
    world.sign()
    export(world)
    return world


def export(world: SignedWorld) -> None:
    (world.folder / "trust.json").write_bytes(world.desk.trust_file())


def verify(world: SignedWorld, *more: str, identity: str | None = str(RELEASE)) -> int:
    who = [] if identity is None else ["--identity", identity]
    return run(["verify", str(world.model), "--trust", str(world.folder / "trust.json"), *who, *more])


def policy(world: SignedWorld, text: str) -> str:
    path = world.folder / "policy.toml"
    path.write_text("version = 1\n" + text)
    return str(path)


def test_it_says_who_when_what_rounds_and_participants(
    world: SignedWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verify(world) == 0
    told = capsys.readouterr()
    for expected in (
        "Verified",
        str(RELEASE),
        "2026-01-01",
        "log entry",
        "1 file",
        "rounds        2",
        "site-a, site-b, site-c",
    ):
        assert expected in told.out
    assert "nothing is known of revocation" in told.err


def test_its_json_has_every_key_in_every_case(world: SignedWorld, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify(world, "--json") == 0
    good = json.loads(capsys.readouterr().out)
    world.model.write_bytes(b"other")
    assert verify(world, "--json") == EXIT_CODES[Tampered]
    bad = json.loads(capsys.readouterr().out)
    assert good.keys() == bad.keys()
    assert (good["verdict"], bad["verdict"]) == ("accepted", "refused")
    assert good["signer"] == str(RELEASE)
    assert good["rounds"] == 2
    assert len(good["participants"]) == 3
    assert [item["reason"] for item in bad["refusals"]] == ["file-changed"]
    assert bad["signer"] is None


def test_the_trust_file_may_stand_in_the_environment(
    world: SignedWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["verify", str(world.model), "--identity", ANY_SIGNER]
    assert run(arguments) == MALFORMED
    monkeypatch.setenv("FLTRUST_TRUST", str(world.folder / "trust.json"))
    assert run(arguments) == 0


def test_policy_and_identity_may_stand_in_the_environment_and_an_option_goes_before(
    world: SignedWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert verify(world, identity=None) == EXIT_CODES[UntrustedSigner]
    monkeypatch.setenv("FLTRUST_IDENTITY", ANY_SIGNER)
    assert verify(world, identity=None) == 0
    assert verify(world, identity=f"spiffe://{DOMAIN}/signer/other") == EXIT_CODES[UntrustedSigner]
    monkeypatch.setenv("FLTRUST_POLICY", policy(world, "[lineage]\nmin-rounds = 3\n"))
    assert verify(world, identity=None) == EXIT_CODES[PolicyNotMet]


def test_each_refusal_has_its_own_exit_code(world: SignedWorld) -> None:
    assert verify(world, identity=f"spiffe://{DOMAIN}/signer/other") == EXIT_CODES[UntrustedSigner]
    assert verify(world, identity=None) == EXIT_CODES[UntrustedSigner]
    demanding = policy(world, "[lineage]\nmin-rounds = 3\n")
    assert verify(world, "--policy", demanding) == EXIT_CODES[PolicyNotMet]
    now = world.desk.clock.now()
    world.desk.status = Status(
        domain=DOMAIN,
        epoch=Epoch(3),
        at=now,
        revoked=(RevokedName(str(RELEASE), now, None, True, frozenset(), "key-compromise"),),
    )
    export(world)
    assert verify(world) == EXIT_CODES[Revoked]
    world.desk.status = None
    export(world)
    data = world.model.read_bytes()
    world.model.write_bytes(data[:-1] + b"\x01")
    assert verify(world) == EXIT_CODES[Tampered]
    world.model.write_bytes(data)
    world.edit(lambda b: b["dsseEnvelope"]["signatures"][0].update(sig="MAYCAQECAQE="))
    assert verify(world) == EXIT_CODES[SignatureInvalid]
    world.signature.write_text("{")
    assert verify(world) == MALFORMED
    world.signature.unlink()
    assert verify(world) == EXIT_CODES[EvidenceMissing]
    world.model.unlink()
    assert verify(world) == EXIT_CODES[NotFound]


def test_advisory_tells_what_it_would_refuse_and_exits_with_0(
    world: SignedWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verify(world, "--advisory", identity=f"spiffe://{DOMAIN}/signer/other") == 0
    told = capsys.readouterr()
    assert "REFUSED" in told.err
    assert "untrusted-signer" in told.err
    assert "Not accepted" in told.out
    world.model.write_bytes(b"other")
    assert verify(world, "--advisory") == 0
    assert "file-changed" in capsys.readouterr().err
    world.signature.write_text("{")
    assert verify(world, "--advisory") == 0
    assert "REFUSED" in capsys.readouterr().err


def test_advisory_may_be_the_policys_own(world: SignedWorld, capsys: pytest.CaptureFixture[str]) -> None:
    advisory = policy(world, 'mode = "advisory"\n[lineage]\nmin-rounds = 3\n')
    assert verify(world, "--policy", advisory) == 0
    assert "too-few-rounds" in capsys.readouterr().err


def test_advisory_does_not_excuse_a_mistake_of_the_caller(world: SignedWorld) -> None:
    assert verify(world, "--advisory", identity=None) == EXIT_CODES[UntrustedSigner]
    assert verify(world, "--advisory", "--policy", policy(world, "mod = 1\n")) == MALFORMED
    (world.folder / "trust.json").write_text("{}")
    assert verify(world, "--advisory") == MALFORMED


def test_an_unknown_key_of_a_policy_is_named(world: SignedWorld, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify(world, "--policy", policy(world, "[lineage]\nmin-round = 3\n")) == MALFORMED
    told = capsys.readouterr().err
    assert "min-round" in told
    assert "[lineage]" in told


def test_a_verification_summary_says_passed_or_failed(world: SignedWorld) -> None:
    out = world.folder / "vsa.json"
    assert verify(world, "--vsa", str(out)) == 0
    good = json.loads(out.read_bytes())
    assert good["predicateType"] == "https://slsa.dev/verification_summary/v1"
    assert good["predicate"]["verificationResult"] == "PASSED"
    assert {"file:trust.json", "file:m.safetensors.sig", "urn:fltrust:lineage"} == {
        item["uri"] for item in good["predicate"]["inputAttestations"]
    }
    world.model.write_bytes(b"\x02" + b"\x00" * 7 + b"{}")
    assert verify(world, "--vsa", str(out)) == EXIT_CODES[Tampered]
    bad = json.loads(out.read_bytes())
    assert bad["predicate"]["verificationResult"] == "FAILED"
    assert bad["predicate"]["fltrust"]["reasons"] == ["file-changed"]
    assert bad["subject"] != good["subject"]


def test_a_newer_status_may_be_given(world: SignedWorld) -> None:
    now = world.desk.clock.now()
    revoked = RevokedName(str(RELEASE), now, None, True, frozenset(), "key-compromise")
    status = world.folder / "status.json"
    status.write_bytes(
        world.desk.sign_status(Status(domain=DOMAIN, epoch=Epoch(9), at=now, revoked=(revoked,)))
    )
    assert verify(world, "--status", str(status)) == EXIT_CODES[Revoked]


def test_it_is_quick_because_it_loads_little(world: SignedWorld) -> None:
    """No timing: what is not loaded cannot take time."""
    program = (
        "import sys; from fltrust.cli.main import run;"
        f"code = run(['verify', {str(world.model)!r}, '--trust', {str(world.folder / 'trust.json')!r},"
        f" '--identity', {ANY_SIGNER!r}]);"
        "heavy = {'torch', 'grpc', 'google', 'sigstore', 'sqlalchemy', 'numpy', 'rich', 'flwr', 'requests',"
        " 'safetensors', 'asyncio', 'ssl'} & set(sys.modules);"
        "print(code, sorted(heavy))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "0 []", done.stderr


# Signing.


@contextmanager
def at_the_desk(desk: ScratchDesk) -> Iterator[tuple[ScratchDesk, object]]:
    yield desk, object()


@pytest.fixture
def signer_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "home"
    folder = home / DOMAIN / "signer-release"
    folder.mkdir(parents=True)
    (folder / "agent.json").write_text("{}")
    monkeypatch.setenv("FLTRUST_HOME", str(home))
    return folder


def test_sign_writes_signature_and_lineage_and_says_so(
    tmp_path: Path,
    signer_home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    world = SignedWorld.make(tmp_path)
    world.record_lineage()
    asked: list[Path] = []

    def connect(folder: Path, **_: Any) -> Any:
        asked.append(folder)
        return at_the_desk(world.desk)

    monkeypatch.setattr("fltrust.agent.session.connect", connect)
    assert run(["sign", str(world.model), "--as", "release"]) == 0
    told = capsys.readouterr().out
    assert asked == [signer_home]
    assert f"as {RELEASE}" in told
    assert "step 2 of run 1" in told
    export(world)
    assert verify(world) == 0
    capsys.readouterr()
    assert run(["sign", str(world.model), "--json", "--entry", "dsse-0.0.1"]) == 0
    written = json.loads(capsys.readouterr().out)
    assert (written["signer"], written["run"], written["step"]) == (str(RELEASE), "1", 2)
    assert written["signature"] == str(world.signature)
    assert verify(world) == 0


@pytest.mark.parametrize(
    "arguments",
    [["--run", "1"], ["--step", "1"], ["--staging"], ["--trust-config", "x"], ["--as", "No/Name"]],
)
def test_sign_refuses_options_that_do_not_go_together(
    tmp_path: Path, signer_home: Path, arguments: list[str]
) -> None:
    world = SignedWorld.make(tmp_path)
    assert run(["sign", str(world.model), *arguments]) == MALFORMED
    assert not world.signature.exists()


def test_sign_as_somebody_who_is_not_enrolled_here_is_not_found(tmp_path: Path, signer_home: Path) -> None:
    world = SignedWorld.make(tmp_path)
    assert run(["sign", str(world.model), "--as", "nobody"]) == EXIT_CODES[NotFound]


def test_sign_keyless_needs_nobody_enrolled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sigstore", reason="keyless signing needs the extra 'sigstore'")
    from fltrust.testing.sigstore_double import SigstoreDouble

    world = SignedWorld.make(tmp_path)
    with SigstoreDouble() as double:
        (tmp_path / "config.json").write_bytes(double.client_config)
        (tmp_path / "token").write_text(double.token("alice@hospital.example"))
        (tmp_path / "trust.json").write_bytes(double.trusted_root)
        keyless = [
            "--trust-config",
            str(tmp_path / "config.json"),
            "--identity-token",
            str(tmp_path / "token"),
        ]
        assert run(["sign", str(world.model), "--sigstore", *keyless]) == 0
        who = ["--issuer", double.url]
    assert verify(world, *who, identity="alice@hospital.example") == 0
    assert "alice@hospital.example (issuer http://127.0.0.1" in capsys.readouterr().out


@pytest.mark.slow
def test_a_model_is_signed_at_a_real_coordinator_until_its_signer_is_revoked(tmp_path: Path) -> None:
    from examples.lab import Lab

    model, trust = tmp_path / "m.safetensors", tmp_path / "trust.json"
    model.write_bytes(safetensors())
    with Lab(tmp_path / "lab") as lab:
        lab.start_coordinator()
        lab.fltrust("join", stdin=lab.fltrust("token", "create", "release", "--role", "signer").stdout)

        def verified() -> subprocess.CompletedProcess[str]:
            lab.fltrust("trust", "export", str(trust))
            return lab.fltrust(
                "verify", str(model), "--trust", str(trust), "--identity", ANY_SIGNER, check=False
            )

        lab.fltrust("sign", str(model), "--as", "release")
        done = verified()
        assert done.returncode == 0, done.stderr
        assert "status        epoch" in done.stdout
        lab.fltrust("revoke", "signer/release", "--compromised-since", "1h")
        assert verified().returncode == EXIT_CODES[Revoked]
        assert lab.fltrust("sign", str(model), "--as", "release", check=False).returncode != 0
