"""The key sets of OpenID Connect issuers: fetched on a thread of their own, bounded, kept for a while.

The one thing here that reaches out. Nothing waits for it: a token whose key is not known is answered with
"try again", and its issuer is asked meanwhile, at most once every `MIN_INTERVAL`.
"""

from __future__ import annotations

import http.client
import logging
import ssl
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import urlsplit

from fltrust.clock import Clock
from fltrust.coordinator.counters import Counters
from fltrust.enrollment.jwt import MAX_JWKS, IssuerKey, SignedToken, key_for, read_jwks
from fltrust.enrollment.oidc import OidcRule
from fltrust.errors import FltrustError, Malformed, Oversized, Unavailable

_log = logging.getLogger(__name__)

REFRESH_AFTER = timedelta(minutes=10)
"""A set that is older is asked for anew, and used meanwhile."""
MAX_AGE = timedelta(hours=1)
"""A set that is older is not used: a key that the issuer took back must end here some time."""
MIN_INTERVAL = timedelta(seconds=15)
"""Between two questions to one issuer, whatever tokens name."""
TIMEOUT = 5.0
_LOOPBACK = frozenset({"127.0.0.1", "::1"})

Fetch = Callable[[str, str | None], bytes]


def check_url(url: str) -> None:
    """Return only if a key set may be fetched there: https, or http on a loopback address (for tests)."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host, parts = None, urlsplit("")
    is_secure = parts.scheme == "https" or (parts.scheme == "http" and host in _LOOPBACK)
    if not host or not is_secure or parts.username or parts.fragment or len(url) > 1024:
        raise Malformed(f"expected the https URL of a key set, got {url[:80]!r}")


def fetch_jwks(url: str, ca_file: str | None) -> bytes:
    """Get a key set: at most `MAX_JWKS` bytes, no redirect followed, `TIMEOUT` seconds for each step.

    Raises `Unavailable`, `Malformed` or `Oversized`.
    """
    check_url(url)
    parts = urlsplit(url)
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        context = ssl.create_default_context(cafile=ca_file)
        connection = http.client.HTTPSConnection(
            parts.hostname or "", parts.port, timeout=TIMEOUT, context=context
        )
    else:
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=TIMEOUT)
    try:
        target = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
        connection.request("GET", target, headers={"accept": "application/json"})
        response = connection.getresponse()
        if response.status != 200:
            raise Unavailable(f"expected the key set at {url}, got status {response.status}")
        data = response.read(MAX_JWKS + 1)
    except (OSError, http.client.HTTPException) as error:
        raise Unavailable(f"could not get the key set at {url}: {type(error).__name__}") from None
    finally:
        connection.close()
    if len(data) > MAX_JWKS:
        raise Oversized(f"expected a key set of at most {MAX_JWKS} bytes at {url}, got more")
    return data


@dataclass(slots=True)
class _Entry:
    keys: tuple[IssuerKey, ...] = ()
    fetched: float | None = None
    asked: float | None = None
    is_asking: bool = False


class JwksKeeper:
    """`IssuerKeys` over HTTPS. Safe to call from many threads; one thread at a time asks an issuer."""

    def __init__(self, clock: Clock, *, counters: Counters | None = None, fetch: Fetch = fetch_jwks) -> None:
        self._clock = clock
        self._counters = counters
        self._fetch = fetch
        self._lock = threading.Lock()
        self._entries: dict[tuple[str, str | None], _Entry] = {}

    def warm(self, rules: Sequence[OidcRule]) -> None:
        """Ask every issuer now, in the background, so that the first token need not be tried twice."""
        for rule in rules:
            self._ask(rule)

    def keys_of(self, rule: OidcRule, token: SignedToken) -> Sequence[IssuerKey]:
        now = self._clock.monotonic()
        with self._lock:
            entry = self._entries.get((rule.jwks, rule.ca_file), _Entry())
            age = None if entry.fetched is None else timedelta(seconds=now - entry.fetched)
            keys = entry.keys if age is not None and age <= MAX_AGE else ()
        known = key_for(token, keys)
        if age is None or age > REFRESH_AFTER or known is None:
            self._ask(rule)
        if known is None:
            raise Unavailable(
                f"the keys of {rule.issuer} that are known here do not have this token's; they are asked for",
                reason="issuer-keys",
                hint="try again in a few seconds",
            )
        return keys

    def _ask(self, rule: OidcRule) -> None:
        now = self._clock.monotonic()
        with self._lock:
            entry = self._entries.setdefault((rule.jwks, rule.ca_file), _Entry())
            is_early = entry.asked is not None and now - entry.asked < MIN_INTERVAL.total_seconds()
            if entry.is_asking or is_early:
                return
            entry.is_asking, entry.asked = True, now
        threading.Thread(target=self._refresh, args=(rule, entry), daemon=True, name="jwks").start()

    def _refresh(self, rule: OidcRule, entry: _Entry) -> None:
        outcome = "failed"
        try:
            keys = read_jwks(self._fetch(rule.jwks, rule.ca_file))
            with self._lock:
                entry.keys, entry.fetched = keys, self._clock.monotonic()
            outcome = "fetched"
        except FltrustError as error:
            _log.warning("the keys of %s could not be had: %s", rule.issuer, error.message)
        except Exception:
            _log.exception("the keys of %s could not be had", rule.issuer)
        finally:
            with self._lock:
                entry.is_asking = False
            if self._counters is not None:
                self._counters.add(f"evidence.oidc.jwks.{outcome}")
