"""The monitor: what it remembers, and what it cries out about."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from log_certificates import Ca, leaf, precertificate, spki
from log_http import from_fetch, serving
from log_world import AT, LogWorld, enrolled, sealed_round

from fltrust.errors import FltrustError, Malformed, SignatureInvalid, Unavailable
from fltrust.identity import Digest, KeyId
from fltrust.tlog.entries import ParticipantCertificate, PublicName, new_entry
from fltrust.tlog.expectations import Expectations, load_expectations
from fltrust.tlog.fetching import HttpLog
from fltrust.tlog.monitor import (
    MAX_ALERTS,
    Alert,
    AlertKind,
    MonitorState,
    Step,
    advance,
    load_state,
    save_state,
)
from fltrust.tlog.ports import NewEntry
from fltrust.tlog.watching import look, write_metrics

CA, OTHER_CA = Ca(), Ca("other")
SITE = "spiffe://hospitals.example/participant/site-a"
NOTHING = Expectations()
KEY = ec.generate_private_key(ec.SECP256R1())


def see(world: LogWorld, state: MonitorState | None = None, expectations: Expectations = NOTHING) -> Step:
    return look(world.fetch, world.policy, state or MonitorState(world.key.name), expectations, at=AT)


def expect(tmp_path: Path, text: str) -> Expectations:
    (tmp_path / "issuing.pem").write_bytes(CA.pem)
    (tmp_path / "expect.toml").write_text(text)
    return load_expectations(tmp_path / "expect.toml")


def kinds(alerts: Sequence[Alert]) -> list[str]:
    return [str(alert.kind) for alert in alerts]


def test_a_log_that_only_grows_gives_no_alerts_and_is_read_once() -> None:
    world = LogWorld()
    world.grow(300)
    first = see(world)
    assert (first.alerts, first.state.size, first.state.epoch) == ((), 301, 150)
    world.grow(400)
    asked: list[str] = []

    def fetch(path: str) -> bytes:
        asked.append(path)
        return world.fetch(path)

    second = look(fetch, world.policy, first.state, Expectations(), at=AT)
    assert (second.alerts, second.state.size, second.state.epoch) == ((), 701, 350)
    assert "tile/entries/000" not in asked
    assert see(world, second.state).state == second.state


def test_the_state_is_kept_and_read_back(tmp_path: Path) -> None:
    world = LogWorld()
    world.grow(10)
    path = tmp_path / "state.json"
    assert load_state(path, world.policy) == MonitorState(world.key.name)
    state = see(world).state
    save_state(path, state)
    assert load_state(path, world.policy) == state
    assert path.stat().st_mode & 0o077 == 0


def test_a_state_that_is_damaged_or_of_another_log_is_refused(tmp_path: Path) -> None:
    world = LogWorld()
    state = see(world).state
    data = state.encode()
    with pytest.raises(Malformed, match="state of a monitor"):
        MonitorState.parse(data, LogWorld(origin="other.example/log").policy)
    with pytest.raises(SignatureInvalid):
        MonitorState.parse(data, LogWorld().policy)
    for damaged in (
        b"",
        data[:-1],
        data.replace(b"v1", b"v2"),
        data.replace(b'"alerts":{}', b'"alerts":{"x":"1"}'),
    ):
        with pytest.raises(Malformed):
            MonitorState.parse(damaged, world.policy)


def test_a_fork_is_an_alert_that_carries_both_checkpoints_and_the_state_stays() -> None:
    world, fork = LogWorld(), LogWorld()
    fork.key = world.key
    world.grow(300)
    fork.grow(299)
    fork.append(new_entry(sealed_round(12345)))
    known = see(world).state
    for more in (0, 1, 500):
        fork.grow(more)
        step = see(fork, known)
        (alert,) = step.alerts
        assert (alert.kind, alert.known, alert.found) == (
            AlertKind.FORK,
            world.note().decode(),
            fork.note().decode(),
        )
        assert (step.state.checkpoint, step.state.alerts) == (known.checkpoint, {"fork": 1})


def test_a_rewind_is_an_alert_and_the_state_stays() -> None:
    world = LogWorld()
    world.grow(300)
    known = see(world).state

    def rewound(path: str) -> bytes:
        return world.note(200) if path == "checkpoint" else world.fetch(path)

    step = look(rewound, world.policy, known, Expectations(), at=AT)
    assert kinds(step.alerts) == ["rewind"]
    assert step.state.size == 301


def test_tiles_that_do_not_fit_the_checkpoint_are_an_alert() -> None:
    world = LogWorld()
    world.grow(300)

    def lies(path: str) -> bytes:
        data = world.fetch(path)
        return data[:-1] + bytes([data[-1] ^ 1]) if path.startswith("tile/entries/001") else data

    step = look(lies, world.policy, MonitorState(world.key.name), Expectations(), at=AT)
    assert kinds(step.alerts) == ["tampered"]
    assert step.state.size == 0


def test_entries_that_no_honest_log_has_are_alerts_each_once() -> None:
    world = LogWorld()
    world.append(
        new_entry(enrolled(1)),
        NewEntry("coffee", AT, b'{"type":"urn:fltrust:log:coffee:v1"}'),
        new_entry(enrolled(3)),
        new_entry(enrolled(4)),
    )
    step = see(world)
    assert [(a.kind, a.index) for a in step.alerts] == [(AlertKind.BAD_ENTRY, 2), (AlertKind.BAD_ENTRY, 3)]
    assert (step.state.size, step.state.epoch, step.state.alerts) == (5, 4, {"bad-entry": 2})
    assert all(alert.kind.is_misbehaviour for alert in step.alerts)


def test_a_thousand_alerts_are_kept_and_all_are_counted() -> None:
    world = LogWorld()
    world.append(*[NewEntry("x", AT, b"x")] * (MAX_ALERTS + 5))
    step = see(world)
    assert len(step.alerts) == MAX_ALERTS + 1
    assert "5 more" in step.alerts[-1].message


@pytest.mark.parametrize(
    ("demands", "is_expected"),
    [
        ("", True),
        ('roles = ["participant"]', True),
        ('roles = ["aggregator", "operator"]', False),
        ('issuers = ["issuing.pem"]', True),
        (f'keys = ["{KeyId.of_spki(b"x")}"]', False),
        ('keys-file = "keys.txt"', True),
        ('certificates = ["sha256:' + "00" * 32 + '"]', False),
    ],
)
def test_a_certificate_is_held_against_what_is_stated(
    demands: str, is_expected: bool, tmp_path: Path
) -> None:
    certificate = CA.issue(SITE, key=KEY)
    (tmp_path / "keys.txt").write_text(f"{KeyId.of_spki(b'old')}\n{KeyId.of_spki(spki(certificate))}\n")
    expectations = expect(tmp_path, f'[[expect]]\nname = "{SITE}"\n{demands}\n')
    world = LogWorld()
    world.append(new_entry(leaf(certificate)))
    step = see(world, expectations=expectations)
    assert kinds(step.alerts) == ([] if is_expected else ["unexpected-certificate"])
    if not is_expected:
        (alert,) = step.alerts
        assert (alert.index, alert.name) == (1, SITE)
        assert alert.certificate == str(leaf(certificate).fingerprint)
        assert not alert.kind.is_misbehaviour
        assert step.state.size == 2, "what was alerted is behind us"


@pytest.mark.parametrize("as_precertificate", [False, True])
def test_a_certificate_by_another_issuer_is_not_expected(as_precertificate: bool, tmp_path: Path) -> None:
    expectations = expect(tmp_path, f'[[expect]]\nname = "{SITE}"\nissuers = ["issuing.pem"]\n')
    for issuer, expected in ((CA, []), (OTHER_CA, ["unexpected-certificate"])):
        certificate = issuer.issue(SITE)
        entry = precertificate(certificate, issuer) if as_precertificate else leaf(certificate)
        world = LogWorld()
        world.append(new_entry(entry))
        assert kinds(see(world, expectations=expectations).alerts) == expected


def test_a_forged_issuer_name_is_not_the_issuer(tmp_path: Path) -> None:
    expectations = expect(tmp_path, f'[[expect]]\nname = "{SITE}"\nissuers = ["issuing.pem"]\n')
    world = LogWorld()
    world.append(new_entry(leaf(Ca("issuing").issue(SITE))))  # the same name, another key
    assert kinds(see(world, expectations=expectations).alerts) == ["unexpected-certificate"]


def test_a_pattern_stays_within_its_segment_and_one_table_that_allows_is_enough(tmp_path: Path) -> None:
    text = (
        '[[expect]]\nname = "spiffe://hospitals.example/participant/*"\nroles = ["operator"]\n'
        '[[expect]]\nname = "spiffe://hospitals.example/*/site-?"\nroles = ["participant"]\n'
    )
    expectations = expect(tmp_path, text)
    for name, alerts in (
        (SITE, []),
        ("spiffe://hospitals.example/participant/other", ["unexpected-certificate"]),
        ("spiffe://elsewhere.example/participant/site-a", []),
        ("spiffe://hospitals.example/coordinator", []),
    ):
        world = LogWorld()
        world.append(new_entry(leaf(CA.issue(name))))
        assert kinds(see(world, expectations=expectations).alerts) == alerts, name


def test_strict_means_that_every_name_is_on_the_list(tmp_path: Path) -> None:
    expectations = expect(tmp_path, f'strict = true\n[[expect]]\nname = "{SITE}"\n')
    world = LogWorld()
    world.append(
        new_entry(leaf(CA.issue(SITE))),
        new_entry(leaf(CA.issue("spiffe://hospitals.example/operator/mallory"))),
        new_entry(leaf(CA.issue())),
    )
    step = see(world, expectations=expectations)
    assert [(str(a.kind), a.index) for a in step.alerts] == [("unlisted-name", 2), ("unlisted-name", 3)]


def test_a_certificate_without_a_spiffe_id_goes_by_its_subject(tmp_path: Path) -> None:
    authority = leaf(CA.issue(subject="fltrust timestamp authority 0a0b"))
    world = LogWorld()
    world.append(new_entry(authority))
    for pattern, alerts in (("CN=fltrust timestamp authority *", []), ("CN=other *", ["unlisted-name"])):
        expectations = expect(tmp_path, f'strict = true\n[[expect]]\nname = "{pattern}"\n')
        assert kinds(see(world, expectations=expectations).alerts) == alerts


def test_an_authority_or_an_unreadable_name_is_always_an_alert() -> None:
    world = LogWorld()
    world.append(
        new_entry(leaf(CA.issue(ca=True))),
        new_entry(leaf(CA.issue(SITE, "spiffe://hospitals.example/operator/too"))),
        new_entry(leaf(CA.issue("https://hospitals.example/"))),
        new_entry(leaf(CA.issue(SITE))),
    )
    assert kinds(see(world).alerts) == [
        "unexpected-certificate",
        "unreadable-certificate",
        "unreadable-certificate",
    ]


def test_a_pseudonym_is_known_by_its_fingerprint(tmp_path: Path) -> None:
    name = PublicName("pseudonym:" + "ab" * 16)
    own = Digest.sha256_of(b"own")
    text = f'[[expect]]\nname = "{name}"\ncertificates = ["{own}"]\n'
    for digest, alerts in ((own, []), (Digest.sha256_of(b"other"), ["unexpected-certificate"])):
        entry = ParticipantCertificate(
            at=AT, name=name, certificate=digest, not_before=AT, not_after=AT + timedelta(1)
        )
        world = LogWorld()
        world.append(new_entry(entry))
        assert kinds(see(world, expectations=expect(tmp_path, text)).alerts) == alerts
    strict = expect(tmp_path, f'[[expect]]\nname = "{name}"\nkeys = ["{KeyId.of_spki(b"x")}"]\n')
    (alert,) = see(world, expectations=strict).alerts
    assert "does not show its key" in alert.message


@pytest.mark.parametrize(
    "text",
    [
        "strict = 1",
        "other = true",
        "expect = 1",
        "[[expect]]",
        '[[expect]]\nname = "site-a"',
        f'[[expect]]\nname = "{SITE}"\nnames = ["x"]',
        f'[[expect]]\nname = "{SITE}"\nroles = []',
        f'[[expect]]\nname = "{SITE}"\nroles = "participant"',
        f'[[expect]]\nname = "{SITE}"\nroles = ["king"]',
        f'[[expect]]\nname = "{SITE}"\nkeys = ["abc"]',
        f'[[expect]]\nname = "{SITE}"\nkeys-file = "none.txt"',
        f'[[expect]]\nname = "{SITE}"\nissuers = ["none.pem"]',
        f'[[expect]]\nname = "{SITE}"\nissuers = ["expect.toml"]',
        f'[[expect]]\nname = "{SITE}"\ncertificates = ["abc"]',
        "not toml",
        "a = " + "[" * 100_000,
    ],
)
def test_an_expectations_file_that_does_not_say_what_it_means_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(Malformed):
        expect(tmp_path, text)


def test_a_step_refuses_entries_with_a_gap() -> None:
    world = LogWorld()
    world.grow(4)
    state, new = MonitorState(world.key.name), world.checkpoint()
    entries = [(e.index, e.data) for e in world.log.entries]
    for wrong in (entries[1:], entries[:-1], entries[:2] + entries[3:]):
        with pytest.raises(Malformed):
            advance(state, new, proof=(), entries=wrong, expectations=Expectations(), at=AT)


def test_metrics_say_what_is_known(tmp_path: Path) -> None:
    world = LogWorld()
    world.append(NewEntry("x", AT, b"x"))
    state = see(world).state
    write_metrics(tmp_path / "m.prom", state, is_up=True)
    lines = (tmp_path / "m.prom").read_text().splitlines()
    assert 'fltrust_log_watch_up{origin="hospitals.example/log"} 1' in lines
    assert 'fltrust_log_watch_tree_size{origin="hospitals.example/log"} 2' in lines
    assert 'fltrust_log_watch_alerts_total{origin="hospitals.example/log",kind="bad-entry"} 1' in lines
    assert 'fltrust_log_watch_alerts_total{origin="hospitals.example/log",kind="fork"} 0' in lines
    assert all(line.startswith(("#", "fltrust_log_watch_")) for line in lines)


def test_a_log_is_watched_over_http_and_an_outage_is_no_alert() -> None:
    world = LogWorld()
    world.grow(600)
    with serving(from_fetch(world.fetch)) as url:
        source = HttpLog(f"{url}/log", timeout=5)
        step = look(source, world.policy, MonitorState(world.key.name), Expectations(), at=AT)
        assert (step.alerts, step.state.size) == ((), 601)
        source.close()
    with pytest.raises(Unavailable):
        look(source, world.policy, step.state, Expectations(), at=AT)


def test_a_checkpoint_by_a_stranger_teaches_nothing() -> None:
    world = LogWorld()
    with pytest.raises(FltrustError, match="found none"):
        look(LogWorld().fetch, world.policy, MonitorState(world.key.name), Expectations(), at=AT)
