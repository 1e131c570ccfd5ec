"""The command, run as people and scripts run it, against a real coordinator."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from examples.lab import Lab
from examples.lab.federation import BIN

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with Lab(tmp_path_factory.mktemp("lab")) as lab:
        lab.start_coordinator()
        yield lab


def test_a_site_joins_with_a_token_once(lab: Lab) -> None:
    token = lab.fltrust("token", "create", "site-once", "--ttl", "5m").stdout
    lab.fltrust("join", stdin=token)
    again = lab.fltrust("join", "--state", str(lab.folder / "elsewhere"), stdin=token, check=False)
    assert again.returncode == 3
    assert "token-used" in again.stderr
    assert not (lab.folder / "elsewhere").exists()
    assert token.strip() not in again.stderr
    listed = {t["name"]: t["status"] for t in lab.fltrust_json("token", "list")}
    assert listed["site-once"] == "used"


def test_the_state_of_a_site_is_private(lab: Lab) -> None:
    lab.join("site-private")
    state = lab.state("site-private")
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    for path in set(state.rglob("*")) - {state / "node.key.pub"}:
        assert path.stat().st_mode & 0o077 == 0, path


def test_a_credential_for_an_acme_client_is_shown_once(lab: Lab) -> None:
    made = lab.fltrust("acme", "credential", "web", "--dns", "web.example", "--dns", "www.example").stdout
    kid, key = (word.partition("=")[2] for word in made.split())
    assert (len(kid), len(key)) == (16, 43)
    (row,) = [t for t in lab.fltrust_json("token", "list") if t["id"] == kid]
    assert (row["role"], row["name"], row["status"]) == ("server", "web", "pending")
    assert key not in lab.fltrust("token", "list", "--json").stdout
    refused = lab.fltrust("acme", "credential", "web", "--dns", "*.example", check=False)
    assert refused.returncode != 0
    assert "dns-names" in refused.stderr


def test_a_cancelled_token_is_useless(lab: Lab) -> None:
    token = lab.fltrust("token", "create", "site-cancelled").stdout
    (row,) = [t for t in lab.fltrust_json("token", "list") if t["name"] == "site-cancelled"]
    lab.fltrust("token", "cancel", row["id"])
    refused = lab.fltrust("join", stdin=token, check=False)
    assert (refused.returncode, "token-cancelled" in refused.stderr) == (3, True)


def test_a_damaged_token_is_refused_without_being_repeated(lab: Lab) -> None:
    token = lab.fltrust("token", "create", "site-damaged").stdout.strip()
    damaged = token[:-3]
    refused = lab.fltrust("join", stdin=damaged, check=False)
    assert refused.returncode == 8
    assert damaged not in refused.stderr


def test_renew_gives_a_new_certificate_for_a_new_key_or_the_same(lab: Lab) -> None:
    lab.join("site-renewed")
    state = ("--state", str(lab.state("site-renewed")))
    first, *_ = lab.fltrust_json("status", *state)
    lab.fltrust("renew", *state)
    second, *_ = lab.fltrust_json("status", *state)
    lab.fltrust("renew", "--keep-key", *state)
    third, *_ = lab.fltrust_json("status", *state)
    assert len({row["serial"] for row in (first, second, third)}) == 3
    assert first["key"] != second["key"] == third["key"]


def test_status_shows_the_identities_of_this_machine(lab: Lab) -> None:
    lab.join("site-status")
    shown = {row["spiffe_id"]: row for row in lab.fltrust_json("status")}
    row = shown[f"spiffe://{lab.domain}/participant/site-status"]
    pem = (Path(row["state"]) / "identity.pem").read_bytes()
    command = "openssl x509 -noout -pubkey | openssl pkey -pubin -outform DER | sha256sum"
    told = subprocess.run(["sh", "-c", command], input=pem, capture_output=True, check=True)
    assert row["key"] == told.stdout.decode().split()[0]
    assert f"spiffe://{lab.domain}/operator/admin" in shown


def test_a_revocation_is_shown_to_all_and_idempotent(lab: Lab) -> None:
    lab.join("site-revoked")
    first = lab.fltrust_json("revoke", "site-revoked", "--reason", "key-compromise")
    again = lab.fltrust_json("revoke", "site-revoked", "--reason", "key-compromise")
    assert [e["epoch"] for e in first] == [e["epoch"] for e in again]
    shown = lab.fltrust_json("participants", "show", "site-revoked")[0]
    assert (shown["standing"], shown["since_epoch"]) == ("revoked", first[0]["epoch"])
    events = [json.loads(line) for line in lab.fltrust("events", "--json").stdout.splitlines()]
    assert [e["epoch"] for e in events] == list(range(1, len(events) + 1))
    assert events[first[0]["epoch"] - 1]["kind"] == "revoked"


def test_a_revoked_name_joins_again_only_with_a_replacing_token(lab: Lab) -> None:
    lab.join("site-back")
    lab.fltrust("revoke", "site-back")
    plain = lab.fltrust("token", "create", "site-back", check=False)
    joined = lab.fltrust("join", stdin=plain.stdout, check=False)
    assert plain.returncode != 0 or joined.returncode != 0
    lab.join("site-back", replace=True)
    assert lab.fltrust_json("participants", "show", "site-back")[0]["standing"] == "active"


def test_a_hold_ends_with_a_release(lab: Lab) -> None:
    lab.join("site-held")
    lab.fltrust("hold", "site-held")
    assert lab.fltrust_json("participants", "show", "site-held")[0]["standing"] == "held"
    lab.fltrust("release", "site-held")
    assert lab.fltrust_json("participants", "show", "site-held")[0]["standing"] == "active"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("participants", "show", "nobody"), 6),
        (("revoke", "nobody"), 6),
        (("revoke",), 8),
        (("revoke", "a", "--serial", "01"), 8),
        (("revoke", "--key", "zz"), 8),
        (("rounds", "show", "abc"), 8),
        (("rounds", "verify", "123"), 6),
        (("rounds", "verify", "123", "--record", "x"), 8),
        (("token", "create", "Bad Name"), 8),
        (("token", "create", "a", "--ttl", "soon"), 8),
        (("token", "cancel", "00"), 6),
        (("nonsense",), 2),
        (("revoke", "a", "--reason", "dislike"), 2),
    ],
)
def test_mistakes_have_documented_exit_codes(lab: Lab, arguments: tuple[str, ...], code: int) -> None:
    done = lab.fltrust(*arguments, check=False)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr


def test_a_participant_cannot_act_as_an_operator(lab: Lab) -> None:
    lab.join("site-climber")
    state = str(lab.state("site-climber"))
    for arguments in (("revoke", "site-climber"), ("token", "create", "x"), ("participants", "list")):
        refused = lab.fltrust(*arguments, "--state", state, check=False)
        assert (refused.returncode, "permission-denied" in refused.stderr) == (3, True), refused.stderr


def test_without_a_coordinator_the_exit_code_says_try_again(lab: Lab, tmp_path: Path) -> None:
    with Lab(tmp_path) as away:
        done = away.fltrust("participants", "list", check=False)
    assert done.returncode == 9
    assert "coordinator-unavailable" in done.stderr


def test_a_second_coordinator_on_the_same_database_is_refused(lab: Lab) -> None:
    second = lab.fltrust("coordinator", "operator", "second", check=False)
    assert second.returncode == 7
    assert "database-in-use" in second.stderr


def test_the_database_survives_a_coordinator_that_is_killed(lab: Lab) -> None:
    lab.join("site-survivor")
    epoch = lab.fltrust_json("revoke", "site-survivor")[0]["epoch"]
    assert lab.coordinator is not None
    lab.coordinator.kill()
    lab.start_coordinator()
    shown = lab.fltrust_json("participants", "show", "site-survivor")[0]
    assert (shown["standing"], shown["since_epoch"]) == ("revoked", epoch)


def test_no_secret_stands_in_a_log(lab: Lab) -> None:
    secrets = [(lab.folder / "passphrase").read_text().strip()]
    assert lab.coordinator is not None
    text = lab.coordinator.text()
    assert not any(secret in text for secret in secrets)
    assert "fltrust-join-v1." not in text
    assert "PRIVATE KEY" not in text
    assert os.path.getsize(lab.coordinator.log) < 1_000_000


def test_status_needs_no_passphrase_of_a_key_at_rest(lab: Lab) -> None:
    token = lab.fltrust("token", "create", "site-sealed").stdout
    lab.environment["FLTRUST_PASSPHRASE_FILE"] = lab.environment["FLTRUST_CA_PASSPHRASE_FILE"]
    try:
        lab.fltrust("join", stdin=token)
    finally:
        del lab.environment["FLTRUST_PASSPHRASE_FILE"]
    assert b"ENCRYPTED" in (lab.state("site-sealed") / "identity.pem").read_bytes()
    shown = {row["spiffe_id"] for row in lab.fltrust_json("status")}
    assert {f"spiffe://{lab.domain}/{who}" for who in ("participant/site-sealed", "operator/admin")} <= shown


def test_join_takes_a_pasted_line_and_does_not_wait_for_the_end_of_input(lab: Lab) -> None:
    token = lab.fltrust("token", "create", "site-pasted").stdout
    with subprocess.Popen(
        [BIN / "fltrust", "join"], stdin=subprocess.PIPE, text=True, env=lab.environment
    ) as join:
        assert join.stdin is not None
        try:
            join.stdin.write(token)
            join.stdin.flush()
            assert join.wait(60) == 0
        finally:
            join.kill()


def test_an_ended_ca_brings_everybody_over_and_the_operator_as_well(lab: Lab) -> None:
    ca = lab.root_at_hand()
    lab.join("site-orphan")
    state = ("--state", str(lab.state("site-orphan")))
    before = ca.issuing()
    answer = ca.answer_issuing()
    end = ("ca", "revoke-issuing", ca.present(), "--answer", str(answer), "--reason", "stolen")
    done = lab.fltrust_json(*end)
    assert (done["state"], done["result"]["issuer"], done["result"]["forged"]) == ("executed", before, 0)
    again = lab.fltrust(*end, check=False)
    assert again.returncode != 0
    lab.fltrust("renew", *state)  # with the certificate of the CA that ended
    assert lab.issuer("site-orphan") == lab.issuer("admin", "operator") == ca.issuing() != before
    kinds = [event["kind"] for event in map(json.loads, lab.fltrust("events", "--json").stdout.splitlines())]
    assert kinds[-2:] == ["issuer-revoked", "bundle-changed"]
