from __future__ import annotations

from collections.abc import Iterator

import pytest

from fltrust.agent.credentials import Credentials
from fltrust.coordinator.public_names import PublicNaming
from fltrust.coordinator.reading import as_read_by
from fltrust.enrollment.types import Issued
from fltrust.errors import Conflict, FltrustError, Malformed, PermissionDenied, Revoked
from fltrust.identity import Epoch, Role, Serial, SpiffeId
from fltrust.keys import generate
from fltrust.pki import create_csr, verify_certificate
from fltrust.pki.workloads import agent_of, workload_of
from fltrust.revocation.events import EventKind, RevocationReason
from fltrust.revocation.ports import RevocationTarget
from fltrust.revocation.state import Standing, TrustState
from fltrust.testing import ScratchCoordinator
from fltrust.testing.identities import ScratchIdentity

DOMAIN = "scratch.example"
SITE = SpiffeId.of(DOMAIN, Role.PARTICIPANT, "site-a")


@pytest.fixture
def coordinator() -> Iterator[ScratchCoordinator]:
    with ScratchCoordinator() as made:
        yield made


def _certify(coordinator: ScratchCoordinator, agent: ScratchIdentity) -> Issued:
    return coordinator.session(agent).certify_workload(create_csr(generate()))


def _serial(coordinator: ScratchCoordinator, issued: Issued) -> Serial:
    return verify_certificate(
        issued.chain_der, bundle=coordinator.bundle, at=coordinator.clock.now(), expect_role=Role.WORKLOAD
    ).serial


def _state(coordinator: ScratchCoordinator) -> TrustState:
    return TrustState.replay(coordinator.authority.events(Epoch(0), 1_000, reader=None))


def test_a_workload_is_named_after_the_role_and_name_of_its_agent() -> None:
    aggregator = SpiffeId.of(DOMAIN, Role.AGGREGATOR, "site-a")
    assert str(workload_of(SITE)) == "spiffe://scratch.example/workload/participant-site-a"
    assert workload_of(SITE) != workload_of(aggregator)
    assert agent_of(workload_of(SITE)) == SITE
    assert agent_of(workload_of(aggregator)) == aggregator


@pytest.mark.parametrize("name", ["participant", "operator-root", "workload-x", "signer-release", "x-y"])
def test_no_agent_is_read_out_of_another_name(name: str) -> None:
    assert agent_of(SpiffeId.of(DOMAIN, Role.WORKLOAD, name)) is None
    assert agent_of(SITE) is None


@pytest.mark.parametrize("role", [Role.OPERATOR, Role.SIGNER, Role.WORKLOAD, Role.DEVICE, Role.SERVER])
def test_only_agents_vouch_for_workloads(role: Role) -> None:
    with pytest.raises(PermissionDenied):
        workload_of(SpiffeId.of(DOMAIN, role, "x"))


def test_a_name_without_room_for_its_role_has_no_workload() -> None:
    with pytest.raises(Malformed, match="at most 51 characters"):
        workload_of(SpiffeId.of(DOMAIN, Role.PARTICIPANT, "a" * 52))
    assert workload_of(SpiffeId.of(DOMAIN, Role.PARTICIPANT, "a" * 51))


def test_an_agent_gets_a_certificate_for_its_workload_alone(coordinator: ScratchCoordinator) -> None:
    issued = _certify(coordinator, coordinator.enroll("site-a"))
    assert issued.spiffe_id == workload_of(SITE)
    verified = verify_certificate(
        issued.chain_der, bundle=coordinator.bundle, at=coordinator.clock.now(), purpose="server"
    )
    assert verified.spiffe_id == workload_of(SITE)


def test_nobody_but_an_agent_asks_for_one(coordinator: ScratchCoordinator) -> None:
    signer = coordinator.enroll("release", Role.SIGNER)
    for caller in (coordinator.operator, signer):
        with pytest.raises(PermissionDenied):
            _certify(coordinator, caller)


def test_the_key_of_a_workload_is_certified_once(coordinator: ScratchCoordinator) -> None:
    session, csr = coordinator.session(coordinator.enroll("site-a")), create_csr(generate())
    session.certify_workload(csr)
    with pytest.raises(Conflict, match="new key"):
        session.certify_workload(csr)


def test_revoking_the_agent_revokes_its_workload(coordinator: ScratchCoordinator) -> None:
    agent = coordinator.enroll("site-a")
    serial = _serial(coordinator, _certify(coordinator, agent))
    (event,) = coordinator.revoke("site-a")
    assert serial in event.serials
    assert _state(coordinator).serial_standing(serial) is Standing.REVOKED
    with pytest.raises(Revoked):
        _certify(coordinator, agent)


def test_a_hold_of_the_agent_holds_its_workload_until_it_is_released(coordinator: ScratchCoordinator) -> None:
    agent = coordinator.enroll("site-a")
    serial = _serial(coordinator, _certify(coordinator, agent))
    coordinator.hold("site-a")
    assert _state(coordinator).serial_standing(serial) is Standing.HELD
    with pytest.raises(Revoked):
        _certify(coordinator, agent)
    coordinator.release("site-a")
    assert _state(coordinator).serial_standing(serial) is Standing.ACTIVE
    _certify(coordinator, agent)


@pytest.mark.parametrize("is_revoked", [False, True])
def test_enrolling_the_agent_anew_leaves_no_workload_of_before(
    coordinator: ScratchCoordinator, is_revoked: bool
) -> None:
    serial = _serial(coordinator, _certify(coordinator, coordinator.enroll("site-a")))
    if is_revoked:
        coordinator.revoke("site-a")
    again = coordinator.enroll("site-a", replace=True)
    assert _state(coordinator).serial_standing(serial) is Standing.REVOKED
    assert _state(coordinator).serial_standing(_serial(coordinator, _certify(coordinator, again))) is (
        Standing.ACTIVE
    )


def test_one_certificate_of_a_workload_is_revoked_without_its_agent(coordinator: ScratchCoordinator) -> None:
    agent = coordinator.enroll("site-a")
    serial = _serial(coordinator, _certify(coordinator, agent))
    (event,) = coordinator.as_operator().revoke(
        RevocationTarget(serial=serial), reason=RevocationReason.KEY_COMPROMISE
    )
    assert (event.subject, event.identity_wide) == (workload_of(SITE), False)
    _certify(coordinator, agent)


def test_what_is_said_of_a_workload_is_read_by_its_agent_and_by_no_other_site(
    coordinator: ScratchCoordinator,
) -> None:
    serial = _serial(coordinator, _certify(coordinator, coordinator.enroll("site-a")))
    other = coordinator.enroll("site-b")
    (event,) = coordinator.as_operator().revoke(
        RevocationTarget(serial=serial), reason=RevocationReason.SUPERSEDED
    )
    assert as_read_by(SITE, event) is event
    assert as_read_by(other.spiffe_id, event).kind is EventKind.REDACTED


def test_a_workload_calls_nothing(coordinator: ScratchCoordinator) -> None:
    signer = generate()
    issued = coordinator.session(coordinator.enroll("site-a")).certify_workload(create_csr(signer))
    workload = ScratchIdentity(
        Credentials.verified(
            signer, issued.chain_der, bundle=coordinator.bundle, expect=None, clock=coordinator.clock
        )
    )
    session = coordinator.session(workload)
    for call in (session.bundle, lambda: session.renew(b""), lambda: session.certify_workload(b"")):
        with pytest.raises(FltrustError):
            call()


def test_the_name_of_a_site_does_not_reach_the_public_log_by_its_workload() -> None:
    naming = PublicNaming(b"\x07" * 32)
    public = naming.of(workload_of(SITE))
    assert public.is_pseudonym
    assert naming.has_pseudonym(workload_of(SITE))
    assert public != naming.of(SITE)
