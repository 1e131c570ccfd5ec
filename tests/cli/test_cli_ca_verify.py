"""`fltrust ca verify`, `ca offline` and `ca anchors`, run as people run them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from path_world import DAY, NOW, Domain, make_domain

from fltrust.clock import to_rfc3339
from fltrust.identity import KeyId
from fltrust.keys import generate
from fltrust.keys.file import save
from fltrust.pki import bundle_from_json, bundle_to_json, chain_to_pem, create_root, make_bundle
from fltrust.pki.crl import crl_to_pem
from fltrust.pki.path.pinning import PinSet

AT = to_rfc3339(NOW)
Run = Callable[..., int]


@pytest.fixture(scope="module")
def domain() -> Domain:
    return make_domain()


@pytest.fixture
def fltrust(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    from fltrust.cli.main import run

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("fltrust.clock.SystemClock.now", lambda _: NOW)
    return lambda *arguments: run([str(argument) for argument in arguments])


@pytest.fixture
def files(domain: Domain, tmp_path: Path) -> dict[str, Path]:
    leaf = domain.issue()
    found = {
        "leaf": chain_to_pem([leaf, domain.issuing]),
        "alone": leaf.public_bytes(Encoding.DER),
        "root": chain_to_pem([domain.root]),
        "issuing": chain_to_pem([domain.issuing]),
        "crl": crl_to_pem(domain.crl(leaves=True)) + crl_to_pem(domain.crl()),
        "root-crl": domain.crl(),
        "revoking": domain.crl(leaf, leaves=True, number=12),
        "answer": domain.answer(leaf),
    }
    for name, data in found.items():
        (tmp_path / name).write_bytes(data)
    return {name: tmp_path / name for name in found}


def test_a_process_of_its_own_verifies_and_says_what_it_went_by(files: dict[str, Path]) -> None:
    command = [Path(sys.executable).with_name("fltrust"), "ca", "verify", files["leaf"]]
    options = ["--roots", files["root"], "--crl", files["crl"], "--at", AT, "--json"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert [row["evidence"] for row in told["path"]] == ["crl", "crl", None]
    assert told["path"][0]["subject"] == "spiffe://hospitals.example/participant/site-a"
    assert (told["valid"], told["second_opinion"], told["warnings"]) == (True, True, [])


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--crl", "crl"], 0),
        (["--ocsp", "answer", "--crl", "root-crl"], 0),
        ([], 3),
        (["--mode", "best-effort"], 0),
        (["--crl", "revoking", "--mode", "best-effort"], 4),
        (["--crl", "crl", "--purpose", "client"], 0),
        (["--crl", "crl", "--purpose", "server"], 3),
        (["--crl", "crl", "--name", "spiffe://hospitals.example/participant/site-a"], 0),
        (["--crl", "crl", "--name", "spiffe://hospitals.example/participant/site-b"], 3),
        (["--crl", "crl", "--name", "*.example"], 8),
        (["--crl", "crl", "--policy", "1.2.3"], 3),
        (["--crl", "crl", "--policy", "one"], 8),
        (["--crl", "root"], 8),
        (["--crl", "crl", "--mode", "anyhow"], 8),
    ],
)
def test_the_exit_code_tells_the_outcome(
    files: dict[str, Path], fltrust: Run, options: list[str], code: int
) -> None:
    assert fltrust("ca", "verify", files["leaf"], "--roots", files["root"], "--at", AT, *options) == code


def test_without_anchors_nothing_is_verified(files: dict[str, Path], fltrust: Run) -> None:
    assert fltrust("ca", "verify", files["leaf"], "--at", AT, "--crl", files["crl"]) == 8


def test_a_private_key_among_certificates_is_told_and_not_read(
    files: dict[str, Path], fltrust: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    save(generate(), files["root"].with_name("key.pem"), passphrase=b"secret")
    assert fltrust("ca", "verify", files["leaf"], "--roots", "key.pem", "--at", AT) == 8
    assert "PRIVATE KEY" in capsys.readouterr().err


def test_pins_are_held_against_the_path(files: dict[str, Path], fltrust: Run, domain: Domain) -> None:
    asked = [
        "ca",
        "verify",
        files["leaf"],
        "--roots",
        files["root"],
        "--at",
        AT,
        "--crl",
        files["crl"],
        "--pins",
    ]
    key = domain.issuing_signer.key_id
    for pinned, code in ((key, 0), (KeyId("cd" * 32), 3)):
        pins = PinSet(pins=frozenset({pinned}), backups=frozenset({KeyId("ab" * 32)}), expires=NOW + DAY)
        Path("pins.json").write_bytes(pins.to_json())
        assert fltrust(*asked, "pins.json") == code


def test_an_offline_site_takes_bundles_in_and_verifies_by_what_it_holds(
    files: dict[str, Path], fltrust: Run, domain: Domain, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("trust.json").write_bytes(bundle_to_json(make_bundle(domain.name, [domain.root])))
    pack = ["ca", "offline", "pack", "--trust-domain", domain.name, "--certificate", files["issuing"]]
    assert fltrust(*pack, "--crl", files["crl"], "first.json") == 0
    assert fltrust(*pack, "--crl", files["revoking"], "second.json") == 0
    verify = ["ca", "verify", files["alone"], "--view", "view.json", "--at", AT]
    assert fltrust("ca", "offline", "take", "view.json", "first.json", "--trust", "trust.json") == 0
    assert fltrust(*verify) == 0
    assert fltrust("ca", "offline", "take", "view.json", "second.json") == 0
    assert fltrust("ca", "offline", "take", "view.json", "first.json") == 0
    assert fltrust(*verify) == 4
    assert fltrust("ca", "offline", "take", "view.json", "first.json", "--trust", "trust.json") == 7
    capsys.readouterr()
    assert fltrust("ca", "offline", "status", "view.json", "--json") == 0
    assert json.loads(capsys.readouterr().out)["crls"] == 2


def test_anchors_are_replaced_by_what_old_and_new_signed(
    fltrust: Run, domain: Domain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signer = generate()
    root = create_root(domain.name, signer=signer, now=NOW)
    old, new = make_bundle(domain.name, [domain.root]), make_bundle(domain.name, [root], sequence=2)
    Path("old.json").write_bytes(bundle_to_json(old))
    Path("new.json").write_bytes(bundle_to_json(new))
    save(domain.signer, tmp_path / "old.key", passphrase=b"secret")
    save(signer, tmp_path / "new.key", passphrase=b"secret")
    (tmp_path / "word").write_bytes(b"secret")
    (tmp_path / "word").chmod(0o600)
    monkeypatch.setenv("FLTRUST_ROOT_PASSPHRASE_FILE", str(tmp_path / "word"))
    sign: list[Any] = [
        "ca",
        "anchors",
        "sign",
        "update.json",
        "--old",
        "old.json",
        "--new",
        "new.json",
        "--key",
    ]
    assert fltrust(*sign, "new.key") == 0
    assert fltrust("ca", "anchors", "apply", "old.json", "update.json", "--out", "after.json") == 3
    assert fltrust(*sign, "old.key") == 0
    assert fltrust("ca", "anchors", "apply", "old.json", "update.json", "--out", "after.json") == 0
    assert bundle_from_json(Path("after.json").read_bytes()) == new
    swapped = [*sign[:4], "--old", "old.json", "--new", "old.json", "--key", "old.key"]
    assert fltrust(*swapped) == 7


def test_a_partner_is_certified_for_its_names_and_its_certificates_verify_under_our_root(
    fltrust: Run, domain: Domain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    partner, hub = make_domain("clinics.example"), make_domain("bridge.example")
    for name, certificate in (("root", domain.root), ("partner", partner.root), ("hub", hub.root)):
        (tmp_path / name).write_bytes(chain_to_pem([certificate]))
    (tmp_path / "leaf").write_bytes(chain_to_pem([partner.issue(), partner.issuing]))
    for name, signer in (("root.key", domain.signer), ("hub.key", hub.signer)):
        save(signer, tmp_path / name, passphrase=b"secret")
    (tmp_path / "word").write_bytes(b"secret")
    (tmp_path / "word").chmod(0o600)
    monkeypatch.setenv("FLTRUST_ROOT_PASSPHRASE_FILE", str(tmp_path / "word"))
    ours: list[Any] = ["--root", "root", "--key", "root.key"]
    verify = ["ca", "verify", "leaf", "--roots", "root", "--mode", "best-effort", "--untrusted"]
    assert fltrust(*verify, "partner") == 3
    assert fltrust("ca", "cross", "domain", "partner", *ours, "--out", "direct", "--parameters", "say") == 0
    assert json.loads(Path("say").read_bytes())["domains"] == ["clinics.example"]
    assert fltrust(*verify, "direct") == 0
    bridge = ["ca", "cross", "bridge", "hub", *ours, "--out", "up", "--member"]
    assert fltrust(*bridge, "clinics.example", "--lifetime", "30d") == 0
    down = ["--root", "hub", "--key", "hub.key", "--out", "down"]
    assert fltrust("ca", "cross", "domain", "partner", *down) == 0
    assert fltrust(*verify, "up", "--untrusted", "down") == 0
    assert fltrust(*bridge, "labs.example") == 0
    assert fltrust(*verify, "up", "--untrusted", "down") == 3
    assert fltrust(*bridge, "hospitals.example") == 3


def test_a_hostile_subject_reaches_the_terminal_as_text(
    fltrust: Run, domain: Domain, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from cryptography.hazmat.primitives.hashes import SHA256

    from fltrust.pki.ca_certificates import authority_key
    from fltrust.pki.signing import SignerKey

    leaf = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a\x1b[2Jb")]))
        .issuer_name(domain.issuing.subject)
        .public_key(generate().public_key)
        .serial_number(7)
        .not_valid_before(NOW)
        .not_valid_after(NOW + DAY)
        .add_extension(authority_key(domain.issuing), critical=False)
        .sign(SignerKey(domain.issuing_signer), SHA256())
    )
    (tmp_path / "leaf").write_bytes(chain_to_pem([leaf, domain.issuing]))
    (tmp_path / "root").write_bytes(chain_to_pem([domain.root]))
    assert fltrust("ca", "verify", "leaf", "--roots", "root", "--at", AT, "--mode", "best-effort") == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\\x1b" in out
