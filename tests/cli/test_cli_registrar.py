"""`fltrust requests`, `ask`, `collect`, `operations`, `bulk` and `participants`, with two operators."""

from __future__ import annotations

import json
import os
from base64 import b64decode, b64encode
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from unittest.mock import patch

import pytest

from examples.lab import Lab
from fltrust import strictjson
from fltrust.cli.main import run
from fltrust.enrollment.invitation import decode_invitation

pytestmark = pytest.mark.slow


class Desk:
    """A coordinator in a process of its own, and commands in this one."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        home = lab.folder / "home" / lab.domain
        self.ann, self.bob = str(home / "operator-admin"), str(home / "operator-bob")

    def __call__(self, *arguments: str, code: int = 0, home: str = "home") -> str:
        """Run a command; what it printed. Standard error is in `said`."""
        out, err = StringIO(), StringIO()
        environment = {**self.lab.environment, "FLTRUST_HOME": str(self.lab.folder / home)}
        with patch.dict(os.environ, environment, clear=True), redirect_stdout(out), redirect_stderr(err):
            found = run(list(arguments))
        self.said = err.getvalue()
        assert found == code, (arguments, out.getvalue(), self.said)
        return out.getvalue()

    def json(self, *arguments: str, home: str = "home") -> object:
        return json.loads(self(*arguments, "--json", home=home))


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with Lab(tmp_path_factory.mktemp("lab")) as lab:
        settings = lab.folder / "coordinator" / "coordinator.toml"
        text = settings.read_text()
        assert "[approvals]" not in text
        settings.write_text(text + "\n[approvals]\noperations = 1\nmanual-requests = true\n")
        desk = Desk(lab)
        desk("coordinator", "operator", "bob")
        lab.start_coordinator()
        yield desk


def test_a_site_asks_an_operator_names_it_and_it_collects(desk: Desk) -> None:
    invitation = desk("requests", "invite", "--state", desk.ann).strip()
    assert decode_invitation(invitation).as_token().secret == b""
    asked = desk.json("ask", invitation, "--note", "clinic A", home="site")
    assert isinstance(asked, dict)
    desk("collect", home="site", code=9)
    (found,) = json.loads(desk("requests", "list", "--state", desk.ann, "--json"))
    assert (found["id"], found["key"]) == (asked["request"], asked["key"])
    assert found["claims"] == {"note": "clinic A"}
    desk("requests", "show", found["id"], "--state", desk.ann)
    desk("requests", "approve", found["id"], "--name", "site-a", "--reason", "known", "--state", desk.ann)
    desk("collect", home="site")
    assert "participant/site-a" in desk("status", home="site")
    assert not list((desk.lab.folder / "site").glob("pending-*"))


def test_a_denied_request_tells_the_site_why_and_its_keys_are_removed(desk: Desk) -> None:
    invitation = desk("requests", "invite", "--state", desk.ann).strip()
    asked = desk.json("ask", invitation, home="stranger")
    assert isinstance(asked, dict)
    desk("requests", "deny", asked["request"], "--reason", "nobody knows you", "--state", desk.bob)
    desk("collect", home="stranger", code=3)
    assert "nobody knows you" in desk.said
    assert not list((desk.lab.folder / "stranger").glob("pending-*"))


def test_a_second_operator_joins_by_the_first_one_s_token_and_the_other_s_approval(desk: Desk) -> None:
    token = desk("token", "create", "carol", "--role", "operator", "--state", desk.ann).strip()
    desk("join", token, home="carol", code=9)
    assert "fltrust collect" in desk.said
    (found,) = json.loads(desk("requests", "list", "--state", desk.ann, "--json"))
    desk("requests", "approve", found["id"], "--reason", "mine", "--state", desk.ann, code=3)
    assert "four-eyes" in desk.said
    desk("requests", "approve", found["id"], "--reason", "met her", "--state", desk.bob)
    desk("collect", home="carol")
    assert "operator/carol" in desk("status", home="carol")


def test_a_hold_ends_when_the_second_operator_signs_and_the_file_verifies_anywhere(
    desk: Desk, tmp_path: Path
) -> None:
    desk("hold", "operator/carol", "--state", desk.ann)
    desk("release", "operator/carol", "--state", desk.ann, code=3)
    assert "quorum-required" in desk.said
    told = json.loads(
        desk("operations", "release-hold", "operator/carol", "--reason", "found her badge", "--state",
             desk.ann, "--json")
    )  # fmt: skip
    operation = told["operation"]
    assert told["state"] == "proposed"
    desk("operations", "approve", operation, "--reason", "me", "--yes", "--state", desk.ann, code=3)
    desk("operations", "approve", operation, "--reason", "saw it", "--yes", "--state", desk.bob)
    shown = json.loads(desk("operations", "show", operation, "--state", desk.ann, "--json"))
    assert [d["verdict"] for d in shown["decisions"]] == ["propose", "approve"]
    exported, root = tmp_path / "operation.json", desk.lab.folder / "coordinator" / "ca" / "root.pem"
    desk("operations", "export", operation, str(exported), "--state", desk.bob)
    found = json.loads(desk("operations", "verify", str(exported), "--roots", str(root), "--json"))
    assert [d["operator"].rpartition("/")[2] for d in found["decisions"]] == ["admin", "bob"]
    file = json.loads(exported.read_text())
    words = b64decode(file["operation"]).replace(b"her badge", b"his badge")
    exported.write_bytes(strictjson.encode({**file, "operation": b64encode(words).decode()}))
    desk("operations", "verify", str(exported), "--roots", str(root), code=5)
    (row,) = json.loads(desk("participants", "list", "--prefix", "carol", "--state", desk.ann, "--json"))
    assert row["standing"] == "active"


def test_sites_without_a_network_are_enrolled_and_renewed_by_a_file_and_resumed(
    desk: Desk, tmp_path: Path
) -> None:
    lines = [
        desk("bulk", "request", f"far-{n}", "--folder", str(tmp_path / f"far-{n}"), home=f"far-{n}")
        for n in range(3)
    ]
    source, results = tmp_path / "far.jsonl", tmp_path / "results.jsonl"
    source.write_text("".join(lines[:2]))
    arguments = ("bulk", "enroll", str(source), "--results", str(results), "--state", desk.ann)
    assert json.loads(desk(*arguments, "--json")) == {"issued": 2, "waiting": 0, "refused": 0, "before": 0}
    results.write_bytes(results.read_bytes() + b'{"name": "participant/far-2", "cer')  # it was cut off here
    source.write_text("".join(lines))
    results.write_bytes(results.read_bytes() + b"\n")
    assert json.loads(desk(*arguments, "--json")) == {"issued": 1, "waiting": 0, "refused": 0, "before": 2}
    invitation = desk("requests", "invite", "--state", desk.ann).strip()
    at_site = (str(tmp_path / "far-0"), str(results))
    desk("bulk", "install", *at_site, "--invitation", invitation, home="far-0")
    renewal = desk("bulk", "renewal", "--folder", str(tmp_path / "next"), home="far-0")
    carried, answers = tmp_path / "renew.jsonl", tmp_path / "renewed.jsonl"
    carried.write_text(renewal)
    desk("bulk", "renew", str(carried), "--results", str(answers), "--state", desk.bob)
    desk("bulk", "install", str(tmp_path / "next"), str(answers), home="far-0")
    (row,) = json.loads(desk("participants", "list", "--prefix", "far-0", "--state", desk.ann, "--json"))
    assert (row["evidence"], row["live_certificates"]) == ("bulk", 2)


def test_a_csv_makes_tokens_and_revokes_and_says_which_line_is_wrong(desk: Desk, tmp_path: Path) -> None:
    source, target = tmp_path / "names.csv", tmp_path / "tokens.jsonl"
    source.write_text("role,name,dns_names\nserver,www-1,a.example.org b.example.org\nparticipant,new-1,\n")
    desk("bulk", "tokens", str(source), "--to", str(target), "--state", desk.ann)
    assert target.stat().st_mode & 0o777 == 0o600
    assert [json.loads(line)["name"] for line in target.read_text().splitlines()] == [
        "server/www-1",
        "participant/new-1",
    ]
    source.write_text("name\nfar-1\nfar-2\n")
    told = json.loads(
        desk("bulk", "revoke", str(source), "--reason", "closed", "--state", desk.ann, "--json")
    )
    desk("operations", "approve", told["operation"], "--reason", "yes", "--yes", "--state", desk.bob)
    rows = json.loads(desk("participants", "list", "--standing", "revoked", "--state", desk.ann, "--json"))
    assert {row["spiffe_id"].rpartition("/")[2] for row in rows} == {"far-1", "far-2"}
    for text, wanted in (
        ("name,wizardry\nx,y\n", "wizardry"),
        ("name\na,b\n", "line 2"),
        ("role,name\nking,x\n", "line 2"),
        ("name\nUPPER\n", "line 2"),
        ("name,name\na,b\n", "line 1"),
        ("", "lines"),
    ):
        source.write_text(text)
        desk("bulk", "revoke", str(source), "--reason", "closed", "--state", desk.ann, code=8)
        assert wanted in desk.said
