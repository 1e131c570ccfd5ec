"""The SPIFFE Workload API: X.509-SVIDs and bundles, now and whenever they change.

The JWT-SVID profile is UNIMPLEMENTED: nothing here issues JWTs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import grpc
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from google.protobuf.message import Message

from fltrust.agent.workloads.calls import Context, Route, answering, changes
from fltrust.agent.workloads.keeper import Served, WorkloadKeeper
from fltrust.pki.types import TrustBundle
from fltrust.wire.pb.spiffe import workload_pb2 as pb

SERVICE = "/SpiffeWorkloadAPI"
SECURITY_HEADER = ("workload.spiffe.io", "true")
"""On every call (SPIFFE Workload Endpoint, section 4): what is talked into a forged request cannot set it."""

_JWT_METHODS = {
    "FetchJWTSVID": pb.JWTSVIDRequest,
    "FetchJWTBundles": pb.JWTBundlesRequest,
    "ValidateJWTSVID": pb.ValidateJWTSVIDRequest,
}


def spiffe_routes(keeper: WorkloadKeeper) -> dict[str, Route]:
    """The five methods of the Workload API, by full name."""
    return {
        f"{SERVICE}/FetchX509SVID": _stream(keeper, pb.X509SVIDRequest, svid_response),
        f"{SERVICE}/FetchX509Bundles": _stream(keeper, pb.X509BundlesRequest, bundles_response),
        **{f"{SERVICE}/{name}": _unimplemented(name, kind) for name, kind in _JWT_METHODS.items()},
    }


def svid_response(served: Served) -> pb.X509SVIDResponse:
    """The one identity of this workload, with its key, and every bundle."""
    credentials = served.credentials
    key = load_pem_private_key(credentials.key_pem, password=None)
    svid = pb.X509SVID(
        spiffe_id=str(credentials.spiffe_id),
        x509_svid=b"".join(credentials.chain_der),
        x509_svid_key=key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
        bundle=_roots(served.bundle),
    )
    return pb.X509SVIDResponse(svids=[svid], federated_bundles=_by_domain(served.foreign))


def bundles_response(served: Served) -> pb.X509BundlesResponse:
    """Our bundle and those of foreign domains."""
    return pb.X509BundlesResponse(bundles=_by_domain((served.bundle, *served.foreign)))


def _stream(keeper: WorkloadKeeper, request: type[Message], answer: Callable[[Served], Message]) -> Route:
    def serve(_requests: Iterator[bytes], context: Context) -> Iterator[bytes]:
        _require_header(context)
        last: bytes | None = None
        for served in changes(keeper, context):
            made = answer(served).SerializeToString(deterministic=True)
            if made != last:  # a new certificate is no news to who asked for bundles alone
                last = made
                yield made

    return answering(request, serve)


def _unimplemented(name: str, request: type[Message]) -> Route:
    def serve(_requests: Iterator[bytes], context: Context) -> Iterator[bytes]:
        _require_header(context)
        context.abort(grpc.StatusCode.UNIMPLEMENTED, f"{name}: only X.509-SVIDs are issued here")
        yield b""

    return answering(request, serve)


def _require_header(context: Context) -> None:
    name, wanted = SECURITY_HEADER
    found = [value for key, value in context.invocation_metadata() or () if key == name]
    if found != [wanted]:
        context.abort(
            grpc.StatusCode.INVALID_ARGUMENT, f"expected the metadata {name}: {wanted} on every call"
        )


def _by_domain(bundles: tuple[TrustBundle, ...]) -> dict[str, bytes]:
    return {f"spiffe://{bundle.domain}": _roots(bundle) for bundle in bundles}


def _roots(bundle: TrustBundle) -> bytes:
    return b"".join(root.public_bytes(Encoding.DER) for root in bundle.roots)
