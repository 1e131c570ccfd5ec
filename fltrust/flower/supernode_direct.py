"""`python -m fltrust.flower.supernode_direct FD ARGUMENTS…`: flower-supernode, its client on our TLS context.

Started by `fltrust supernode --direct`, which gives the certificate through FD (`direct_channel`) and renews
it there. One symbol of Flower's is replaced (`_private.run_supernode_with`), then Flower's own main runs.

What the sidecar has and this has not: a revoked aggregator is not cut off here (its instructions are refused
by the agent all the same), and a connection keeps the certificate that it was made with until the superlink
closes it.
"""

from __future__ import annotations

import socket
import ssl
import sys
from typing import Any

from fltrust.agent.upstream import verify_aggregator
from fltrust.clock import Clock, SystemClock
from fltrust.errors import CertificateRefused
from fltrust.flower import _private
from fltrust.flower.direct_channel import DirectCredentials


class FleetContext(ssl.SSLContext):
    """Wraps each new socket with the certificate that is current then, and verifies who answers before it
    gives the socket to anyone. For HTTP clients that hold one context for life."""

    _credentials: DirectCredentials
    _clock: Clock

    @classmethod
    def following(cls, credentials: DirectCredentials, *, clock: Clock) -> FleetContext:
        context = cls(ssl.PROTOCOL_TLS_CLIENT)
        context._credentials = credentials
        context._clock = clock
        return context

    def wrap_socket(self, sock: socket.socket, *args: Any, **options: Any) -> ssl.SSLSocket:
        """As `ssl.SSLContext.wrap_socket`; the name expected is `aggregator`'s, whatever was dialled."""
        del args, options
        aggregator = self._credentials.aggregator
        current = self._credentials.store.current
        context = self._credentials.store.ssl_client_context(check_name=aggregator is not None)
        name = None if aggregator is None else aggregator.dns_name
        connection = context.wrap_socket(sock, server_hostname=name)
        try:
            verify_aggregator(connection, bundle=current.bundle, clock=self._clock, aggregator=aggregator)
        except CertificateRefused as error:
            connection.close()
            raise ssl.SSLError(f"the superlink's certificate is refused: {error}") from None
        return connection


def main() -> None:
    clock = SystemClock()
    credentials = DirectCredentials(int(sys.argv.pop(1)), clock=clock)
    sys.argv[0] = "flower-supernode"
    _private.run_supernode_with(FleetContext.following(credentials, clock=clock))


if __name__ == "__main__":
    main()
