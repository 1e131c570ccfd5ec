from __future__ import annotations

import threading

import pytest
from authority_world import DOMAIN
from google.protobuf.descriptor import FileDescriptor

from fltrust.coordinator.counters import Counters
from fltrust.coordinator.permissions import BOOTSTRAP_METHODS, METHODS, check_permission
from fltrust.errors import PermissionDenied, TokenRefused
from fltrust.identity import Role, SpiffeId
from fltrust.wire.pb import (
    artifacts_pb2,
    credentials_pb2,
    enrollment_pb2,
    federation_pb2,
    operations_pb2,
    requests_pb2,
    rounds_pb2,
    trust_pb2,
)

PARTICIPANT = SpiffeId.of(DOMAIN, Role.PARTICIPANT, "site-a")
AGGREGATOR = SpiffeId.of(DOMAIN, Role.AGGREGATOR, "main")
SIGNER = SpiffeId.of(DOMAIN, Role.SIGNER, "release")
OPERATOR = SpiffeId.of(DOMAIN, Role.OPERATOR, "root")
COORDINATOR = SpiffeId.of(DOMAIN, Role.COORDINATOR)


def _methods_of(file: FileDescriptor) -> set[str]:
    return {
        f"/{service.full_name}/{method.name}"
        for service in file.services_by_name.values()
        for method in service.methods
    }


def _allowed(who: SpiffeId) -> set[str]:
    allowed = set()
    for method in METHODS:
        try:
            check_permission(who, method)
        except PermissionDenied:
            continue
        allowed.add(method.rpartition("/")[2])
    return allowed


def test_every_method_of_the_protocol_is_in_the_table_and_nothing_else() -> None:
    files = (
        credentials_pb2,
        operations_pb2,
        requests_pb2,
        artifacts_pb2,
        enrollment_pb2,
        federation_pb2,
        rounds_pb2,
        trust_pb2,
    )
    spoken = set().union(*(_methods_of(pb.DESCRIPTOR) for pb in files))
    assert set(METHODS) | BOOTSTRAP_METHODS == spoken


def test_each_role_may_call_exactly_what_it_needs() -> None:
    everyone = {"Renew", "Watch", "GetBundle", "GetTrust"}
    signers = {"CertifySigner", "Countersign", "FindLineage"}
    assert _allowed(PARTICIPANT) == everyone | {"CertifyWorkload", "ListForeignDomains"}
    assert _allowed(SIGNER) == everyone | signers
    assert _allowed(AGGREGATOR) == everyone | signers | {
        "CertifyWorkload",
        "ListForeignDomains",
        "DescribeRound",
        "ListParticipants",
        "OpenRound",
        "SealRound",
        "CloseRun",
        "ListRounds",
        "GetRound",
        "ProveRounds",
    }
    assert _allowed(OPERATOR) == {m.rpartition("/")[2] for m in METHODS} - {
        "OpenRound",
        "SealRound",
        "DescribeRound",
        "CertifySigner",
        "Countersign",
        "CertifyWorkload",
    }
    assert _allowed(COORDINATOR) == set()


def test_an_identity_of_a_foreign_domain_may_watch_and_nothing_else() -> None:
    for role in Role:
        who = SpiffeId.of("clinic.example", role, None if role is Role.COORDINATOR else "x")
        allowed = set()
        for method in METHODS:
            try:
                check_permission(who, method, home=PARTICIPANT.domain)
            except PermissionDenied:
                continue
            allowed.add(method.rpartition("/")[2])
        may_watch = role in (Role.PARTICIPANT, Role.COORDINATOR)
        assert allowed == ({"Watch", "GetBundle"} if may_watch else set())


def test_a_method_that_is_not_in_the_table_is_denied_to_everybody() -> None:
    for who in (PARTICIPANT, AGGREGATOR, SIGNER, OPERATOR, COORDINATOR):
        for method in ("/fltrust.v1.RoundService/DeleteRound", "", "/fltrust.v1.EnrollmentService/Enroll"):
            with pytest.raises(PermissionDenied, match="nobody"):
                check_permission(who, method)


def test_counters_count_from_many_threads_and_pass_errors_on() -> None:
    counters = Counters()

    def refuse() -> None:
        for _ in range(200):
            with pytest.raises(TokenRefused), counters.refusals():
                raise TokenRefused("no", reason="token-used")

    threads = [threading.Thread(target=refuse) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counters.add("updates.admitted", 3)
    assert dict(counters.snapshot()) == {"refused.token-used": 800, "updates.admitted": 3}
    assert counters.get("never") == 0
