"""A model with two signatures: the command line demands both, and nothing less is accepted."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from signed_world import RELEASE, SignedWorld, safetensors

from fltrust.artifacts.second import second_path, sign_second, verify_second
from fltrust.clock import SystemClock
from fltrust.enrollment.state import AgentRecord, StateDraft
from fltrust.errors import CertificateRefused, EvidenceMissing, FltrustError
from fltrust.identity import SpiffeId
from fltrust.keys.mldsa import generate_mldsa
from fltrust.pki import root_fingerprint
from fltrust.pki.second import (
    SecondAuthority,
    create_second_issuing,
    create_second_root,
    read_second_root,
)
from fltrust.testing import ScratchCa, scratch_identity

WHO = SpiffeId.parse(RELEASE)


@pytest.fixture
def world(tmp_path: Path) -> SignedWorld:
    made = SignedWorld.make(tmp_path)
    made.sign()
    return made


class Second:
    """A second root, and the release signer's key under it."""

    def __init__(self, world: SignedWorld, who: SpiffeId = WHO) -> None:
        now = world.desk.clock.now() - timedelta(minutes=5)
        root_key, issuing_key, self.key = (generate_mldsa() for _ in range(3))
        self.root = create_second_root(who.domain, root_key, now=now)
        issuing = create_second_issuing(self.root, root_key, issuing_key, now=now)
        authority = SecondAuthority(issuing, issuing_key)
        self.chain = authority.issue(who, self.key.public_key, now=now, not_after=now + timedelta(days=1))
        self.who = who

    def sign(self, model: Path) -> Path:
        return sign_second(model, signer=self.key, chain=self.chain, root=self.root, who=self.who)


def test_a_model_with_both_is_accepted_and_one_with_the_first_alone_as_ever(world: SignedWorld) -> None:
    second = Second(world)
    out = second.sign(world.model)
    assert out == second_path(world.model)
    assert world.verify().is_accepted
    assert verify_second(world.verify(), root=second.root).spiffe_id == WHO


def test_without_the_second_one_it_is_refused_where_both_are_demanded(world: SignedWorld) -> None:
    with pytest.raises(EvidenceMissing) as refused:
        verify_second(world.verify(), root=Second(world).root)
    assert refused.value.reason == "second-signature-missing"


def test_the_second_signature_of_another_model_is_refused(world: SignedWorld, tmp_path: Path) -> None:
    second = Second(world)
    out = second.sign(world.model)
    other_folder = tmp_path / "other"
    other_folder.mkdir()
    other = SignedWorld.make(other_folder, data=safetensors(b"\x00\x00\x00@" * 4))
    other.sign()
    second_path(other.model).write_bytes(out.read_bytes())
    with pytest.raises(FltrustError) as refused:
        verify_second(other.verify(), root=second.root)
    assert refused.value.reason == "digest-mismatch"


def test_what_no_verifier_would_accept_is_not_written(world: SignedWorld) -> None:
    second = Second(world)
    second.who = SpiffeId.of(WHO.domain, WHO.role, "somebody-else")
    with pytest.raises(CertificateRefused):
        second.sign(world.model)
    assert not second_path(world.model).exists()


def test_a_second_signature_of_somebody_else_than_the_first_signer_is_refused(world: SignedWorld) -> None:
    other = Second(world, SpiffeId.of(WHO.domain, WHO.role, "intruder"))
    other.sign(world.model)
    with pytest.raises(CertificateRefused) as refused:
        verify_second(world.verify(), root=other.root)
    assert refused.value.reason == "unknown-identity"


class Commands:
    """`fltrust` as an operator types it, in a folder with the state of the release signer."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        secret = folder / "secret"
        secret.write_text("correct horse")
        secret.chmod(0o600)
        self.chain = ["--folder", str(folder / "chain"), "--passphrase-file", str(secret)]
        found = scratch_identity(WHO.name, WHO.role, ca=ScratchCa.make(WHO.domain)).credentials
        self.first_root = str(root_fingerprint(found.bundle.roots[0]))
        self.state = folder / "state"
        record = AgentRecord(WHO, "127.0.0.1:1", "127.0.0.1:2", None)
        with StateDraft(folder) as draft:
            draft.finish(
                self.state,
                record,
                signer=found.signer,
                chain=found.certificate.chain,
                bundle=found.bundle,
                passphrase=None,
                replace=False,
            )

    def run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        program = str(Path(sys.executable).with_name("fltrust"))
        done = subprocess.run(
            [program, *arguments], capture_output=True, text=True, check=False, cwd=self.folder
        )
        assert not check or done.returncode == 0, done.stderr
        return done

    def second(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.run("second", *arguments, check=check)


def test_the_commands_lead_from_nothing_to_a_model_signed_twice(tmp_path: Path) -> None:
    commands = Commands(tmp_path)
    state, root = ("--state", str(commands.state)), ("--root", "chain/root.pem")
    commands.second("init", "--trust-domain", str(WHO.domain), *commands.chain)
    assert commands.second("init", "--trust-domain", str(WHO.domain), *commands.chain, check=False).returncode
    assert b"ENCRYPTED" in (tmp_path / "chain" / "root.key").read_bytes()
    commands.second("request", "--out", "request.json", *state)
    issue = ("issue", "request.json", "--out", "second.pem", *commands.chain, "--root")
    assert "root" in commands.second(*issue, "sha256:" + "00" * 32, check=False).stderr
    assert not (tmp_path / "second.pem").exists()
    commands.second(*issue, commands.first_root)
    assert str(WHO) in commands.second("install", "second.pem", *root, *state).stderr
    handed_over = [tmp_path / name for name in ("request.json", "second.pem", "chain/root.pem")]
    assert not any(b"PRIVATE KEY" in path.read_bytes() for path in handed_over)
    world = SignedWorld.make(tmp_path, clock=SystemClock())
    world.sign()
    commands.second("sign", str(world.model), *root, *state)
    leaf = verify_second(world.verify(), root=read_second_root(tmp_path / "chain" / "root.pem"))
    assert leaf.spiffe_id == WHO
