"""One connection through the relay: TLS in, TLS out, both ends on one thread, at most one buffer each way.

    Flower ── local ──► [ upward buffer ] ──► upstream ──► superlink
           ◄── local ── [ downward buffer ] ◄── upstream ──

What cannot be written is not read either: a slow end slows the other one, and memory stays bounded.
The upstream end comes and goes between requests, unseen by Flower: it is dialled when a request
arrives, and let go when the superlink closes it or when our certificate has changed. A request that
was begun is never cut from this side, and no request is sent twice.
"""

from __future__ import annotations

import select
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from fltrust.agent.exchange import Exchange
from fltrust.agent.upstream import Upstream

BUFFER = 256 * 1024
"""Bytes in flight in each direction; with 16 KiB the relay was a third slower."""

IDLE_LOOK = 2.0
"""Seconds after which an idle connection looks whether its certificate is still the current one."""

STALL = 60.0
"""Seconds that an upload may stand still. Flower's own client leaves after 30, which cannot always be seen:
its goodbye waits behind the bytes that nobody takes."""

LINGER = 2.0
"""Seconds given to the client to read an answer which ends the connection, while it still sends."""

_IN, _OUT = select.POLLIN, select.POLLOUT
_GONE = select.POLLERR | select.POLLHUP | select.POLLNVAL | getattr(select, "POLLRDHUP", 0)


class Lines(Protocol):
    """Where upstream connections come from."""

    def open(self) -> Upstream:
        """Dial; an error of ours ends the local connection."""
        ...

    def is_current(self, line: Upstream) -> bool:
        """Whether a new request may go out on it."""
        ...

    def close(self, line: Upstream) -> None: ...

    def answered(self, line: Upstream, size: int) -> None:
        """The superlink sent `size` bytes."""
        ...

    def broke_off(self, line: Upstream, error: OSError | None, *, answered: bool) -> None:
        """The superlink ended the connection within a request; `answered`: it had ever sent a byte on it."""
        ...


class End:
    """One non-blocking TLS socket. `ended`: nothing more will come; `broken`: nothing more can be sent."""

    __slots__ = ("broken", "ended", "error", "events", "socket")

    def __init__(self, connection: ssl.SSLSocket) -> None:
        connection.setblocking(False)
        self.socket = connection
        self.events = 0
        self.ended = False
        self.broken = False
        self.error: OSError | None = None

    def read(self, room: memoryview) -> int:
        """Fill `room` as far as there is something; 0 with `ended` false means: wait for `events`."""
        size = 0
        try:
            while size < len(room):
                got = self.socket.recv_into(room[size:])
                if not got:
                    self.ended = True
                    break
                size += got
        except ssl.SSLWantReadError:
            self.events |= _IN
        except ssl.SSLWantWriteError:  # a key update of TLS 1.3
            self.events |= _OUT
        except OSError as error:
            self.ended, self.error = True, error
        return size

    def write(self, data: memoryview) -> int:
        """Send what can be sent. A peer that takes nothing more sets `broken`, and data is dropped."""
        size = 0
        try:
            while size < len(data):
                size += self.socket.send(data[size:])
        except ssl.SSLWantWriteError:
            self.events |= _OUT
        except ssl.SSLWantReadError:
            self.events |= _IN
        except OSError as error:
            # What it sent before may still lie in the receive buffer: reading goes on to its end.
            self.broken, self.error = True, error
        return len(data) if self.broken else size


class Flow:
    """The buffer of one direction."""

    __slots__ = ("_memory", "_rest")

    def __init__(self) -> None:
        self._memory = memoryview(bytearray(BUFFER))
        self._rest = self._memory[:0]

    @property
    def is_empty(self) -> bool:
        return not self._rest

    def fill(self, source: End) -> memoryview:
        """Read into the (empty) buffer; returns what was read."""
        self._rest = self._memory[: source.read(self._memory)]
        return self._rest

    def drain(self, sink: End) -> int:
        """Write out what is there; returns how much went."""
        size = sink.write(self._rest)
        self._rest = self._rest[size:]
        return size


class Carrier:
    """Carries one local connection until either side ends it."""

    def __init__(self, local: ssl.SSLSocket, lines: Lines, *, monotonic: Callable[[], float]) -> None:
        self._local = End(local)
        self._lines = lines
        self._monotonic = monotonic
        self._line: Upstream | None = None
        self._far: End | None = None
        self._up, self._down = Flow(), Flow()
        self._exchange = Exchange()
        self._line_answered = False
        self._last_came_from_server = False
        self._moved_at = monotonic()

    def run(self) -> None:
        """Carry; returns when the connection is over. Both sockets are closed then."""
        try:
            while not (self._local.ended or self._local.broken):
                self._local.events = 0
                # Answers first: a line that the superlink has closed is seen before a request is put on it.
                moved = self._carry_down()
                if self._is_over():
                    break
                moved += self._carry_up()
                if moved:
                    self._moved_at = self._monotonic()
                elif not self._wait():
                    break
        finally:
            self._drop_line()
            _close(self._local.socket, linger=not (self._local.ended or self._local.broken))

    def _carry_down(self) -> int:
        far, moved = self._far, 0
        if far is not None:
            far.events = 0
            if self._down.is_empty and not far.ended:
                data = self._down.fill(far)
                moved = len(data)
                if moved:
                    self._take_answer(data)
        if not self._down.is_empty:
            moved += self._down.drain(self._local)
        return moved

    def _take_answer(self, data: memoryview) -> None:
        self._exchange.answered(data)
        self._last_came_from_server = True
        self._line_answered = True
        if self._line is not None:
            self._lines.answered(self._line, len(data))

    def _is_over(self) -> bool:
        """Take note of a line that has ended. Between requests that concerns nobody but us."""
        if self._far is None or not self._far.ended or not self._down.is_empty:
            return False
        if self._exchange.is_between_requests and self._up.is_empty:
            self._drop_line()
            return False
        if self._line is not None:
            self._lines.broke_off(self._line, self._far.error, answered=self._line_answered)
        return True

    def _carry_up(self) -> int:
        moved = 0
        if self._up.is_empty:
            is_new = self._exchange.is_between_requests or self._line is None
            data = self._up.fill(self._local)
            if not data:
                return 0
            moved = len(data)
            self._exchange.asked(data)
            self._last_came_from_server = False
            if is_new:
                self._ensure_line()
        if self._far is not None:
            moved += self._up.drain(self._far)
        return moved

    def _ensure_line(self) -> None:
        if self._line is not None and self._lines.is_current(self._line):
            return
        self._drop_line()
        self._line = self._lines.open()
        self._far = End(self._line.socket)
        self._line_answered = False

    def _drop_line(self) -> None:
        if self._line is not None:
            self._lines.close(self._line)
            self._line = self._far = None

    def _wait(self) -> bool:
        """Sleep until something can move. False: the connection is to end."""
        poll = select.poll()
        blocked_up = not self._up.is_empty
        poll.register(self._local.socket, self._local.events | (_GONE if blocked_up else 0))
        if self._far is not None and self._far.events:
            poll.register(self._far.socket, self._far.events)
        ready = dict(poll.poll(None if self._line is None else IDLE_LOOK * 1000))
        if blocked_up and ready.get(self._local.socket.fileno(), 0) & _GONE:
            return False  # the client has left, its rest is of no use to anybody
        return bool(ready) or self._look_when_idle()

    def _look_when_idle(self) -> bool:
        line = self._line
        still = self._monotonic() - self._moved_at
        if not self._up.is_empty:
            return still < STALL
        if line is None or self._lines.is_current(line):
            return True
        if self._exchange.is_between_requests:
            self._drop_line()
            return True
        # Not HTTP as we know it: quiet after a word of the server's is taken for idle.
        return self._exchange.is_understood or not self._last_came_from_server or still < IDLE_LOOK


def _close(connection: ssl.SSLSocket, *, linger: bool) -> None:
    """Close with a close_notify. With `linger`, first swallow what the client still sends: closing over
    unread bytes resets the connection, and a reset overtakes the answer that the client should read."""
    try:
        with suppress(OSError, ValueError):
            connection.unwrap()
        if linger:
            plain = socket.socket(fileno=connection.detach())
            with plain:
                _swallow(plain)
    except OSError:
        pass
    finally:
        connection.close()


def _swallow(plain: socket.socket) -> None:
    plain.shutdown(socket.SHUT_WR)
    end = time.monotonic() + LINGER
    while (left := end - time.monotonic()) > 0:
        plain.settimeout(left)
        if not plain.recv(BUFFER):
            return
