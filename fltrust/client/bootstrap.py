"""The first words of a site that has no certificate yet.

The join token carries the root certificate, so the first handshake is verified against it and
against the name that only this domain's coordinator has: the secret is sent to nobody else.
"""

from __future__ import annotations

import hmac

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from fltrust.client.calls import as_is
from fltrust.client.channel import coordinator_of, open_bootstrap_channel
from fltrust.enrollment.tpm import TpmChallenge, TpmIntroduction
from fltrust.enrollment.types import EnrollRequest, Issued, JoinToken, Pending
from fltrust.errors import ApprovalPending, CertificateRefused, CoordinatorUnavailable, Malformed
from fltrust.pki.bundle import make_bundle
from fltrust.pki.issuing import domain_of_ca
from fltrust.pki.types import TrustBundle
from fltrust.wire import enrollment as codec
from fltrust.wire import methods
from fltrust.wire import requests as requests_codec
from fltrust.wire import tpm as tpm_codec
from fltrust.wire.errors import error_from_call
from fltrust.wire.pb import enrollment_pb2, trust_pb2
from fltrust.wire.values import parse, present

DEFAULT_TIMEOUT = 30.0
"""Seconds for the whole exchange."""


def bundle_of_token(token: JoinToken) -> TrustBundle:
    """The trust bundle that a join token carries: its one root. `Malformed` if it is not a CA's."""
    try:
        root = x509.load_der_x509_certificate(token.root_der)
    except (ValueError, TypeError):
        raise Malformed("expected a root certificate in the join token, found something else") from None
    return make_bundle(domain_of_ca(root), [root])


def enroll(token: JoinToken, request: EnrollRequest, *, timeout: float = DEFAULT_TIMEOUT) -> Issued:
    """Enroll at the token's coordinator; what is returned leads to the token's root or is refused.

    1. TLS 1.3 to `token.bootstrap`; only the coordinator of the root's domain can answer.
    2. The request, with the secret, is sent once: it is never repeated, since a token is spent once.
    3. The bundle that comes back holds the token's root, else `CertificateRefused`.

    The caller verifies the certificate itself, against its own key and clock. Raises what the
    coordinator refused with (`TokenRefused`, `Malformed`, `Conflict`, `Revoked`), or
    `CoordinatorUnavailable`; `ApprovalPending` where operators decide: see `collect`.
    """
    pinned = bundle_of_token(token)
    message = codec.enroll_request_to_pb(request)
    answer = _call(token, pinned, methods.ENROLL, message.SerializeToString(), timeout)  # 1, 2
    return _outcome(parse(enrollment_pb2.EnrollResponse, answer), token)  # 3


def collect(token: JoinToken, request_id: str, csr_der: bytes, *, timeout: float = DEFAULT_TIMEOUT) -> Issued:
    """What became of a request that operators decide, asked with the key that it was made for.

    May be repeated: what was issued is handed out again. Raises `ApprovalPending` while they have yet to
    decide, `RequestDenied` once they denied it or time ran out. Nothing of the token is sent.
    """
    message = enrollment_pb2.CollectRequest(request_id=request_id, csr=csr_der)
    answer = _call(token, bundle_of_token(token), methods.COLLECT, message.SerializeToString(), timeout)
    return _outcome(parse(enrollment_pb2.CollectResponse, answer), token)


def challenge_tpm(
    token: JoinToken, introduction: TpmIntroduction, *, timeout: float = DEFAULT_TIMEOUT
) -> TpmChallenge:
    """Show a TPM's endorsement to the token's coordinator and get what only that TPM can read."""
    message = tpm_codec.introduction_to_pb(introduction)
    pinned = bundle_of_token(token)
    answer = _call(token, pinned, methods.CHALLENGE_TPM, message.SerializeToString(), timeout)
    return tpm_codec.challenge_from_pb(parse(enrollment_pb2.ChallengeTpmResponse, answer))


def _outcome(
    response: enrollment_pb2.EnrollResponse | enrollment_pb2.CollectResponse, token: JoinToken
) -> Issued:
    outcome = requests_codec.outcome_from_pb(response)
    if isinstance(outcome, Pending):
        raise ApprovalPending(
            f"the request {outcome.request_id} was taken and waits for operators to approve it",
            hint="when operators have decided: fltrust collect",
            request_id=outcome.request_id,
            retry_after=outcome.retry_after.total_seconds(),
        )
    _check_root(outcome.bundle, token)
    return outcome


def fetch_bundle(token: JoinToken, *, timeout: float = DEFAULT_TIMEOUT) -> TrustBundle:
    """The trust bundle of the token's coordinator, as it stands now. Nothing of the token is sent."""
    pinned = bundle_of_token(token)
    answer = _call(token, pinned, methods.GET_BUNDLE, b"", timeout)
    response = parse(trust_pb2.GetBundleResponse, answer)
    present(response, "bundle")
    bundle = codec.bundle_from_pb(response.bundle)
    _check_root(bundle, token)
    return bundle


def _call(token: JoinToken, pinned: TrustBundle, method: str, request: bytes, timeout: float) -> bytes:
    expect = coordinator_of(pinned.domain)
    with open_bootstrap_channel(token.bootstrap, pinned, expect=expect) as channel:
        try:
            answer: bytes = channel.unary_unary(method, as_is, as_is)(request, timeout=timeout)
        except grpc.RpcError as error:
            failed = error_from_call(error)
            if failed.hint is None and isinstance(failed, CoordinatorUnavailable):
                failed.hint = f"is the coordinator of {pinned.domain} reachable at {token.bootstrap}?"
            raise failed from None
    return answer


def _check_root(bundle: TrustBundle, token: JoinToken) -> None:
    roots = [root.public_bytes(Encoding.DER) for root in bundle.roots]
    if not any(hmac.compare_digest(der, token.root_der) for der in roots):
        raise CertificateRefused(
            f"expected the root {token.root} in the bundle of {bundle.domain}, it is not there",
            hint="was the domain's root replaced? ask its operator for a new token",
        )
