"""The receipt of a sealed round: what the coordinator signs when it has decided."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar, Self

from fltrust import strictjson
from fltrust.clock import to_rfc3339
from fltrust.errors import Malformed, Oversized
from fltrust.identity import Digest, Epoch, KeyId, NodeId, Role, RunId, SpiffeId, TrustDomain
from fltrust.strictjson import Fields
from fltrust.updates.digest import CONTENT_ALGORITHM
from fltrust.updates.intoto import (
    MAX_SEALED_PAYLOAD_BYTES,
    SEALED_ROUND_PREDICATE,
    SHA256,
    Phase,
    check_count,
    check_digest,
    check_identity,
    check_participant,
    check_same,
    check_times,
    decode,
    encode,
)

MAX_COHORT = 10_000
"""Admitted and refused entries of one sealed round, each."""

_REASON = re.compile(r"[a-z0-9-]{1,64}\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmittedUpdate:
    """One update that a round admits; `update` is the SHA-256 of its statement's payload."""

    participant: SpiffeId
    node_id: NodeId
    update: Digest
    content: Digest
    certificate: Digest

    def __post_init__(self) -> None:
        check_digest(self.update, SHA256, "update")
        check_digest(self.content, CONTENT_ALGORITHM, "content")
        check_digest(self.certificate, SHA256, "certificate")


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedRoundStatement:
    """The coordinator's receipt: what one round admitted and refused, at which epoch.

    `index` is the position of the round's entry in the coordinator's transparency log, `root` the RFC
    6962 root of the tree of the entries before it (none at 0), and `log` the id of the key that signs the
    log's checkpoints. A participant is admitted at most once.
    """

    predicate_type: ClassVar[str] = SEALED_ROUND_PREDICATE

    domain: TrustDomain
    index: int
    root: Digest | None
    log: KeyId
    run_id: RunId
    round: int
    phase: Phase
    step: int
    epoch: Epoch
    opened_at: datetime
    sealed_at: datetime
    aggregator: SpiffeId
    admitted: tuple[AdmittedUpdate, ...]
    refused: tuple[tuple[SpiffeId, str], ...]
    certificate: Digest

    def __post_init__(self) -> None:
        check_count(self.round, "round")
        check_count(self.step, "step")
        if not 0 <= self.index < 2**63 or (self.index == 0) != (self.root is None):
            raise Malformed(f"expected a root for every index but 0, got index {self.index}")
        if self.root is not None:
            check_digest(self.root, SHA256, "root")
        check_digest(self.certificate, SHA256, "certificate")
        check_identity(self.aggregator, Role.AGGREGATOR, self.domain)
        check_times(self.opened_at, self.sealed_at)
        if max(len(self.admitted), len(self.refused)) > MAX_COHORT:
            raise Oversized(f"expected at most {MAX_COHORT} participants in a sealed round")
        for who in (*(entry.participant for entry in self.admitted), *(who for who, _ in self.refused)):
            check_participant(who)
        if len({entry.participant for entry in self.admitted}) != len(self.admitted):
            raise Malformed("expected each participant admitted once in a sealed round")
        if not all(_REASON.match(reason) for _, reason in self.refused):
            raise Malformed("expected refusal reasons such as 'revoked' in a sealed round")

    @property
    def signer(self) -> SpiffeId:
        return SpiffeId(self.domain, Role.COORDINATOR, None)

    @property
    def claimed_at(self) -> datetime:
        """When the signer says that it signed."""
        return self.sealed_at

    def to_payload(self) -> bytes:
        """The bytes to sign."""
        predicate: dict[str, object] = {
            "domain": self.domain,
            "index": str(self.index),
            "root": None if self.root is None else str(self.root),
            "log": self.log,
            "runId": str(int(self.run_id)),
            "round": self.round,
            "phase": self.phase,
            "step": self.step,
            "epoch": str(int(self.epoch)),
            "openedAt": to_rfc3339(self.opened_at),
            "sealedAt": to_rfc3339(self.sealed_at),
            "aggregator": str(self.aggregator),
            "admitted": [
                {
                    "participant": str(entry.participant),
                    "nodeId": str(int(entry.node_id)),
                    "update": str(entry.update),
                    "content": str(entry.content),
                    "certificate": str(entry.certificate),
                }
                for entry in self.admitted
            ],
            "refused": [{"participant": str(who), "reason": reason} for who, reason in self.refused],
            "certificate": str(self.certificate),
        }
        subject = Digest.sha256_of(strictjson.encode(predicate))
        return encode(self.predicate_type, f"round/{self.domain}/{self.index}", subject, predicate)

    @classmethod
    def from_payload(cls, payload: bytes) -> Self:
        """Read what `to_payload` writes; raises `Oversized`, `Malformed` or `StatementRefused`."""
        _, fields = decode(payload, cls.predicate_type, limit=MAX_SEALED_PAYLOAD_BYTES)
        statement = cls(
            domain=fields.domain("domain"),
            index=fields.decimal("index", bits=63),
            root=fields.optional_digest("root"),
            log=fields.key_id("log"),
            run_id=RunId(fields.decimal("runId", bits=64)),
            round=fields.number("round"),
            phase=fields.choice("phase", Phase),
            step=fields.number("step"),
            epoch=Epoch(fields.decimal("epoch", bits=63)),
            opened_at=fields.time("openedAt"),
            sealed_at=fields.time("sealedAt"),
            aggregator=fields.spiffe_id("aggregator"),
            admitted=tuple(map(_admitted, fields.objects("admitted", limit=MAX_COHORT))),
            refused=tuple(
                (entry.spiffe_id("participant"), entry.text("reason", limit=64))
                for entry in fields.objects("refused", limit=MAX_COHORT)
            ),
            certificate=fields.digest("certificate"),
        )
        fields.done()
        check_same(statement.to_payload(), payload)
        return statement


def _admitted(entry: Fields) -> AdmittedUpdate:
    return AdmittedUpdate(
        participant=entry.spiffe_id("participant"),
        node_id=NodeId(entry.decimal("nodeId", bits=64)),
        update=entry.digest("update"),
        content=entry.digest("content"),
        certificate=entry.digest("certificate"),
    )
