"""Where one HTTP/1.1 request and its answer begin and end, read from the bytes that pass.

Only to know when a connection is between two requests, so that it can be renewed without cutting one
(RFC 9112, sections 6 and 9). Nothing is decided for or against a request here, nothing is changed, and
what is not understood is not guessed at.
"""

from __future__ import annotations

import re

_MAX_HEAD = 64 * 1024
_END_OF_HEAD = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,15})[ \t]*(?=\r\n)", re.IGNORECASE)
_OTHER_FRAMING = re.compile(rb"\r\n(?:transfer-encoding|upgrade)[ \t]*:", re.IGNORECASE)
_STATUS = re.compile(rb"HTTP/1\.1 ([1-5][0-9]{2})[ \r]")
_NO_BODY = frozenset({b"204", b"304"})


class Exchange:
    """Counts the requests and answers of one connection. Fed with every byte, in order, from one thread.

    Understood are heads of up to 64 KiB with a Content-Length, or without one where that means no body. After
    anything else (chunks, upgrades, HEAD, HTTP/1.0) `is_understood` is false for good.
    """

    __slots__ = ("_answered", "_asked", "_down", "_up", "is_understood")

    def __init__(self) -> None:
        self._up = _Side()
        self._down = _Side()
        self._asked = 0
        self._answered = 0
        self.is_understood = True

    @property
    def is_between_requests(self) -> bool:
        """Whether every request has had its whole answer. False where the bytes are not understood."""
        return (
            self.is_understood
            and self._asked == self._answered
            and self._up.is_at_start
            and self._down.is_at_start
        )

    def asked(self, data: memoryview) -> None:
        """Take in what went from the client to the server."""
        while data and self.is_understood:
            data, head = self._up.take(data)
            if head is not None:
                self._asked += 1
                self._up.body = self._request_body(head)
            self.is_understood &= not self._up.is_lost

    def answered(self, data: memoryview) -> None:
        """Take in what came from the server. The last byte of a body completes its answer."""
        while data and self.is_understood:
            data, head = self._down.take(data)
            if head is not None:
                self._begin_answer(head)
            elif self._down.is_at_start:
                self._answered += 1
            self.is_understood &= not self._down.is_lost

    def _request_body(self, head: bytes) -> int:
        if _OTHER_FRAMING.search(head) or head.startswith((b"HEAD ", b"CONNECT ", b"PRI ")):
            self.is_understood = False
        return self._content_length(head) or 0

    def _begin_answer(self, head: bytes) -> None:
        match = _STATUS.match(head)
        status = b"" if match is None else match[1]
        length = 0 if status in _NO_BODY else self._content_length(head)
        if status.startswith(b"1") and status != b"101":
            return  # an interim answer: the final one follows
        if not status or status == b"101" or _OTHER_FRAMING.search(head) or length is None:
            self.is_understood = False
        elif length:
            self._down.body = length
        else:
            self._answered += 1

    def _content_length(self, head: bytes) -> int | None:
        found = {int(value) for value in _LENGTH.findall(head)}
        if len(found) > 1:
            self.is_understood = False
        return found.pop() if found else None


class _Side:
    """One direction: within a head, or with `body` bytes to go."""

    __slots__ = ("_head", "body", "is_lost")

    def __init__(self) -> None:
        self._head = bytearray()
        self.body = 0
        self.is_lost = False

    @property
    def is_at_start(self) -> bool:
        return not self._head and not self.body

    def take(self, data: memoryview) -> tuple[memoryview, bytes | None]:
        """Consume one step of `data`; returns the rest, and a head where one was completed."""
        if self.body:
            step = min(self.body, len(data))
            self.body -= step
            return data[step:], None
        before = len(self._head)
        self._head += data[:_MAX_HEAD]
        end = self._head.find(_END_OF_HEAD, max(0, before - 3))
        if end < 0:
            self.is_lost = len(self._head) > _MAX_HEAD or len(data) > _MAX_HEAD
            return data[len(data) :], None
        head = bytes(self._head[: end + len(_END_OF_HEAD)])
        self._head.clear()
        return data[len(head) - before :], head
