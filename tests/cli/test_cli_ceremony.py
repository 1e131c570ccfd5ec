"""A root that was never online, by the commands as a security officer types them."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from fltrust.cli.main import run
from fltrust.clock import SystemClock
from fltrust.pki import load_bundle, load_issuer, load_issuing_history
from fltrust.pki.root_revocation import load_root_crls

DOMAIN = "hospitals.example"


@dataclass
class Site:
    """A room, three holders and a coordinator's folder, on one disk."""

    home: Path

    def secret(self, text: str) -> str:
        path = self.home / f"{text}.secret"
        path.touch(mode=0o600)
        path.write_text(text)
        return str(path)

    def at(self, name: str) -> str:
        return str(self.home / name)

    def holders(self, *names: str) -> list[str]:
        words = [word for name in names for word in ("--holder", self.at(name))]
        return [*words, *(w for name in names for w in ("--passphrase-file", self.secret(name))), "--yes"]

    def cards(self, *names: str) -> list[str]:
        return [word for name in names for word in ("--card", self.at(f"{name}/card.json"))]

    def ok(self, *words: str) -> None:
        assert run(["ca", *words]) == 0, words

    def ceremony(self, request: str, answer: str, *names: str) -> int:
        room = (self.at("room"), self.at(request))
        return run(["ca", "ceremony", "sign", *room, "--answer", self.at(answer), *self.holders(*names)])

    @property
    def folder(self) -> Path:
        return self.home / "coordinator"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    made = Site(tmp_path)
    monkeypatch.setenv("FLTRUST_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FLTRUST_COORDINATOR", str(made.folder))
    monkeypatch.setenv("FLTRUST_CA_PASSPHRASE_FILE", made.secret("issuing"))
    for name in ("alice", "bob", "carol"):
        made.ok("ceremony", "holder", made.at(name), "--name", name, "--passphrase-file", made.secret(name))
    where = (made.at("room"), "--trust-domain", DOMAIN, "--threshold", "2")
    made.ok("ceremony", "init", *where, *made.cards("alice", "bob", "carol"), *made.holders("alice", "bob"))
    return made


def shown(site: Site, capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    capsys.readouterr()
    site.ok("ceremony", "show", site.at("room"))
    found = json.loads(capsys.readouterr().out)
    assert isinstance(found, dict)
    return found


def enroll(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """From nothing to a coordinator whose root's key it never had."""
    site.ok("request", "new", site.at("r1"), "--trust-domain", DOMAIN)
    assert site.ceremony("r1", "a1", "alice", "bob") == 0
    root, fingerprint = site.at("room/root.pem"), str(shown(site, capsys)["root"])
    wrong = "sha256:" + "0" * 64
    assert run(["ca", "accept", site.at("a1"), "--root", root, "--fingerprint", wrong]) != 0
    site.ok("accept", site.at("a1"), "--root", root, "--fingerprint", fingerprint)
    assert run(["coordinator", "init", "--trust-domain", DOMAIN, "--existing-ca"]) == 0


def test_a_federation_starts_under_a_root_that_was_never_online(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    enroll(site, capsys)
    assert not list(site.folder.rglob("root*.key"))
    assert len(load_root_crls(site.folder / "ca")) == 1
    (operator,) = (site.home / "home").rglob("agent.json")
    assert operator.exists()


def test_the_issuing_ca_the_root_and_its_crl_are_replaced_through_files(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    enroll(site, capsys)
    ca = site.folder / "ca"
    first = load_issuing_history(ca)[-1]
    (site.home / "old.pem").write_bytes((ca / "issuing.pem").read_bytes())
    site.ok("request", "root", site.at("r2"))
    assert site.ceremony("r2", "a2", "bob", "carol") == 0
    site.ok("accept", site.at("a2"))
    assert (len(load_bundle(ca).roots), load_bundle(ca).sequence) == (2, 2)
    site.ok("request", "issuing", site.at("r3"))
    assert site.ceremony("r3", "a3", "alice", "carol") == 0
    assert run(["ca", "switch"]) != 0
    site.ok("accept", site.at("a3"))
    site.ok("switch")
    issuer = load_issuer(ca, passphrase=b"issuing", clock=SystemClock())
    assert issuer.certificate != first
    assert issuer.public_url is None
    old_root = subprocess.run(
        ["openssl", "x509", "-in", str(ca / "root.pem"), "-outform", "DER"], capture_output=True, check=True
    ).stdout
    from fltrust.identity import Digest

    site.ok("drop-root", str(Digest.sha256_of(old_root)))
    assert load_bundle(ca).sequence == 3
    capsys.readouterr()
    site.ok("ceremony", "verify", site.at("room"), "--json")
    acts = [row["act"] for row in json.loads(capsys.readouterr().out)]
    assert acts == ["init", "issuing-ca", "root-rollover", "issuing-ca"]


def test_a_ca_is_revoked_on_the_roots_crl_and_openssl_agrees(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    enroll(site, capsys)
    ca = site.folder / "ca"
    site.ok("request", "crl", site.at("r2"), "--revoke", str(ca / "issuing.pem"))
    assert site.ceremony("r2", "a2", "alice", "bob") == 0
    site.ok("accept", site.at("a2"))
    (crl,) = ca.glob("root-*.crl")
    pem = site.home / "crl.pem"
    convert = ["openssl", "crl", "-inform", "DER", "-in", str(crl), "-out", str(pem)]
    subprocess.run(convert, check=True, capture_output=True)
    verify = ["openssl", "verify", "-x509_strict", "-CAfile", str(ca / "root.pem")]
    plain = [*verify, str(ca / "issuing.pem")]
    assert subprocess.run(plain, capture_output=True, check=False).returncode == 0
    checked = [*verify, "-crl_check", "-CRLfile", str(pem), str(ca / "issuing.pem")]
    refused = subprocess.run(checked, capture_output=True, text=True, check=False)
    assert refused.returncode != 0
    assert "certificate revoked" in refused.stderr


def test_one_holder_alone_gets_no_answer(site: Site) -> None:
    site.ok("request", "new", site.at("r1"), "--trust-domain", DOMAIN)
    assert site.ceremony("r1", "a1", "alice") != 0
    assert not (site.home / "a1").exists()


def test_a_ceremony_is_not_held_without_consent(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.ok("request", "new", site.at("r1"), "--trust-domain", DOMAIN)
    words = [word for word in site.holders("alice", "bob") if word != "--yes"]
    monkeypatch.setattr("sys.stdin", None)
    where = (site.at("room"), site.at("r1"), "--answer", site.at("a1"))
    assert run(["ca", "ceremony", "sign", *where, *words]) != 0
    assert not (site.home / "a1").exists()


def test_holders_change_and_a_transcript_that_was_taken_away_shows(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    new = site.cards("bob", "carol")
    where = (site.at("room"), "--threshold", "2")
    site.ok("ceremony", "holders", *where, *new, *site.holders("alice", "carol"))
    assert shown(site, capsys)["holders"] == ["bob", "carol"]
    site.ok("ceremony", "verify", site.at("room"))
    first = site.home / "room" / "transcripts" / "0001.json"
    assert run(["ca", "ceremony", "verify", str(first), "--last", "sha256:" + "0" * 64]) != 0
    shutil.move(first, site.home / "gone.json")
    assert run(["ca", "ceremony", "verify", site.at("room")]) != 0


def test_an_answer_of_another_domain_is_not_accepted(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    enroll(site, capsys)
    fields = json.loads((site.home / "a1").read_bytes())
    from fltrust import strictjson

    (site.home / "a2").write_bytes(strictjson.encode({**fields, "domain": "b.example"}))
    assert run(["ca", "accept", site.at("a2")]) != 0
    (site.home / "a3").write_bytes(strictjson.encode({**fields, "act": "root-crl"}))
    assert run(["ca", "accept", site.at("a3")]) != 0
