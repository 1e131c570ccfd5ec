from __future__ import annotations

import stat
from pathlib import Path

import pytest

from fltrust.enrollment.mackeys import MAC_KEYS_FILE, MacCredential, MacKeys, MacPurpose, open_mac_keys
from fltrust.errors import FltrustError, Malformed
from fltrust.testing.clock import FakeClock


def test_a_key_is_of_its_master_purpose_and_id_alone() -> None:
    keys = MacKeys(bytes(32))
    one = keys.key_of(MacPurpose.ACME, "5c0e0a1d8f1b2c3d")
    assert one == MacKeys(bytes(32)).key_of(MacPurpose.ACME, "5c0e0a1d8f1b2c3d")
    others = [
        MacKeys(b"\x01" + bytes(31)).key_of(MacPurpose.ACME, "5c0e0a1d8f1b2c3d"),
        keys.key_of(MacPurpose.CMP, "5c0e0a1d8f1b2c3d"),
        keys.key_of(MacPurpose.ACME, "5c0e0a1d8f1b2c3e"),
    ]
    assert len({one, *others}) == 4
    assert len(one) == 32


def test_the_derivation_is_for_good() -> None:
    """HKDF-SHA256 without salt, as any library computes it; handed-out keys depend on it."""
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    info = b"urn:fltrust:enrollment:mac-key:v1\x00acme\x00abc"
    expected = HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(bytes(range(32)))
    assert MacKeys(bytes(range(32))).key_of(MacPurpose.ACME, "abc") == expected


@pytest.mark.parametrize("credential", ["", "a" * 65, "a b", "a\x00b", "ä", "a\n", "../x"])
def test_an_id_of_another_form_has_no_key(credential: str) -> None:
    with pytest.raises(Malformed):
        MacKeys(bytes(32)).key_of(MacPurpose.ACME, credential)


def test_no_secret_is_shown() -> None:
    keys = MacKeys(b"\xaa" * 32)
    credential = MacCredential("abc", b"\xbb" * 32, FakeClock().now())
    for text in (repr(keys), repr(credential)):
        assert "aaaa" not in text
        assert "\\xbb" not in text


def test_the_master_is_made_once_encrypted_and_private(tmp_path: Path) -> None:
    first = open_mac_keys(tmp_path, passphrase=b"one")
    path = tmp_path / MAC_KEYS_FILE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert b"ENCRYPTED" in path.read_bytes()
    again = open_mac_keys(tmp_path, passphrase=b"one")
    assert first.key_of(MacPurpose.CMP, "x") == again.key_of(MacPurpose.CMP, "x")
    with pytest.raises(FltrustError):
        open_mac_keys(tmp_path, passphrase=b"two")
    path.chmod(0o644)
    with pytest.raises(FltrustError):
        open_mac_keys(tmp_path, passphrase=b"one")
