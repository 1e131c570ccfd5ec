"""A trust domain is made once, from a folder that says all about it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from fltrust.clock import SystemClock
from fltrust.coordinator.folder import CoordinatorSettings, read_settings, write_settings
from fltrust.coordinator.process import initialise, issue_operator
from fltrust.enrollment.state import AgentState
from fltrust.errors import Conflict, FltrustError, Malformed
from fltrust.identity import Name, Role, TrustDomain
from fltrust.pki import renew_issuing, verify_certificate
from fltrust.tlog.entries import PublicNames

PASSPHRASE = b"for the tests"


def settings(**more: object) -> CoordinatorSettings:
    return CoordinatorSettings(
        domain=TrustDomain("hospitals.example"),
        bootstrap="127.0.0.1:8440",
        address="127.0.0.1:8441",
        **more,  # type: ignore[arg-type]
    )


def make(folder: Path, **more: object) -> Path:
    return initialise(
        folder,
        settings(**more),
        operator=Name("admin"),
        root_passphrase=PASSPHRASE,
        issuing_passphrase=PASSPHRASE,
    ).operator_state


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLTRUST_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("FLTRUST_PASSPHRASE_FILE", raising=False)


def test_settings_read_back_as_they_were_written() -> None:
    full = settings(
        listen="0.0.0.0:8441",
        database="postgresql+psycopg://fltrust@/fltrust",
        public_names=PublicNames.PSEUDONYMS,
        lifetimes={Role.PARTICIPANT: timedelta(minutes=5)},
    )
    assert CoordinatorSettings.from_toml(full.to_toml()) == full


GOOD = "version = 1\ntrust-domain = 'a.example'\nbootstrap = 'x:1'\naddress = 'x:2'"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "version = 2",
        "version = 1\ntrust-domain = 'A B'\nbootstrap = 'x:1'\naddress = 'x:2'",
        GOOD + "\nsurprise = 1",
        GOOD + "\npublic-names = 'initials'",
        "version = 1\ntrust-domain = 'a.example'\nbootstrap = 1\naddress = 'x:2'",
        GOOD + "\n[lifetimes]\nnurse = 60",
        GOOD + "\n[lifetimes]\nparticipant = 1",
        "not toml",
    ],
)
def test_settings_that_say_something_else_are_refused(text: str) -> None:
    with pytest.raises(FltrustError):
        CoordinatorSettings.from_toml(text)


def test_a_setting_cannot_smuggle_in_another() -> None:
    with pytest.raises(Malformed):
        settings(listen='x:1"\ndatabase = "sqlite:///elsewhere')


def test_init_makes_a_private_folder_and_the_first_operator(tmp_path: Path) -> None:
    state = make(tmp_path / "coordinator")
    for path in (tmp_path / "coordinator").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path
    assert str(AgentState.open(state).spiffe_id) == "spiffe://hospitals.example/operator/admin"
    assert read_settings(tmp_path / "coordinator") == settings()


def test_a_trust_domain_is_never_made_again_over_another(tmp_path: Path) -> None:
    make(tmp_path / "coordinator")
    root = (tmp_path / "coordinator" / "ca" / "root.pem").read_bytes()
    with pytest.raises(Conflict, match="found one"):
        make(tmp_path / "coordinator")
    assert (tmp_path / "coordinator" / "ca" / "root.pem").read_bytes() == root


def test_no_key_lies_in_the_clear_and_none_shows_the_passphrase(tmp_path: Path) -> None:
    make(tmp_path / "coordinator")
    for path in (tmp_path / "coordinator").rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert PASSPHRASE not in data
            assert b"BEGIN PRIVATE KEY" not in data


def test_an_operators_way_back_in_takes_its_name_over_only_when_told(tmp_path: Path) -> None:
    make(tmp_path / "coordinator")
    with pytest.raises(Conflict):
        issue_operator(tmp_path / "coordinator", Name("admin"), issuing_passphrase=PASSPHRASE)
    again = issue_operator(
        tmp_path / "coordinator", Name("admin"), issuing_passphrase=PASSPHRASE, replace=True
    )
    assert AgentState.open(again).spiffe_id.name == "admin"


def test_a_wrong_passphrase_is_told_without_repeating_it(tmp_path: Path) -> None:
    make(tmp_path / "coordinator")
    with pytest.raises(FltrustError) as refused:
        issue_operator(tmp_path / "coordinator", Name("b"), issuing_passphrase=b"a-wrong-secret")
    assert refused.value.reason == "passphrase-wrong"
    assert "a-wrong-secret" not in str(refused.value)


def test_the_issuing_ca_gets_its_next_certificate_and_everything_issued_stays_valid(tmp_path: Path) -> None:
    state = AgentState.open(make(tmp_path / "coordinator"))
    before = (tmp_path / "coordinator" / "ca" / "issuing.pem").read_bytes()
    renew_issuing(tmp_path / "coordinator" / "ca", root_passphrase=PASSPHRASE, clock=SystemClock())
    assert (tmp_path / "coordinator" / "ca" / "issuing.pem").read_bytes() != before
    issue_operator(tmp_path / "coordinator", Name("second"), issuing_passphrase=PASSPHRASE)
    _, chain = state.load_identity()
    verified = verify_certificate(chain, bundle=state.load_bundle(), at=SystemClock().now())
    assert verified.spiffe_id == state.spiffe_id


def test_a_new_trust_domain_is_a_notary_at_once(tmp_path: Path) -> None:
    make(tmp_path / "coordinator")
    for name in ("log/note.key", "log/ct.key", "tsa/tsa.key", "tsa/tsa.pem"):
        assert (tmp_path / "coordinator" / name).stat().st_mode & 0o777 == 0o600


def test_a_log_goes_on_with_its_own_key_or_not_at_all(tmp_path: Path) -> None:
    """A lost note key is not made anew in silence: every checkpoint before it would speak for another log."""
    folder = tmp_path / "coordinator"
    make(folder)
    (folder / "log").rename(tmp_path / "kept")
    with pytest.raises(Conflict) as refused:
        issue_operator(folder, Name("second"), issuing_passphrase=PASSPHRASE)
    assert refused.value.reason == "log-key"
    for path in (folder / "log").iterdir():
        path.unlink()
    (folder / "log").rmdir()
    (tmp_path / "kept").rename(folder / "log")
    issue_operator(folder, Name("second"), issuing_passphrase=PASSPHRASE)


def test_pseudonyms_are_chosen_at_init_and_their_key_is_never_made_anew(tmp_path: Path) -> None:
    folder = tmp_path / "coordinator"
    make(folder, public_names=PublicNames.PSEUDONYMS)
    key = folder / "names.key"
    assert b"ENCRYPTED PRIVATE KEY" in key.read_bytes()
    issue_operator(folder, Name("second"), issuing_passphrase=PASSPHRASE)
    kept = key.read_bytes()
    key.unlink()
    with pytest.raises(Malformed, match=r"names\.key"):
        issue_operator(folder, Name("third"), issuing_passphrase=PASSPHRASE)
    assert not key.exists()
    key.write_bytes(kept)
    key.chmod(0o600)
    write_settings(folder, settings())  # somebody takes the choice back
    with pytest.raises(Conflict) as refusal:
        issue_operator(folder, Name("third"), issuing_passphrase=PASSPHRASE)
    assert refusal.value.reason == "public-names"


def test_names_are_public_unless_pseudonyms_are_asked_for(tmp_path: Path) -> None:
    folder = tmp_path / "coordinator"
    make(folder)
    assert not (folder / "names.key").exists()
    assert read_settings(folder).public_names is PublicNames.SPIFFE
