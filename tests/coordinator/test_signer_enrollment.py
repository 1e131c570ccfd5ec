"""A signer joins as an operator does: with a token, into a state folder, over a connection that renews."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from server_world import DOMAIN, ServedWorld, served

from fltrust.agent.join import join
from fltrust.agent.session import connect
from fltrust.agent.state import AgentState, find_state
from fltrust.artifacts.signers import read_signer, require_path
from fltrust.artifacts.trustroot import TrustedRoot, trusted_root_from
from fltrust.client import CoordinatorClient
from fltrust.clock import SystemClock
from fltrust.errors import Malformed, PermissionDenied, Revoked
from fltrust.identity import Name, Role, SpiffeId
from fltrust.keys import FileSigner, generate
from fltrust.pki import create_csr
from fltrust.pki.sct import verify_embedded_sct
from fltrust.revocation.events import RevocationReason
from fltrust.revocation.ports import RevocationTarget


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedWorld]:
    with served(tmp_path_factory.mktemp("signers")) as world:
        yield world


def enroll(world: ServedWorld, home: Path, name: str) -> AgentState:
    return join(world.token(name, Role.SIGNER), home=home)


def test_a_signer_joins_with_a_token_into_a_folder_of_its_role(world: ServedWorld, tmp_path: Path) -> None:
    state = enroll(world, tmp_path, "joins")
    assert state.folder == tmp_path / DOMAIN / "signer-joins"
    assert find_state(Role.SIGNER, home=tmp_path) == state.folder
    assert state.spiffe_id == SpiffeId.of(DOMAIN, Role.SIGNER, "joins")
    assert state.record.node_key is None
    assert not (state.folder / "node.key").exists()
    (listed,) = [
        found for found in world.operator.client.list_enrollments() if found.spiffe_id == state.spiffe_id
    ]
    assert listed.standing == "active"
    assert listed.enrolled_by == world.operator.spiffe_id


def test_it_connects_and_may_sign_and_nothing_of_an_operators(world: ServedWorld, tmp_path: Path) -> None:
    state = enroll(world, tmp_path, "connects")
    with connect(state.folder) as (client, credentials):
        assert credentials.spiffe_id == state.spiffe_id
        assert client.trust_file()
        assert client.get_bundle().domain == DOMAIN
        for refused in (
            client.list_enrollments,
            client.list_tokens,
            client.list_rounds,
            lambda: client.create_token(Role.SIGNER, Name("more"), ttl=timedelta(minutes=1)),
            lambda: client.revoke(
                RevocationTarget(name=(Role.SIGNER, Name("connects"))), reason=RevocationReason.KEY_COMPROMISE
            ),
        ):
            with pytest.raises(PermissionDenied):
                refused()


def certified(client: CoordinatorClient) -> tuple[FileSigner, tuple[bytes, ...]]:
    key = generate()
    return key, client.certify_signer(create_csr(key))


def test_the_certificate_it_gets_to_sign_with_verifies_from_the_trust_file_alone(
    world: ServedWorld, tmp_path: Path
) -> None:
    state = enroll(world, tmp_path, "certified")
    with connect(state.folder) as (client, _):
        key, chain = certified(client)
        trust: TrustedRoot = trusted_root_from(json.loads(client.trust_file())["trustedRoot"])
    signer, now = read_signer(chain[0]), world.clock.now()
    (authority,) = trust.certificate_authorities
    between = [x509.load_der_x509_certificate(der) for der in chain[1:]]
    issuer = require_path(signer, anchor=authority.anchor, intermediates=between, at=now)
    assert signer.name == str(state.spiffe_id)
    assert signer.public_key == key.public_key
    assert verify_embedded_sct(signer.certificate, issuer, trust.ct_logs) <= now
    assert issuer in authority.certificates


class Ahead(SystemClock):
    """Tomorrow's clock."""

    def now(self) -> datetime:
        return super().now() + timedelta(hours=9)


def test_a_signer_that_is_past_two_thirds_of_its_life_is_renewed_on_the_way(tmp_path: Path) -> None:
    with served(tmp_path / "coordinator") as world:
        state = enroll(world, tmp_path, "renews")
        before = state.load_chain()[0]
        with connect(state.folder, clock=Ahead()) as (_client, credentials):
            assert credentials.certificate.leaf != before
        assert AgentState.open(state.folder).load_chain()[0] != before


def test_a_revoked_signer_gets_no_certificate_to_sign_with(world: ServedWorld, tmp_path: Path) -> None:
    state = enroll(world, tmp_path, "revoked")
    with connect(state.folder) as (client, _):
        certified(client)
        world.operator.client.revoke(
            RevocationTarget(name=(Role.SIGNER, Name("revoked"))), reason=RevocationReason.KEY_COMPROMISE
        )
        with pytest.raises(Revoked):
            certified(client)


def test_an_operator_and_a_participant_get_none_either(world: ServedWorld) -> None:
    for person in (world.operator, world.join("a-site")):
        with pytest.raises(PermissionDenied):
            certified(person.client)


def test_there_is_no_token_for_the_coordinators_own_role(world: ServedWorld) -> None:
    with pytest.raises(Malformed):
        world.token("main", Role.COORDINATOR)
