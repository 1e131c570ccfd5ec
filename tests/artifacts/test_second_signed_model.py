"""A model with two signatures: the command line demands both, and nothing less is accepted."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from lineage_world import initial
from second_world import SecondChain
from signed_world import RELEASE, SignedWorld, safetensors

from fltrust.artifacts.bundle import SigstoreBundle
from fltrust.artifacts.recipe import VerifiedModel
from fltrust.artifacts.second import second_path, sign_second, verify_second
from fltrust.clock import SystemClock
from fltrust.enrollment.state import AgentRecord, StateDraft
from fltrust.errors import (
    CertificateRefused,
    EvidenceMissing,
    FltrustError,
    Malformed,
    UntrustedSigner,
)
from fltrust.identity import SpiffeId
from fltrust.pki import root_fingerprint
from fltrust.testing import ScratchCa, scratch_identity
from fltrust.updates.second import SecondSignature

WHO = SpiffeId.parse(RELEASE)


@pytest.fixture
def world(tmp_path: Path) -> SignedWorld:
    made = SignedWorld.make(tmp_path)
    made.sign()
    return made


class Second:
    """A second root, and the release signer's key under it."""

    def __init__(self, world: SignedWorld, who: SpiffeId = WHO) -> None:
        chain = SecondChain(who.domain, now=world.desk.clock.now() - timedelta(minutes=5))
        self.root, self.pair, self.who = chain.root, chain.pair(who), who

    def sign(self, verified: VerifiedModel) -> Path:
        return sign_second(verified, signer=self.pair.signer, chain=self.pair.chain_der, root=self.root)


def test_a_model_with_both_is_accepted_and_one_with_the_first_alone_as_ever(world: SignedWorld) -> None:
    second = Second(world)
    out = second.sign(world.verify())
    assert out == second_path(world.model)
    assert world.verify().is_accepted
    assert verify_second(world.verify(), root=second.root).spiffe_id == WHO


def test_without_the_second_one_it_is_refused_where_both_are_demanded(world: SignedWorld) -> None:
    with pytest.raises(EvidenceMissing) as refused:
        verify_second(world.verify(), root=Second(world).root)
    assert refused.value.reason == "second-signature-missing"


def test_the_second_signature_of_another_model_is_refused(world: SignedWorld, tmp_path: Path) -> None:
    second = Second(world)
    out = second.sign(world.verify())
    other_folder = tmp_path / "other"
    other_folder.mkdir()
    other = SignedWorld.make(other_folder, data=safetensors(b"\x00\x00\x00@" * 4))
    other.sign()
    second_path(other.model).write_bytes(out.read_bytes())
    with pytest.raises(FltrustError) as refused:
        verify_second(other.verify(), root=second.root)
    assert refused.value.reason == "digest-mismatch"


def test_what_no_verifier_would_accept_is_not_written(world: SignedWorld) -> None:
    with pytest.raises(CertificateRefused):  # the chain is another's than the first signer's
        Second(world, SpiffeId.of(WHO.domain, WHO.role, "intruder")).sign(world.verify())
    assert not second_path(world.model).exists()


def test_a_model_that_is_refused_is_not_signed_twice(world: SignedWorld) -> None:
    found = world.verify()
    refused = replace(found, refusals=(UntrustedSigner("somebody else's"),))
    with pytest.raises(UntrustedSigner):
        Second(world).sign(refused)
    assert not second_path(world.model).exists()


def test_what_lies_beside_the_model_since_it_was_verified_is_not_signed(world: SignedWorld) -> None:
    """Whoever can write there must not get this key's word for an update, or for anything."""
    found = world.verify()
    world.signature.write_bytes(world.desk.sign(initial().to_payload()))
    with pytest.raises(Malformed, match="changed"):
        Second(world).sign(found)
    assert not second_path(world.model).exists()


def test_a_second_signature_of_somebody_else_than_the_first_signer_is_refused(world: SignedWorld) -> None:
    other = Second(world, SpiffeId.of(WHO.domain, WHO.role, "intruder"))
    payload = SigstoreBundle.parse(world.signature.read_bytes()).envelope.payload
    second = SecondSignature.sign(payload, signer=other.pair.signer, chain=other.pair.chain_der)
    second_path(world.model).write_bytes(second.to_json())
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
    state, root = ("--state", str(commands.state)), ("--second-root", "chain/root.pem")
    commands.second("init", "--trust-domain", str(WHO.domain), *commands.chain)
    assert commands.second("init", "--trust-domain", str(WHO.domain), *commands.chain, check=False).returncode
    assert b"ENCRYPTED" in (tmp_path / "chain" / "root.key").read_bytes()
    commands.second("request", "--out", "request.json", *state)
    issue = ("issue", "request.json", "--out", "second.pem", *commands.chain, "--root")
    refused = commands.second(*issue, "sha256:" + "00" * 32, check=False)
    assert (refused.returncode, "expected a root of hospitals.example" in refused.stderr) == (3, True)
    assert not (tmp_path / "second.pem").exists()
    commands.second(*issue, commands.first_root)
    assert str(WHO) in commands.second("install", "second.pem", *root, *state).stderr
    handed_over = [tmp_path / name for name in ("request.json", "second.pem", "chain/root.pem")]
    assert not any(b"PRIVATE KEY" in path.read_bytes() for path in handed_over)
    world = SignedWorld.make(tmp_path, clock=SystemClock())
    world.sign()
    (tmp_path / "trust.json").write_bytes(world.desk.trust_file())
    sign = ("sign", str(world.model), "--trust", "trust.json", *root, *state)
    # A CA of Mallory's own that names the same signer: what it signed is not signed by our key.
    (tmp_path / "mallory").mkdir()
    mallory = SignedWorld.make(tmp_path / "mallory", clock=SystemClock())
    mallory.sign()
    genuine = world.signature.read_bytes()
    world.signature.write_bytes(mallory.signature.read_bytes())
    assert commands.second(*sign, check=False).returncode
    assert not second_path(world.model).exists()
    world.signature.write_bytes(genuine)
    commands.second(*sign)
    verify = ("verify", str(world.model), "--trust", "trust.json", "--identity", str(WHO))
    commands.run(*verify, "--second-root", "chain/root.pem")
    second_path(world.model).unlink()
    commands.run(*verify)
    missing = commands.run(*verify, "--second-root", "chain/root.pem", check=False)
    assert (missing.returncode, "second-signature-missing" in missing.stdout + missing.stderr) == (13, True)
