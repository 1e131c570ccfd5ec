"""A state folder: private, whole at every moment, one agent at a time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from agent_world import ADMIN, MAIN, SITE, Registry, World

from fltrust.agent.credentials import CredentialStore
from fltrust.agent.join import join
from fltrust.agent.state import (
    PASSPHRASE_FILE_VARIABLE,
    AgentState,
    find_state,
    list_states,
    passphrase_from_environment,
    socket_path_of,
    state_folder,
)
from fltrust.enrollment.types import EnrollRequest, Issued, JoinToken
from fltrust.errors import (
    CertificateRefused,
    Conflict,
    CoordinatorUnavailable,
    Malformed,
    NotFound,
    Oversized,
    Refused,
    StorageUnavailable,
    TokenRefused,
)
from fltrust.identity import Role
from fltrust.keys import generate, load_node_key, spki_der

SECRET = b"correct horse"


@pytest.fixture
def world() -> World:
    return World()


def test_joining_writes_a_whole_private_state(world: World, tmp_path: Path) -> None:
    registry = Registry(world)
    state = join(registry.token(), tmp_path / "s", enroll=registry.enroll, clock=world.clock)
    assert (state.spiffe_id, state.folder) == (SITE, tmp_path / "s")
    assert {p.name for p in state.folder.iterdir()} == {
        "agent.json",
        "bundle.json",
        "identity.pem",
        "node.key",
        "node.key.pub",
    }
    for path in state.folder.iterdir():
        assert path.stat().st_mode & 0o077 == (0o044 if path.name == "node.key.pub" else 0)
    assert state.folder.stat().st_mode & 0o777 == 0o700
    opened = AgentState.open(state.folder)
    store = CredentialStore.load(opened, clock=world.clock)
    assert store.spiffe_id == SITE
    assert opened.load_node_key().key_id == opened.record.node_key
    assert opened.record.address == registry.token().address


def test_the_certificate_key_is_encrypted_where_there_is_a_passphrase(world: World, tmp_path: Path) -> None:
    registry = Registry(world)
    join(registry.token(), tmp_path / "s", enroll=registry.enroll, clock=world.clock, passphrase=SECRET)
    assert b"BEGIN ENCRYPTED PRIVATE KEY" in (tmp_path / "s" / "identity.pem").read_bytes()
    CredentialStore.load(AgentState.open(tmp_path / "s", passphrase=SECRET), clock=world.clock)
    for wrong in (None, b"other"):
        with pytest.raises(Refused, match="passphrase"):
            AgentState.open(tmp_path / "s", passphrase=wrong).load_identity()


@pytest.mark.parametrize("role", [Role.AGGREGATOR, Role.OPERATOR])
def test_who_is_no_participant_joins_without_a_node_key(world: World, tmp_path: Path, role: Role) -> None:
    registry = Registry(world, role, "main")
    state = join(registry.token(), home=tmp_path, enroll=registry.enroll, clock=world.clock)
    assert state.folder == tmp_path / "hospitals.example" / f"{role}-main"
    assert state.record.node_key is None
    assert not state.node_key_path.exists()


def test_a_join_that_is_refused_or_cut_leaves_nothing(world: World, tmp_path: Path) -> None:
    def cut(_token: JoinToken, _request: EnrollRequest) -> Issued:
        raise CoordinatorUnavailable("cut")

    spent = Registry(world)
    spent.spent = True
    for enroll, error in ((cut, CoordinatorUnavailable), (spent.enroll, TokenRefused)):
        with pytest.raises(error):
            join(spent.token(), tmp_path / "s", enroll=enroll, clock=world.clock)
        assert list(tmp_path.iterdir()) == []


def test_what_comes_back_must_lead_to_the_root_of_the_token(world: World, tmp_path: Path) -> None:
    impostor = Registry(World())
    with pytest.raises(CertificateRefused):
        join(Registry(world).token(), tmp_path / "s", enroll=impostor.enroll, clock=world.clock)
    assert list(tmp_path.iterdir()) == []


def test_a_certificate_for_another_key_is_not_taken(world: World, tmp_path: Path) -> None:
    registry = Registry(world)

    def swapped(token: JoinToken, request: EnrollRequest) -> Issued:
        from fltrust.pki import create_csr

        return Registry(world).enroll(
            token, EnrollRequest(request.evidence, create_csr(generate()), spki_der(generate().public_key))
        )

    with pytest.raises(CertificateRefused) as caught:
        join(registry.token(), tmp_path / "s", enroll=swapped, clock=world.clock)
    assert caught.value.reason == "wrong-certificate"


def test_a_taken_folder_is_refused_before_the_token_is_spent(world: World, tmp_path: Path) -> None:
    registry = Registry(world)
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "thesis.tex").write_text("mine")
    with pytest.raises(Conflict):
        join(registry.token(), tmp_path / "s", enroll=registry.enroll, clock=world.clock)
    assert not registry.spent
    assert (tmp_path / "s" / "thesis.tex").read_text() == "mine"


def test_joining_anew_puts_the_old_state_aside_unless_its_agent_runs(world: World, tmp_path: Path) -> None:
    registry = Registry(world)
    first = join(registry.token(), home=tmp_path, enroll=registry.enroll, clock=world.clock)
    registry.spent = False
    lock = first.lock()
    with pytest.raises(Conflict, match="one is running"):
        join(registry.token(), home=tmp_path, enroll=registry.enroll, clock=world.clock)
    assert AgentState.open(first.folder).record == first.record
    lock.release()
    registry.spent = False
    second = join(registry.token(), home=tmp_path, enroll=registry.enroll, clock=world.clock)
    assert second.folder == first.folder
    assert second.record.node_key != first.record.node_key
    aside = first.folder.with_name("participant-site-a.replaced-1")
    assert AgentState.open(aside).record == first.record
    assert list_states(home=tmp_path) == (second.folder,)
    assert find_state(Role.PARTICIPANT, home=tmp_path) == second.folder


def test_a_root_that_is_none_is_said_before_anything_is_sent(world: World, tmp_path: Path) -> None:
    token = Registry(world).token()
    bad = JoinToken(token.bootstrap, token.address, b"no certificate", token.secret)
    with pytest.raises(Malformed, match="root certificate"):
        join(bad, tmp_path / "s", clock=world.clock)


def test_no_state_is_said_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="fltrust join"):
        AgentState.open(tmp_path)
    with pytest.raises(NotFound, match="fltrust join"):
        find_state(Role.OPERATOR, home=tmp_path)


def test_several_states_of_one_role_must_be_told_apart(world: World, tmp_path: Path) -> None:
    for name in ("site-a", "site-b"):
        registry = Registry(world, name=name)
        join(registry.token(), home=tmp_path, enroll=registry.enroll, clock=world.clock)
    with pytest.raises(Conflict, match="--state"):
        find_state(Role.PARTICIPANT, home=tmp_path)


@pytest.mark.parametrize("name", ["agent.json", "bundle.json", "identity.pem", "node.key"])
def test_a_file_that_others_may_read_is_refused(world: World, tmp_path: Path, name: str) -> None:
    state = world.state(tmp_path / "s", world.enroll(SITE))
    (state.folder / name).chmod(0o640)
    with pytest.raises(Refused, match="chmod 600"):
        _load_all(state.folder, world)


@pytest.mark.skipif(os.geteuid() != 0, reason="changing owners needs root")
@pytest.mark.parametrize("name", [".", "agent.json", "identity.pem", "bundle.json"])
def test_what_another_user_owns_is_refused(world: World, tmp_path: Path, name: str) -> None:
    state = world.state(tmp_path / "s", world.enroll(SITE))
    os.chown(state.folder / name, 65534, 65534)
    with pytest.raises((Refused, StorageUnavailable), match="uid 65534"):
        _load_all(state.folder, world)


def test_a_folder_that_others_may_enter_is_refused(world: World, tmp_path: Path) -> None:
    state = world.state(tmp_path / "s", world.enroll(SITE))
    state.folder.chmod(0o755)
    with pytest.raises(StorageUnavailable, match="chmod 700"):
        AgentState.open(state.folder)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("agent.json", b"{"),
        ("agent.json", b'{"version": 2}'),
        ("agent.json", b'{"version": 1, "spiffe_id": 7}'),
        ("agent.json", b"x" * 20_000),
        ("bundle.json", b"[]"),
        ("identity.pem", b""),
        ("identity.pem", b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"),
        ("identity.pem", b"x" * 200_000),
    ],
)
def test_a_damaged_file_is_malformed_or_oversized(
    world: World, tmp_path: Path, name: str, data: bytes
) -> None:
    state = world.state(tmp_path / "s", world.enroll(SITE))
    (state.folder / name).write_bytes(data)
    with pytest.raises((Malformed, Oversized)):
        _load_all(state.folder, world)


def test_a_key_and_a_chain_that_do_not_belong_together_are_refused(world: World, tmp_path: Path) -> None:
    state = world.state(tmp_path / "s", world.enroll(SITE))
    pem = (state.folder / "identity.pem").read_bytes()
    chain = pem[pem.index(b"-----BEGIN CERTIFICATE") :]
    (state.folder / "identity.pem").write_bytes(generate().to_pem(None) + chain)
    with pytest.raises(CertificateRefused):
        _load_all(state.folder, world)


def test_a_link_in_the_place_of_a_file_is_not_followed(world: World, tmp_path: Path) -> None:
    state = world.state(tmp_path / "s", world.enroll(SITE))
    (state.folder / "agent.json").rename(tmp_path / "elsewhere")
    (state.folder / "agent.json").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageUnavailable):
        AgentState.open(state.folder)


def test_one_state_has_one_agent(world: World, tmp_path: Path) -> None:
    state = world.state(tmp_path / "s", world.enroll(MAIN))
    lock = state.lock()
    with pytest.raises(Conflict, match="one is running"):
        AgentState.open(state.folder).lock()
    lock.release()
    lock.release()
    AgentState.open(state.folder).lock().release()


def test_the_passphrase_comes_from_a_private_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PASSPHRASE_FILE_VARIABLE, raising=False)
    assert passphrase_from_environment() is None
    path = tmp_path / "passphrase"
    monkeypatch.setenv(PASSPHRASE_FILE_VARIABLE, str(path))
    with pytest.raises(Malformed):
        passphrase_from_environment()
    path.write_bytes(SECRET + b"\n")
    path.chmod(0o644)
    with pytest.raises(Refused, match="chmod 600"):
        passphrase_from_environment()
    path.chmod(0o600)
    assert passphrase_from_environment() == SECRET
    path.write_bytes(b"\n")
    with pytest.raises(Malformed, match="empty"):
        passphrase_from_environment()


def test_a_socket_path_always_fits(tmp_path: Path) -> None:
    assert socket_path_of(Path("/s")) == Path("/s/run/agent.sock")
    deep = tmp_path / ("d" * 120)
    assert len(os.fsencode(socket_path_of(deep))) <= 100
    assert socket_path_of(deep) != socket_path_of(tmp_path / ("e" * 120))
    assert socket_path_of(Path("/s"), shared=True).parent.parent == Path("/tmp")


def test_states_lie_by_domain_role_and_name(tmp_path: Path) -> None:
    assert state_folder(ADMIN, home=tmp_path) == tmp_path / "hospitals.example" / "operator-admin"


ROTATE_FOR_EVER = """
import sys
from datetime import timedelta
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from agent_world import SITE, World
from fltrust.agent.credentials import CredentialStore
from fltrust.keys import generate
world = World()
state = world.state(Path(sys.argv[1]), world.enroll(SITE))
store = CredentialStore.load(state, clock=world.clock)
print("ready", flush=True)
while True:
    store.rotate(world.issue(SITE, generate()))
"""


def test_a_state_is_whole_whenever_its_process_is_killed(tmp_path: Path) -> None:
    here = str(Path(__file__).parent)
    for number in range(4):
        folder = tmp_path / f"s{number}"
        process = subprocess.Popen(
            [sys.executable, "-c", ROTATE_FOR_EVER, str(folder), here], stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        time.sleep(0.02 + 0.037 * number)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        signer, chain = AgentState.open(folder).load_identity()
        assert chain[0].public_key() == signer.public_key
        AgentState.open(folder).load_bundle()
        AgentState.open(folder).lock().release()
        assert not list(folder.glob(".*"))


def _load_all(folder: Path, world: World) -> None:
    state = AgentState.open(folder)
    CredentialStore.load(state, clock=world.clock)
    if state.node_key_path.exists():
        load_node_key(state.node_key_path)
