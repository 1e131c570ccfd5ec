"""`fltrust trust`, `audit` and `blast-radius`, run as people and scripts run them."""

from __future__ import annotations

import hashlib
import json
import stat
import subprocess
import threading
from base64 import b64decode
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from examples.lab import Lab
from fltrust.artifacts.ports import BlastRadius, SpoiltAggregate, SpoiltModel, SpoiltRound
from fltrust.cli import blast
from fltrust.identity import Digest, Role, RunId, SpiffeId
from fltrust.tlog.merkle import verify_inclusion
from fltrust.tlog.ports import TreeHead

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with Lab(tmp_path_factory.mktemp("lab")) as lab:
        lab.start_coordinator()
        token = lab.fltrust("token", "create", "release", "--role", "signer").stdout
        lab.fltrust("join", stdin=token)
        yield lab


def url(lab: Lab) -> str:
    return f"http://127.0.0.1:{lab.public_port}"


def root_of(lab: Lab) -> str:
    """The fingerprint that `coordinator init` printed, here from the root that openssl reads."""
    pem = lab.folder / "coordinator" / "ca" / "root.pem"
    command = ["openssl", "x509", "-in", str(pem), "-outform", "DER"]
    der = subprocess.run(command, check=True, capture_output=True).stdout
    return f"sha256:{hashlib.sha256(der).hexdigest()}"


def test_the_trust_file_comes_from_the_coordinator_or_pinned_from_its_public_address(
    lab: Lab, tmp_path: Path
) -> None:
    mine, public = tmp_path / "mine.json", tmp_path / "public.json"
    lab.fltrust("trust", "export", str(mine))
    root, pem = tmp_path / "trusted_root.json", tmp_path / "roots.pem"
    pinned = ("--url", url(lab), "--pin", root_of(lab))
    config = tmp_path / "config.json"
    also = ("--sigstore", str(root), "--pem", str(pem), "--trust-config", str(config))
    lab.fltrust("trust", "export", str(public), *pinned, *also)
    assert mine.read_bytes() == public.read_bytes()
    assert stat.S_IMODE(mine.stat().st_mode) == 0o644
    assert json.loads(root.read_bytes()) == json.loads(mine.read_bytes())["trustedRoot"]
    assert json.loads(config.read_bytes())["trustedRoot"] == json.loads(root.read_bytes())
    shown = subprocess.run(["openssl", "x509", "-in", str(pem), "-noout", "-subject"], capture_output=True)
    assert b"fltrust root CA" in shown.stdout


def test_a_public_trust_file_under_another_root_is_not_written(lab: Lab, tmp_path: Path) -> None:
    out = tmp_path / "trust.json"
    pinned = ("--url", url(lab), "--pin", "sha256:" + "0" * 64)
    done = lab.fltrust("trust", "export", str(out), *pinned, check=False)
    assert (done.returncode, out.exists()) == (11, False)
    unpinned = lab.fltrust("trust", "export", str(out), "--url", url(lab), check=False)
    assert (unpinned.returncode, out.exists()) == (8, False)
    closed = ("--url", "http://127.0.0.1:1", "--pin", root_of(lab))
    assert lab.fltrust("trust", "export", str(out), *closed, check=False).returncode == 9


def test_a_trust_file_is_not_replaced_by_an_older_one(lab: Lab, tmp_path: Path) -> None:
    """Whoever sits in between can keep an old file and hand it out, for an hour at least."""
    (tmp_path / "kept").mkdir()
    old, mine = tmp_path / "kept" / "trust.json", tmp_path / "mine.json"
    lab.fltrust("trust", "export", str(old))
    lab.fltrust("join", stdin=lab.fltrust("token", "create", "gone", "--role", "signer").stdout)
    lab.fltrust("revoke", "signer/gone", "--reason", "key-compromise")
    lab.fltrust("trust", "export", str(mine))
    newer = mine.read_bytes()
    assert newer != old.read_bytes()
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "kept"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as between:
        threading.Thread(target=between.serve_forever, daemon=True).start()
        pinned = ("--url", f"http://127.0.0.1:{between.server_port}", "--pin", root_of(lab))
        done = lab.fltrust("trust", "export", str(mine), *pinned, check=False)
        assert done.returncode == 15, done.stderr
        assert mine.read_bytes() == newer
        lab.fltrust("trust", "export", str(tmp_path / "first.json"), *pinned)
        between.shutdown()
    lab.fltrust("trust", "export", str(mine))


def test_a_trust_file_is_shown_and_one_that_was_altered_is_refused(lab: Lab, tmp_path: Path) -> None:
    file = tmp_path / "trust.json"
    lab.fltrust("trust", "export", str(file))
    shown = lab.fltrust_json("trust", "show", str(file))
    assert {row["what"] for row in shown["trusts"]} == {
        "certificate authority",
        "timestamp authority",
        "certificate log",
        "log",
    }
    assert shown["status"]["epoch"] >= 2
    assert "certificate authority" in lab.fltrust("trust", "show", str(file)).stdout
    value = json.loads(file.read_bytes())
    value["status"]["dsseEnvelope"]["signatures"][0]["sig"] = value["status"]["dsseEnvelope"]["payload"][:96]
    file.write_text(json.dumps(value, separators=(",", ":"), sort_keys=True))
    assert lab.fltrust("trust", "show", str(file), check=False).returncode in (5, 8)


def test_an_audit_is_json_lines_that_anybody_can_check(lab: Lab) -> None:
    lines = [json.loads(line) for line in lab.fltrust("audit", "--json").stdout.splitlines()]
    assert [line["index"] for line in lines] == list(range(len(lines)))
    assert lines[0]["kind"] == "log-opened"
    for line in lines:
        _, size, root = line["checkpoint"].split("\n")[:3]
        head = TreeHead(int(size), b64decode(root))
        proof = [b64decode(item) for item in line["proof"]]
        verify_inclusion(proof, leaf=bytes.fromhex(line["leaf"]), index=line["index"], head=head)


def test_an_audit_is_cut_to_a_name_and_a_time_and_read_by_people(lab: Lab) -> None:
    lines = [
        json.loads(line)
        for line in lab.fltrust("audit", "--participant", "signer/release", "--json").stdout.splitlines()
    ]
    who = f"spiffe://{lab.domain}/signer/release"
    assert {line["kind"] for line in lines} >= {"certificate", "trust-event"}
    assert {line["subject"] for line in lines if line["kind"] == "trust-event"} == {who}
    shown = lab.fltrust("audit", "--since", "1h").stdout
    assert "signer/release  by operator/admin  (event: enrolled" in shown
    assert "No such entry" in lab.fltrust("audit", "--until", "2020-01-01").stderr
    assert "No such entry" in lab.fltrust("audit", "--run", "4711").stderr


def test_an_audit_holds_the_log_against_the_auditors_own_trust_file(lab: Lab, tmp_path: Path) -> None:
    file = tmp_path / "trust.json"
    lab.fltrust("trust", "export", str(file))
    lab.fltrust("audit", "--trust", str(file))
    with Lab(tmp_path / "other") as other:
        other.start_coordinator()
        other.fltrust("trust", "export", str(file))
    assert lab.fltrust("audit", "--trust", str(file), check=False).returncode == 5


def test_a_revocation_with_a_time_says_what_it_tainted(lab: Lab) -> None:
    lab.join("site-spoilt")
    (row,) = lab.fltrust_json("revoke", "site-spoilt", "--compromised-since", "1h")
    assert row["tainted"]["aggregates"] == row["tainted"]["models"] == []
    found = lab.fltrust_json("blast-radius", "site-spoilt", "--since", "1h")
    assert found["participant"] == f"spiffe://{lab.domain}/participant/site-spoilt"
    said = lab.fltrust("blast-radius", "site-spoilt", "--since", "1h").stderr
    assert "Nothing holds updates of participant/site-spoilt" in said
    taints = [json.loads(line) for line in lab.fltrust("audit", "--json").stdout.splitlines()]
    assert [line["kind"] for line in taints].count("taint") == 1


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("blast-radius", "nobody", "--since", "1h"), 6),
        (("blast-radius", "site-a"), 2),
        (("blast-radius", "site-a", "--since", "soon"), 8),
        (("audit", "--participant", "Bad Name"), 8),
        (("audit", "--run", "x"), 8),
        (("trust", "show", "no-such-file"), 8),
        (("trust", "export", "x.json", "--pin", "sha256:00"), 8),
    ],
)
def test_mistakes_have_documented_exit_codes(lab: Lab, arguments: tuple[str, ...], code: int) -> None:
    done = lab.fltrust(*arguments, check=False)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr


def test_a_signer_asks_no_blast_radius_and_audits_nothing(lab: Lab) -> None:
    state = str(lab.folder / "home" / lab.domain / "signer-release")
    for arguments in (("audit",), ("blast-radius", "site-a", "--since", "1h")):
        refused = lab.fltrust(*arguments, "--state", state, check=False)
        assert refused.returncode == 3, refused.stderr
    lab.fltrust("trust", "export", str(lab.folder / "signers.json"), "--state", state)


def test_a_blast_radius_is_told_in_tables(capsys: pytest.CaptureFixture[str]) -> None:
    at, run, sha = datetime(2026, 3, 1, tzinfo=UTC), RunId(2**64 - 1), Digest.sha256_of(b"x")
    found = BlastRadius(
        SpiffeId.of("h.example", Role.PARTICIPANT, "bad"),
        at,
        (SpoiltRound(run, 1, 1, 7, at),),
        (SpoiltAggregate(run, 1, 1, sha, 8, True), SpoiltAggregate(run, 2, 2, sha, 9, False)),
        (SpoiltModel("m.safetensors", sha, 10, False),),
    )
    blast.tell(found)
    said = capsys.readouterr()
    assert "1 round:" in said.err
    assert "2 aggregates:" in said.err
    assert "itself" in said.out
    assert "by descent" in said.out
    assert "m.safetensors" in said.out
    fields = json.loads(json.dumps(blast.fields_of(found), default=str))
    assert fields["aggregates"][0]["run_id"] == str(2**64 - 1)
