"""Keys in files: what is written, and every reason not to read one."""

from __future__ import annotations

import stat
import subprocess
import threading
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from fltrust.errors import Malformed, Oversized, Refused, StorageUnavailable
from fltrust.identity import KeyId
from fltrust.keys import FileSigner, generate, load, save, spki_der, verify_signature

SECRET = b"correct horse battery staple"


def write(path: Path, data: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(data)
    path.chmod(mode)
    return path


def pkcs8(key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@pytest.mark.parametrize("passphrase", [None, SECRET])
def test_a_saved_key_comes_back_and_its_file_is_private(tmp_path: Path, passphrase: bytes | None) -> None:
    signer = generate()
    save(signer, tmp_path / "k", passphrase=passphrase)
    loaded = load(tmp_path / "k", passphrase=passphrase)
    assert loaded.key_id == signer.key_id == KeyId.of_spki(spki_der(loaded.public_key))
    assert stat.S_IMODE((tmp_path / "k").stat().st_mode) == 0o600
    verify_signature(signer.public_key, loaded.sign(b"data"), b"data")


def test_an_encrypted_key_is_encrypted_on_disk(tmp_path: Path) -> None:
    signer = generate()
    save(signer, tmp_path / "k", passphrase=SECRET)
    pem = (tmp_path / "k").read_bytes()
    assert b"ENCRYPTED PRIVATE KEY" in pem
    asked = ["openssl", "pkey", "-in", tmp_path / "k", "-noout", "-passin"]
    assert subprocess.run([*asked, "pass:" + SECRET.decode()], capture_output=True).returncode == 0
    assert subprocess.run([*asked, "pass:wrong"], capture_output=True).returncode != 0


@pytest.mark.parametrize(
    ("saved", "given", "reason"),
    [
        (SECRET, b"wrong passphrase", "passphrase-wrong"),
        (SECRET, None, "passphrase-missing"),
        (None, SECRET, "passphrase-unexpected"),
    ],
)
def test_the_wrong_passphrase_is_refused_without_repeating_it(
    tmp_path: Path, saved: bytes | None, given: bytes | None, reason: str
) -> None:
    save(generate(), tmp_path / "k", passphrase=saved)
    with pytest.raises(Refused) as refused:
        load(tmp_path / "k", passphrase=given)
    assert refused.value.reason == reason
    for secret in (SECRET.decode(), "wrong passphrase"):
        assert secret not in str(refused.value)
    assert refused.value.__cause__ is None


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601])
def test_a_key_that_others_can_touch_is_refused(tmp_path: Path, mode: int) -> None:
    path = write(tmp_path / "k", generate().to_pem(None), mode)
    with pytest.raises(Refused, match="chmod 600") as refused:
        load(path, passphrase=None)
    assert refused.value.reason == "key-file-exposed"


@pytest.mark.parametrize(
    "key", [ec.generate_private_key(ec.SECP384R1()), ed25519.Ed25519PrivateKey.generate()]
)
def test_a_key_that_is_not_p256_is_refused(
    tmp_path: Path, key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
) -> None:
    path = write(tmp_path / "k", pkcs8(key))
    with pytest.raises(Malformed, match="P-256"):
        load(path, passphrase=None)


def test_a_signer_on_another_curve_cannot_be_made() -> None:
    with pytest.raises(Malformed, match="secp384r1"):
        FileSigner(ec.generate_private_key(ec.SECP384R1()))


@pytest.mark.parametrize(
    "data", [b"", b"no key", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"]
)
def test_something_else_than_a_key_is_malformed(tmp_path: Path, data: bytes) -> None:
    path = write(tmp_path / "k", data)
    with pytest.raises(Malformed):
        load(path, passphrase=None)


def test_a_huge_file_is_not_read_as_a_key(tmp_path: Path) -> None:
    path = write(tmp_path / "k", generate().to_pem(None) + b"\n" * 20_000)
    with pytest.raises(Oversized):
        load(path, passphrase=None)


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(Malformed, match="no file"):
        load(tmp_path / "absent", passphrase=None)


def test_a_key_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(StorageUnavailable):
        save(generate(), tmp_path / "no" / "folder" / "k", passphrase=None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("passphrase", [b"", b"x" * 2000])
def test_an_empty_or_endless_passphrase_is_not_used(tmp_path: Path, passphrase: bytes) -> None:
    with pytest.raises(Malformed):
        save(generate(), tmp_path / "k", passphrase=passphrase)
    assert list(tmp_path.iterdir()) == []


def test_a_signer_shows_no_secret() -> None:
    signer = generate()
    secret = signer.to_pem(None).decode().splitlines()[1]
    assert secret not in repr(signer)
    assert str(signer.key_id) in repr(signer)


def test_many_threads_may_sign_with_one_key() -> None:
    signer = generate()
    failures: list[Exception] = []

    def sign(thread: int) -> None:
        try:
            for count in range(50):
                data = f"{thread}/{count}".encode()
                verify_signature(signer.public_key, signer.sign(data), data)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=sign, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
