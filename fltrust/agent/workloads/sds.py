"""Envoy's secret discovery service (SDS, "state of the world"): the workload's certificate and what to trust.

    default, or the workload's SPIFFE ID    its certificate and key
    ROOTCA, or spiffe://<our domain>        the roots of our domain
    spiffe://<a foreign domain>             the roots of a domain that ours federates with
    ALL                                     every domain's roots, for Envoy's SPIFFE validator: the trust
                                            domain in the peer's certificate selects the roots

The names are those that SPIRE's agent answers to, so that Envoy's configuration is the same. Only
StreamSecrets is served. A name that is not known ends the stream with an error: Envoy says so in its log,
and asks again.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Iterator
from enum import Enum
from typing import TypeAlias

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError, Message

from fltrust.agent.workloads.calls import FIRST_WAIT, Context, Route, refusing, streaming
from fltrust.agent.workloads.keeper import Served, WorkloadKeeper
from fltrust.errors import AgentUnavailable, Malformed, Oversized, Refusal
from fltrust.pki.bundle import bundle_to_pem
from fltrust.pki.types import TrustBundle
from fltrust.wire.pb.envoy import core_pb2, discovery_pb2, tls_pb2

METHOD = "/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets"
TYPE_URL = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
MAX_NAMES = 64
_MAX_WORDS = 300
_WATCH_TICK = 30.0
_SPIFFE_VALIDATOR = "envoy.tls.cert_validator.spiffe"

_log = logging.getLogger("fltrust.agent")


def sds_routes(keeper: WorkloadKeeper) -> dict[str, Route]:
    """StreamSecrets, by its full name."""

    def serve(requests: Iterator[bytes], context: Context) -> Iterator[bytes]:
        yield from refusing(_Stream(keeper, requests, context).answers(), context)

    return {METHOD: streaming(serve)}


def secret(name: str, served: Served) -> tls_pb2.Secret:
    """The secret of this name; `Malformed` (``unknown-name``) where there is none."""
    credentials, own = served.credentials, served.bundle
    if name in ("default", str(credentials.spiffe_id)):
        return tls_pb2.Secret(
            name=name,
            tls_certificate=tls_pb2.TlsCertificate(
                certificate_chain=_inline(credentials.chain_pem), private_key=_inline(credentials.key_pem)
            ),
        )
    if name == "ALL":
        return tls_pb2.Secret(name=name, validation_context=_spiffe_validation((own, *served.foreign)))
    roots = {f"spiffe://{bundle.domain}": bundle for bundle in (own, *served.foreign)} | {"ROOTCA": own}
    if name not in roots:
        raise Malformed(
            f"expected the name of a secret that is served here, got {name[:80]!r}",
            reason="unknown-name",
            hint=f"there are default, ROOTCA, ALL, {credentials.spiffe_id}, spiffe://{own.domain}",
        )
    trusted = _inline(bundle_to_pem(roots[name]))
    return tls_pb2.Secret(
        name=name, validation_context=tls_pb2.CertificateValidationContext(trusted_ca=trusted)
    )


class _Word(Enum):
    CHANGED = "changed"
    ENDED = "ended"


_Asked: TypeAlias = discovery_pb2.DiscoveryRequest | Exception | _Word


class _Stream:
    """One stream: a thread reads what Envoy asks for and takes, this one answers and tells of changes.

    1. A request is for secrets (``unknown-type`` otherwise), of at most `MAX_NAMES` names.
    2. One that answers our last response says whether it was taken; a refusal is logged, and the same version
       is not sent again. One that answers an earlier response is out of date, and passed over.
    3. Other names than before, or a new version, get a response.
    """

    def __init__(self, keeper: WorkloadKeeper, requests: Iterator[bytes], context: Context) -> None:
        self._keeper = keeper
        self._context = context
        self._asked: queue.SimpleQueue[_Asked] = queue.SimpleQueue()
        self._requests = requests
        self._names: tuple[str, ...] | None = None
        self._sent: tuple[tuple[str, ...], int] | None = None
        self._nonce = 0
        self._has_ended = False

    def answers(self) -> Iterator[bytes]:
        self._context.add_callback(self._end)
        threading.Thread(target=self._read, name="fltrust-sds", daemon=True).start()
        threading.Thread(target=self._watch, name="fltrust-sds-watch", daemon=True).start()
        served = self._first()
        while True:
            asked = self._asked.get()
            if asked is _Word.ENDED:
                return
            if isinstance(asked, Exception):
                raise asked
            if isinstance(asked, discovery_pb2.DiscoveryRequest) and not self._take(asked):
                continue
            served = self._keeper.after(0, 0.0) or served
            if self._names is not None and self._sent != (self._names, served.version):
                yield self._response(self._names, served)

    def _first(self) -> Served:
        served = self._keeper.after(0, FIRST_WAIT)
        if served is None:
            raise AgentUnavailable("expected a certificate for the workload, there is none")
        return served

    def _take(self, request: discovery_pb2.DiscoveryRequest) -> bool:
        """Whether this request may want an answer."""
        if request.type_url not in ("", TYPE_URL):  # 1
            raise Malformed(
                f"expected a request for secrets, got one for {request.type_url[:120]!r}",
                reason=Refusal.UNKNOWN_TYPE,
            )
        if len(request.resource_names) > MAX_NAMES:
            raise Oversized(f"expected at most {MAX_NAMES} names of secrets, got more")
        if request.response_nonce and request.response_nonce != str(self._nonce):  # 2
            return False
        if request.HasField("error_detail"):
            words = repr(request.error_detail.message[:_MAX_WORDS])
            _log.warning("Envoy does not take the secrets %s: %s", ", ".join(request.resource_names), words)
        self._names = tuple(request.resource_names)
        return True

    def _response(self, names: tuple[str, ...], served: Served) -> bytes:
        resources = [_packed(secret(name, served)) for name in names]  # 3
        self._nonce += 1
        self._sent = (names, served.version)
        return discovery_pb2.DiscoveryResponse(
            version_info=str(served.version), resources=resources, type_url=TYPE_URL, nonce=str(self._nonce)
        ).SerializeToString()

    def _read(self) -> None:
        try:
            for data in self._requests:
                self._asked.put(discovery_pb2.DiscoveryRequest.FromString(data))
        except DecodeError:
            self._asked.put(Malformed("expected a DiscoveryRequest, got something else"))
        except Exception as error:  # gRPC raises its own when the call is gone
            _log.debug("a stream of secrets ended: %s", type(error).__name__)
        self._end()

    def _watch(self) -> None:
        """Wake the answering thread on every change, and hand it the refusal that ends the stream."""
        version = 0
        try:
            while not self._has_ended:
                served = self._keeper.after(version, _WATCH_TICK, is_over=lambda: self._has_ended)
                if served is not None:
                    version = served.version
                    self._asked.put(_Word.CHANGED)
        except Exception as error:  # raised where the stream is answered
            self._asked.put(error)

    def _end(self) -> None:
        self._has_ended = True
        self._asked.put(_Word.ENDED)
        self._keeper.stir()


def _spiffe_validation(bundles: tuple[TrustBundle, ...]) -> tls_pb2.CertificateValidationContext:
    config = tls_pb2.SPIFFECertValidatorConfig(
        trust_domains=[
            tls_pb2.SPIFFECertValidatorConfig.TrustDomain(
                name=bundle.domain, trust_bundle=_inline(bundle_to_pem(bundle))
            )
            for bundle in bundles
        ]
    )
    return tls_pb2.CertificateValidationContext(
        custom_validator_config=core_pb2.TypedExtensionConfig(
            name=_SPIFFE_VALIDATOR, typed_config=_packed(config)
        )
    )


def _inline(data: bytes) -> core_pb2.DataSource:
    return core_pb2.DataSource(inline_bytes=data)


def _packed(message: Message) -> AnyMessage:
    packed = AnyMessage()
    packed.Pack(message)
    return packed
