"""An agent whose key is in a token: what works with it, what gets a key in memory, and what is refused."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from agent_federation import Federation
from key_kinds import Kind, made

from fltrust.agent.credentials import CredentialStore
from fltrust.agent.host import AgentHost
from fltrust.agent.join import join
from fltrust.agent.session import connect
from fltrust.agent.state import AgentState
from fltrust.client import hardware_channel
from fltrust.clock import SystemClock
from fltrust.errors import CoordinatorUnavailable, Refused, Unavailable
from fltrust.identity import Name, Role
from fltrust.keys.hardware import HardwareSigner
from fltrust.keys.homes import generate_key, open_key


@pytest.fixture
def token(tmp_path: Path) -> Iterator[Kind]:
    folder = tmp_path / "token"
    folder.mkdir()
    with made("pkcs11", folder) as kind:
        yield kind


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[Federation]:
    found = Federation(tmp_path)
    yield found
    found.close()


@pytest.fixture
def site(federation: Federation, token: Kind) -> AgentState:
    with federation.as_operator() as client:
        text = client.create_token(
            Role.PARTICIPANT, Name("site-a"), ttl=federation.authority.settings.max_token_ttl
        )
    return join(text, home=federation.home, key=open_key(generate_key(token.uri("site-a"))))


def test_a_site_joins_with_a_key_that_its_state_only_points_to(site: AgentState) -> None:
    stored = (site.folder / "identity.pem").read_bytes()
    assert stored.startswith(b"fltrust-key-v1 pkcs11:")
    assert b"PRIVATE KEY" not in stored
    signer, _ = AgentState.open(site.folder).load_identity()
    assert isinstance(signer, HardwareSigner)


def test_its_grpc_handshakes_are_signed_in_the_token(site: AgentState) -> None:
    with connect(site.folder) as (client, _):
        assert client.get_bundle().domain == site.spiffe_id.domain


def test_a_running_agent_shows_tls_a_key_in_memory_and_keeps_its_own(site: AgentState) -> None:
    host = AgentHost(site.folder)
    host.start()
    try:
        current = host.credentials.current
        assert current.transport is not None
        assert current.transport.spiffe_id == current.spiffe_id
        assert current.transport.certificate.key_id != current.certificate.key_id
        assert current.hardware_signer is not None
        assert isinstance(host.credentials.ssl_client_context(), ssl.SSLContext)
    finally:
        host.stop()
    assert b"PRIVATE KEY" not in (site.folder / "identity.pem").read_bytes()


def test_before_it_has_reached_its_coordinator_other_tls_is_refused_by_name(site: AgentState) -> None:
    store = CredentialStore.load(site, clock=SystemClock())
    with pytest.raises(Refused) as refused:
        store.ssl_client_context()
    assert refused.value.reason == "key-in-hardware"
    with pytest.raises(Refused):
        _ = store.current.key_pem


def test_a_key_that_does_not_sign_ends_the_handshake(site: AgentState, token: Kind) -> None:
    with connect(site.folder) as (client, _):
        token.remove(token.uri("site-a"))
        with pytest.raises(CoordinatorUnavailable):
            client.get_bundle()


@pytest.mark.parametrize(
    "missing", ["ssl_channel_credentials_with_custom_signer", "PrivateKeySignatureAlgorithm"]
)
def test_where_grpc_moved_its_experimental_call_the_refusal_names_it(
    site: AgentState, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.delattr(f"grpc.experimental.{missing}")
    signer, _ = site.load_identity()
    with pytest.raises(Unavailable) as refused:
        hardware_channel.channel_credentials(roots_pem=b"", chain_pem=b"", signer=signer)
    assert refused.value.reason == "grpc-custom-signer"
    assert grpc.__version__ in str(refused.value)


def test_this_grpc_has_the_call_as_we_know_it() -> None:
    make, ecdsa = hardware_channel._experimental()
    assert callable(make)
    assert ecdsa is not None
