"""How a coordinator listens: addresses, and a bound on everything that a caller can make us hold."""

from __future__ import annotations

from dataclasses import dataclass, field

from fltrust.coordinator.acme_settings import AcmeSettings
from fltrust.coordinator.public_modules import PublicModule
from fltrust.coordinator.settings import WitnessSetting
from fltrust.wire.rounds import MAX_SEAL
from fltrust.wire.values import MAX_MESSAGE


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """Addresses are ``host:port``; port 0 takes a free one. Times are seconds, sizes bytes."""

    bootstrap: str = "127.0.0.1:0"
    """Server authentication only: enroll, trust bundle, health, reflection."""
    address: str = "127.0.0.1:0"
    """Mutual TLS: everything else."""
    public: str | None = None
    """Plain HTTP: log, trust file, timestamps. None: not served."""
    services: str | None = None
    """HTTPS for other protocols (ACME, EST, REST, the SPIFFE bundle). None: not served."""
    services_name: str | None = None
    """``host:port`` under which clients reach `services`; None: the address itself."""
    acme: AcmeSettings = field(default_factory=AcmeSettings)
    """ACME on the services port."""
    public_modules: tuple[PublicModule, ...] = ()
    """Enrollment protocols on the public port that an operator switched on: CMP, SCEP."""
    witnesses: tuple[WitnessSetting, ...] = ()
    """Who is asked to cosign the public log's checkpoints."""

    max_message: int = MAX_MESSAGE
    """One message that comes in. A seal may have many, of `max_seal` in all."""
    max_seal: int = MAX_SEAL
    max_metadata: int = 8 * 1024
    max_connections: int = 5_000
    """Open connections of one port."""
    streams_per_connection: int = 100
    """Calls and watches open on one connection at once."""

    calls: int = 256
    """Calls at work at once on the mTLS port, and a quarter of it on the bootstrap port."""
    calls_per_identity: int = 32
    large: int = 16
    """Calls at work at once whose request may be large (Countersign) or whose answers are many."""
    large_per_identity: int = 4
    watches: int = 4_000
    watches_per_identity: int = 16
    rate: float = 50.0
    """Calls per second of one identity, over time; `burst` at once."""
    burst: float = 200.0
    bootstrap_rate: float = 20.0
    """As `rate`, of one peer address (of one /64 with IPv6)."""
    bootstrap_burst: float = 100.0

    public_connections: int = 1_000
    """Open connections of the public port."""
    public_connections_per_address: int = 100
    public_rate: float = 200.0
    """As `bootstrap_rate`, of requests to the public port; a mirror reads thousands of tiles."""
    public_burst: float = 2_000.0
    stamp_rate: float = 10.0
    """As `public_rate`, of timestamps alone."""
    stamp_burst: float = 100.0

    services_connections: int = 1_000
    """Open connections of the services port."""
    services_connections_per_address: int = 100
    services_rate: float = 20.0
    """As `bootstrap_rate`, of requests to the services port."""
    services_burst: float = 200.0

    receive_timeout: float = 10.0
    """For a caller to send its whole request; a seal gets `seal_timeout`."""
    seal_timeout: float = 60.0
    stall_timeout: float = 30.0
    """For a watcher to take what it was sent; then its watch ends, and it may resume."""
    heartbeat: float = 5.0
    """An idle watch says so this often."""

    public_readers: int = 2
    """Threads for the public port."""
    readers: int = 4
    """Threads for calls that read."""
    writers: int = 1
    """Threads for calls that write; writes are made one after the other in any case."""
    signers: int = 2
    """Threads for statements to countersign: reading a large one takes seconds, and nobody waits for that."""
    queue: int = 1_024
    """Calls that may wait for a thread; more are refused."""
    grace: float = 5.0
    """For calls under way to end when the server stops."""
