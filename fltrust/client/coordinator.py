"""The coordinator, as one caller sees it over gRPC: every port that it serves, in one object."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Self

import grpc

from fltrust.artifacts.ports import BlastRadius, EntryKind, RoundFacts, StepOfRun
from fltrust.client.calls import Caller, ClientSettings, as_is
from fltrust.client.channel import ChannelSource
from fltrust.client.registrar import RegistrarClient
from fltrust.enrollment.mackeys import MacCredential, MacPurpose
from fltrust.enrollment.token import decode_token
from fltrust.enrollment.types import Enrollment, Issued, JoinToken, TokenRecord
from fltrust.errors import CoordinatorUnavailable
from fltrust.identity import Digest, Epoch, Name, Role, RunId, SpiffeId, TrustDomain
from fltrust.pki.types import TrustBundle
from fltrust.revocation.events import FeedItem, RevocationReason, TrustEvent
from fltrust.revocation.ports import RevocationTarget
from fltrust.rounds.logged import LogEvidence
from fltrust.rounds.types import Candidate, CohortMember, Opened, RoundKey, RoundRecord
from fltrust.wire import artifacts as artifacts_codec
from fltrust.wire import credentials as credentials_codec
from fltrust.wire import enrollment as enrollment_codec
from fltrust.wire import methods
from fltrust.wire import rounds as rounds_codec
from fltrust.wire import trust as trust_codec
from fltrust.wire.artifacts import AuditQuery
from fltrust.wire.errors import error_from_call
from fltrust.wire.federation import ShownDomain, domains_from_pb
from fltrust.wire.pb import (
    artifacts_pb2,
    credentials_pb2,
    enrollment_pb2,
    federation_pb2,
    rounds_pb2,
    trust_pb2,
)
from fltrust.wire.tls import TlsMaterial
from fltrust.wire.values import parse, present


class CoordinatorClient(RegistrarClient):
    """`Registrar.renew`, `TokenDesk`, `ParticipantDirectory`, `TrustFeed`, `Revoker`, `RoundAuthority`,
    `RoundArchive`, `SigningDesk` and `LineageArchive`, over mTLS to `address` (``host:port``) as the
    identity of the credentials.

    `credentials` is asked before every call: after a rotation the next call uses the new certificate.
    Safe to use from many threads. Every call has a deadline and raises `CoordinatorUnavailable` when
    there is no answer; a refusal is raised as the error that the coordinator refused with.
    """

    def __init__(
        self,
        address: str,
        credentials: Callable[[], TlsMaterial],
        domain: TrustDomain,
        *,
        settings: ClientSettings | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._channels = ChannelSource(address, credentials, domain=domain)
        self._caller = Caller(self._channels, settings or ClientSettings(), rng=rng or random.SystemRandom())

    def close(self) -> None:
        """End every call and watch."""
        self._channels.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Enrollment.

    def renew(self, csr_der: bytes) -> Issued:
        """Not repeated when the answer is lost: ask again with a new key."""
        request = enrollment_pb2.RenewRequest(csr=csr_der)
        answer = self._caller.unary(methods.RENEW, request, enrollment_pb2.RenewResponse, is_idempotent=False)
        present(answer, "issued")
        return enrollment_codec.issued_from_pb(answer.issued)

    def certify_workload(self, csr_der: bytes) -> Issued:
        """Not repeated when the answer is lost: ask again with a new key."""
        answer = self._caller.unary(
            methods.CERTIFY_WORKLOAD,
            enrollment_pb2.CertifyWorkloadRequest(csr=csr_der),
            enrollment_pb2.CertifyWorkloadResponse,
            is_idempotent=False,
        )
        present(answer, "issued")
        return enrollment_codec.issued_from_pb(answer.issued)

    def get_bundle(self) -> TrustBundle:
        answer = self._caller.unary(
            methods.GET_BUNDLE,
            trust_pb2.GetBundleRequest(),
            trust_pb2.GetBundleResponse,
            is_idempotent=True,
        )
        present(answer, "bundle")
        return enrollment_codec.bundle_from_pb(answer.bundle)

    def create_token(
        self,
        role: Role,
        name: Name,
        *,
        ttl: timedelta,
        replace: bool = False,
        dns_names: tuple[str, ...] = (),
    ) -> JoinToken:
        request = enrollment_codec.create_token_request_to_pb(
            role, name, ttl=ttl, replace=replace, dns_names=dns_names
        )
        answer = self._caller.unary(
            methods.CREATE_TOKEN, request, enrollment_pb2.CreateTokenResponse, is_idempotent=False
        )
        return decode_token(answer.token)

    def create_credential(
        self,
        purpose: MacPurpose,
        role: Role,
        name: Name,
        *,
        ttl: timedelta,
        replace: bool = False,
        dns_names: tuple[str, ...] = (),
    ) -> MacCredential:
        request = credentials_codec.create_request_to_pb(
            purpose, role, name, ttl=ttl, replace=replace, dns_names=dns_names
        )
        answer = self._caller.unary(
            methods.CREATE_CREDENTIAL, request, credentials_pb2.CreateCredentialResponse, is_idempotent=False
        )
        return credentials_codec.credential_from_pb(answer)

    def list_tokens(self) -> tuple[TokenRecord, ...]:
        answer = self._caller.unary(
            methods.LIST_TOKENS,
            enrollment_pb2.ListTokensRequest(),
            enrollment_pb2.ListTokensResponse,
            is_idempotent=True,
        )
        return tuple(enrollment_codec.token_record_from_pb(t) for t in answer.tokens)

    def cancel_token(self, token_id: str) -> TokenRecord:
        answer = self._caller.unary(
            methods.CANCEL_TOKEN,
            enrollment_pb2.CancelTokenRequest(token_id=token_id),
            enrollment_pb2.CancelTokenResponse,
            is_idempotent=False,
        )
        present(answer, "token")
        return enrollment_codec.token_record_from_pb(answer.token)

    def list_enrollments(self) -> tuple[Enrollment, ...]:
        answer = self._caller.unary(
            methods.LIST_PARTICIPANTS,
            enrollment_pb2.ListParticipantsRequest(),
            enrollment_pb2.ListParticipantsResponse,
            is_idempotent=True,
        )
        return tuple(enrollment_codec.participant_from_pb(p) for p in answer.participants)

    def get_enrollment(self, who: SpiffeId) -> Enrollment:
        answer = self._caller.unary(
            methods.GET_PARTICIPANT,
            enrollment_pb2.GetParticipantRequest(spiffe_id=str(who)),
            enrollment_pb2.GetParticipantResponse,
            is_idempotent=True,
        )
        present(answer, "participant")
        return enrollment_codec.participant_from_pb(answer.participant)

    # Trust.

    def watch(self, after: Epoch) -> Watch:
        """Follow the feed; `Watch.close` ends it from any thread."""
        return Watch(self._channels, after)

    def revoke(
        self,
        target: RevocationTarget,
        *,
        reason: RevocationReason,
        compromised_since: datetime | None = None,
    ) -> tuple[TrustEvent, ...]:
        request = trust_codec.revoke_request_to_pb(target, reason=reason, compromised_since=compromised_since)
        answer = self._caller.unary(methods.REVOKE, request, trust_pb2.RevokeResponse, is_idempotent=False)
        return tuple(trust_codec.event_from_pb(e) for e in answer.events)

    def hold(self, target: RevocationTarget, *, reason: RevocationReason) -> tuple[TrustEvent, ...]:
        request = trust_pb2.HoldRequest(target=trust_codec.target_to_pb(target), reason=reason)
        answer = self._caller.unary(methods.HOLD, request, trust_pb2.HoldResponse, is_idempotent=False)
        return tuple(trust_codec.event_from_pb(e) for e in answer.events)

    def release(self, target: RevocationTarget) -> tuple[TrustEvent, ...]:
        request = trust_pb2.ReleaseRequest(target=trust_codec.target_to_pb(target))
        answer = self._caller.unary(methods.RELEASE, request, trust_pb2.ReleaseResponse, is_idempotent=False)
        return tuple(trust_codec.event_from_pb(e) for e in answer.events)

    # Rounds.

    def open_round(self, key: RoundKey, cohort: tuple[CohortMember, ...]) -> Opened:
        request = rounds_codec.open_request_to_pb(key, cohort)
        answer = self._caller.unary(
            methods.OPEN_ROUND, request, rounds_pb2.OpenRoundResponse, is_idempotent=False
        )
        return rounds_codec.opened_from_pb(answer)

    def seal_round(
        self, key: RoundKey, candidates: tuple[Candidate, ...], refused: tuple[tuple[SpiffeId, str], ...]
    ) -> bytes:
        """Repeated when the answer is lost: the same seal gives the same receipt."""

        def chunks() -> Iterator[bytes]:
            for chunk in rounds_codec.seal_chunks(key, candidates, refused):
                yield chunk.SerializeToString()

        answer = self._caller.streamed(
            methods.SEAL_ROUND, chunks, rounds_pb2.SealRoundResponse, is_idempotent=True
        )
        return rounds_codec.seal_response_from_pb(answer)

    def close_run(self, run_id: RunId) -> None:
        request = rounds_pb2.CloseRunRequest(run_id=run_id)
        self._caller.unary(methods.CLOSE_RUN, request, rounds_pb2.CloseRunResponse, is_idempotent=True)

    def list_rounds(self, run_id: RunId | None = None) -> tuple[RoundRecord, ...]:
        request = rounds_pb2.ListRoundsRequest(run_id=run_id)
        answer = self._caller.unary(
            methods.LIST_ROUNDS, request, rounds_pb2.ListRoundsResponse, is_idempotent=True
        )
        return tuple(rounds_codec.record_from_pb(r) for r in answer.rounds)

    def get_round(self, run_id: RunId, step: int) -> RoundRecord:
        request = rounds_pb2.GetRoundRequest(run_id=run_id, step=step)
        answer = self._caller.unary(
            methods.GET_ROUND, request, rounds_pb2.GetRoundResponse, is_idempotent=True
        )
        present(answer, "round")
        return rounds_codec.record_from_pb(answer.round)

    def prove_rounds(self, run_id: RunId) -> LogEvidence:
        request = rounds_pb2.ProveRoundsRequest(run_id=run_id)
        return rounds_codec.evidence_from_pb(
            self._caller.answers(methods.PROVE_ROUNDS, request, rounds_pb2.ProveRoundsResponse)
        )

    # Signing and lineage.

    def certify_signer(self, csr_der: bytes) -> tuple[bytes, ...]:
        """Not repeated when the answer is lost: ask again with a new key."""
        answer = self._caller.unary(
            methods.CERTIFY_SIGNER,
            artifacts_pb2.CertifySignerRequest(csr=csr_der),
            artifacts_pb2.CertifySignerResponse,
            is_idempotent=False,
        )
        return artifacts_codec.chain_from_pb(answer)

    def countersign(
        self, envelope: bytes, certificate: bytes, *, entry_kind: EntryKind = EntryKind.HASHEDREKORD
    ) -> bytes:
        """Repeated when the answer is lost: the same envelope gives the same bundle."""
        answer = self._caller.unary(
            methods.COUNTERSIGN,
            artifacts_codec.countersign_request_to_pb(envelope, certificate, entry_kind),
            artifacts_pb2.CountersignResponse,
            is_idempotent=True,
            timeout=self._caller.settings.seal_timeout,
        )
        return artifacts_codec.countersign_response_from_pb(answer)

    def describe_round(self, run_id: RunId, step: int) -> RoundFacts:
        answer = self._caller.unary(
            methods.DESCRIBE_ROUND,
            artifacts_pb2.DescribeRoundRequest(run_id=run_id, step=step),
            artifacts_pb2.DescribeRoundResponse,
            is_idempotent=True,
        )
        return artifacts_codec.facts_from_pb(answer)

    def find_lineage(self, query: Digest | StepOfRun) -> Iterator[bytes]:
        """Yield the bundles as they come; `NotFound` is raised when the first is asked for."""
        request = artifacts_codec.lineage_request_to_pb(query)
        for answer in self._caller.answers(methods.FIND_LINEAGE, request, artifacts_pb2.FindLineageResponse):
            yield artifacts_codec.lineage_response_from_pb(answer)

    def blast_radius(self, who: SpiffeId, since: datetime) -> BlastRadius:
        answer = self._caller.unary(
            methods.BLAST_RADIUS,
            artifacts_codec.blast_request_to_pb(who, since),
            artifacts_pb2.BlastRadiusResponse,
            is_idempotent=True,
            timeout=self._caller.settings.seal_timeout,
        )
        return artifacts_codec.blast_from_pb(answer, who=who, since=since)

    def trust_file(self) -> bytes:
        answer = self._caller.unary(
            methods.GET_TRUST,
            artifacts_pb2.GetTrustRequest(),
            artifacts_pb2.GetTrustResponse,
            is_idempotent=True,
        )
        return artifacts_codec.trust_response_from_pb(answer)

    def list_foreign(self) -> tuple[ShownDomain, ...]:
        """The foreign domains that this caller may know of."""
        answer = self._caller.unary(
            methods.LIST_FOREIGN_DOMAINS,
            federation_pb2.ListForeignDomainsRequest(),
            federation_pb2.ListForeignDomainsResponse,
            is_idempotent=True,
        )
        return domains_from_pb(answer)

    def audit(self, query: AuditQuery) -> Iterator[bytes]:
        """Yield the log's entries that the query asks for, each as JSON with its proof, in their order."""
        request = artifacts_codec.audit_request_to_pb(query)
        for answer in self._caller.answers(methods.AUDIT, request, artifacts_pb2.AuditResponse):
            yield artifacts_codec.audit_response_from_pb(answer)


class Watch(Iterator[FeedItem]):
    """One open watch: blocks for the next item; ends when either side closes it.

    `close` may be called from any thread and wakes a blocked `next`.
    """

    def __init__(self, channels: ChannelSource, after: Epoch) -> None:
        self._lock = threading.Lock()
        self._is_closed = False
        self._stack = ExitStack()
        channel = self._stack.enter_context(channels.lease())
        request = trust_pb2.WatchRequest(after_epoch=after).SerializeToString()
        try:
            self._call: Any = channel.unary_stream(methods.WATCH, as_is, as_is)(request)
        except BaseException:
            self._stack.close()
            raise

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> FeedItem:
        try:
            data = next(self._call)
            return trust_codec.item_from_pb(parse(trust_pb2.WatchResponse, data))
        except StopIteration:
            self.close()
            raise
        except grpc.RpcError as error:
            was_closed = self._is_closed
            self.close()
            if was_closed:
                raise StopIteration from None
            raise error_from_call(error) from None
        except ValueError as error:  # the channel was closed under us
            self.close()
            raise CoordinatorUnavailable(f"the watch was cut: {error}") from None
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the watch. Idempotent."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
        self._call.cancel()
        self._stack.close()
