"""A model with two signatures: the command line demands both, and nothing less is accepted."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from signed_world import RELEASE, SignedWorld, safetensors

from fltrust.artifacts.second import second_path, sign_second, verify_second
from fltrust.errors import CertificateRefused, EvidenceMissing, FltrustError
from fltrust.identity import SpiffeId
from fltrust.keys.mldsa import generate_mldsa
from fltrust.pki.second import SecondAuthority, create_second_issuing, create_second_root

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


def test_the_commands_make_a_root_and_a_key_that_verify(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("correct horse")
    secret.chmod(0o600)
    fltrust = [sys.executable, "-m", "fltrust.cli.main"]
    if subprocess.run([*fltrust, "--version"], capture_output=True, check=False).stdout == b"":
        fltrust = [str(Path(sys.executable).with_name("fltrust"))]
    chain = ["--folder", str(tmp_path / "chain"), "--passphrase-file", str(secret)]
    for command in (
        ["second", "init", "--trust-domain", "hospitals.example", *chain],
        [
            "second",
            "issue",
            "spiffe://hospitals.example/signer/release",
            "--out",
            str(tmp_path / "k"),
            *chain,
        ],
    ):
        done = subprocess.run([*fltrust, *command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    again = subprocess.run(
        [*fltrust, "second", "init", "--trust-domain", "hospitals.example", *chain],
        capture_output=True,
        check=False,
    )
    assert again.returncode != 0
    root = x509.load_pem_x509_certificate((tmp_path / "chain" / "root.pem").read_bytes())
    leaf, issuing = x509.load_pem_x509_certificates((tmp_path / "k" / "second.pem").read_bytes())
    issuing.verify_directly_issued_by(root)
    leaf.verify_directly_issued_by(issuing)
    assert b"ENCRYPTED" in (tmp_path / "chain" / "root.key").read_bytes()
    assert len(leaf.public_bytes(Encoding.DER)) < 16_384
