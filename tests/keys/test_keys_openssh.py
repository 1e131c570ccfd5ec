"""The node key: Flower and OpenSSH must both read it."""

from __future__ import annotations

import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fltrust.errors import Conflict, Malformed, Refused
from fltrust.keys import create_node_key, generate, load_node_key, spki_der
from fltrust.keys.openssh import public_path


def test_a_node_key_is_written_private_with_its_public_half_beside(tmp_path: Path) -> None:
    signer = create_node_key(tmp_path / "node.key")
    assert load_node_key(tmp_path / "node.key").key_id == signer.key_id
    private, public = tmp_path / "node.key", public_path(tmp_path / "node.key")
    assert private.read_bytes().startswith(b"-----BEGIN OPENSSH PRIVATE KEY-----\n")
    assert public.name == "node.key.pub"
    assert public.read_bytes().startswith(b"ecdsa-sha2-nistp256 ")
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert stat.S_IMODE(public.stat().st_mode) == 0o644
    loaded = serialization.load_ssh_public_key(public.read_bytes())
    assert isinstance(loaded, ec.EllipticCurvePublicKey)
    assert spki_der(loaded) == spki_der(signer.public_key)


def test_openssh_reads_the_node_key(tmp_path: Path) -> None:
    if shutil.which("ssh-keygen") is None:
        pytest.skip("ssh-keygen is not on this machine")
    create_node_key(tmp_path / "node.key")
    found = subprocess.run(["ssh-keygen", "-y", "-f", tmp_path / "node.key"], capture_output=True, check=True)
    assert found.stdout.split()[:2] == (tmp_path / "node.key.pub").read_bytes().split()[:2]


def test_flower_reads_the_node_key(tmp_path: Path) -> None:
    primitives = pytest.importorskip("flwr.supercore.primitives.asymmetric")
    signer = create_node_key(tmp_path / "node.key")
    key = serialization.load_ssh_private_key((tmp_path / "node.key").read_bytes(), None)
    assert primitives.public_key_to_bytes(key.public_key()) == primitives.public_key_to_bytes(
        signer.public_key
    )


def test_a_node_key_is_never_overwritten(tmp_path: Path) -> None:
    signer = create_node_key(tmp_path / "node.key")
    with pytest.raises(Conflict):
        create_node_key(tmp_path / "node.key")
    assert load_node_key(tmp_path / "node.key").key_id == signer.key_id


def test_an_exposed_node_key_is_refused(tmp_path: Path) -> None:
    create_node_key(tmp_path / "node.key")
    (tmp_path / "node.key").chmod(0o644)
    with pytest.raises(Refused) as refused:
        load_node_key(tmp_path / "node.key")
    assert refused.value.reason == "key-file-exposed"


def test_a_pkcs8_key_or_another_curve_is_no_node_key(tmp_path: Path) -> None:
    other = ec.generate_private_key(ec.SECP384R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    for data in (generate().to_pem(None), other, b"", b"\xff" * 100):
        path = tmp_path / "node.key"
        path.write_bytes(data)
        path.chmod(0o600)
        with pytest.raises(Malformed):
            load_node_key(path)
