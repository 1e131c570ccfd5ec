"""The certificate that a port serves with, replaced under load without dropping a connection."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable

import grpc

from fltrust.coordinator.identity import CoordinatorIdentity
from fltrust.pki.bundle import bundle_to_pem
from fltrust.pki.types import TrustBundle

_log = logging.getLogger(__name__)

_SETTLE = 0.25
"""Seconds from gRPC's question for a certificate until that handshake surely holds the context."""
_OVERLAP = 1.0
"""Seconds that the old context is kept alive after the new one took its place."""


class ServedCertificate:
    """gRPC server credentials whose certificate can be replaced.

    gRPC asks for the certificate at the start of every handshake. When it is given a new one, it
    drops the old context at once, while another handshake that was just told "unchanged" may be about
    to use it (grpc/grpc#36693: a use after free, which ends the process). So `replace` first opens a
    connection to the port itself and leaves it in its handshake: that holds the old context
    alive until nobody can be between the two steps any more.
    """

    def __init__(
        self, identity: CoordinatorIdentity, bundle: Callable[[], TrustBundle], *, require_client: bool
    ) -> None:
        """`bundle` is asked whenever a certificate is put in: clients under its roots may connect."""
        self._bundle = bundle
        self._require_client = require_client
        self._lock = threading.Lock()
        self._pending: grpc.ServerCertificateConfiguration | None = None
        self._on_question: Callable[[], None] = lambda: None
        self.credentials = grpc.dynamic_ssl_server_credentials(
            self._configuration(identity),
            self._answer,  # type: ignore[arg-type]  # the stubs leave out None, which says "unchanged"
            require_client,
        )

    async def replace(self, identity: CoordinatorIdentity, address: str) -> None:
        """Serve with `identity` from the next handshake on. `address` is the port's own, ``host:port``."""
        asked = asyncio.Event()
        loop = asyncio.get_running_loop()

        def note() -> None:
            loop.call_soon_threadsafe(asked.set)

        with self._lock:
            self._on_question = note
        try:
            async with contextlib.AsyncExitStack() as held:
                await _touch(address, asked, held)  # holds the old context
                await asyncio.sleep(_SETTLE)
                with self._lock:
                    self._pending = self._configuration(identity)
                asked.clear()
                await _touch(address, asked, held)  # takes the new one, if nobody did before
                await asyncio.sleep(_OVERLAP)
        finally:
            with self._lock:
                self._on_question = lambda: None

    def _configuration(self, identity: CoordinatorIdentity) -> grpc.ServerCertificateConfiguration:
        roots = bundle_to_pem(self._bundle()) if self._require_client else None
        return grpc.ssl_server_certificate_configuration([(identity.key_pem(), identity.chain_pem)], roots)

    def _answer(self) -> grpc.ServerCertificateConfiguration | None:
        """gRPC's question, from a thread of its own; None says "unchanged"."""
        with self._lock:
            answer, self._pending = self._pending, None
            with contextlib.suppress(RuntimeError):  # the loop is gone: the process stops
                self._on_question()
        return answer


async def _touch(address: str, asked: asyncio.Event, held: contextlib.AsyncExitStack) -> None:
    """Open a connection to our own port and say nothing on it, until `held` is closed."""
    host, _, port = address.rpartition(":")
    own = {"0.0.0.0": "127.0.0.1", "[::]": "::1", "": "127.0.0.1"}.get(host, host.strip("[]"))  # noqa: S104
    try:
        async with asyncio.timeout(5):
            _, writer = await asyncio.open_connection(own, int(port))
            held.callback(writer.close)
            await asked.wait()
    except (OSError, TimeoutError) as error:
        # Replace it all the same: a certificate that runs out fails every handshake for certain.
        _log.warning("could not reach our own port %s while renewing its certificate: %s", address, error)
