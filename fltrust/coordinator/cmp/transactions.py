"""CMP transactions under way: bounded in number and time, and gone with the process.

What is lost with them is a poll or a confirmation; a client that starts anew with the same key and the same
credential is given what its request became. So nothing here decides anything.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from fltrust.errors import Conflict, NotFound
from fltrust.identity import Serial, SpiffeId
from fltrust.protocols.cmp.messages import Body

MAX_TRANSACTIONS = 4_096
MAX_SECONDS = 3_600.0


@dataclass(slots=True)
class CmpTransaction:
    """One exchange of one party."""

    party: str
    """Whose protection its messages carry: a credential, or a certificate's identity."""
    kind: Body
    cert_req_id: int
    csr_der: bytes
    request_digest: bytes
    """SHA-256 of the message that began it: the same one again is given the same answer."""
    answer: bytes = b""
    nonce: bytes = b""
    """Of our last answer; the client's next message gives it back."""
    request_id: str | None = None
    """While operators decide."""
    issued: tuple[SpiffeId, Serial, bytes] | None = None
    """Identity, serial and DER of the certificate that awaits its confirmation."""
    began: float = 0.0


class CmpTransactions:
    """By transaction id; used from many threads. The oldest gives way to the newest."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._found: OrderedDict[bytes, CmpTransaction] = OrderedDict()

    def begin(self, transaction_id: bytes, made: CmpTransaction) -> CmpTransaction:
        """Open a transaction; the one there already, if the very same message opened it.

        `Conflict` (``transaction-in-use``) where another message did.
        """
        with self._lock:
            known = self._fresh(transaction_id)
            if known is not None:
                if known.request_digest == made.request_digest:
                    return known
                raise Conflict(
                    "expected a new transaction, this one is under way", reason="transaction-in-use"
                )
            made.began = self._monotonic()
            self._found[transaction_id] = made
            if len(self._found) > MAX_TRANSACTIONS:
                self._found.popitem(last=False)
            return made

    def get(self, transaction_id: bytes, party: str) -> CmpTransaction:
        """The transaction of this party; `NotFound` says not whether it is somebody else's."""
        with self._lock:
            known = self._fresh(transaction_id)
        if known is None or known.party != party:
            raise NotFound("no such transaction of this sender is under way")
        return known

    def end(self, transaction_id: bytes) -> None:
        with self._lock:
            self._found.pop(transaction_id, None)

    def _fresh(self, transaction_id: bytes) -> CmpTransaction | None:
        known = self._found.get(transaction_id)
        if known is not None and self._monotonic() - known.began > MAX_SECONDS:
            del self._found[transaction_id]
            return None
        return known
