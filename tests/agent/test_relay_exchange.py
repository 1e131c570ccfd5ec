from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fltrust.agent.exchange import Exchange

REQUEST = b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc"


def feed(exchange: Exchange, request: bytes, answer: bytes) -> Exchange:
    exchange.asked(memoryview(request))
    exchange.answered(memoryview(answer))
    return exchange


@given(st.lists(st.integers(1, 60), min_size=1), st.integers(1, 4))
def test_only_between_two_requests_it_says_so(steps: list[int], rounds: int) -> None:
    exchange = Exchange()
    for _ in range(rounds):
        assert exchange.is_between_requests
        for take, data in ((exchange.asked, REQUEST), (exchange.answered, ANSWER)):
            position, turn = 0, 0
            while position < len(data):
                step = steps[turn % len(steps)]
                take(memoryview(data[position : position + step]))
                position, turn = position + step, turn + 1
                assert exchange.is_between_requests == (data is ANSWER and position >= len(data))
    assert exchange.is_understood


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\ncontent-length: 12\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length:0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" + ANSWER,
        b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" + ANSWER,
    ],
)
def test_a_whole_answer_is_recognised(answer: bytes) -> None:
    assert feed(Exchange(), REQUEST, answer).is_between_requests


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (REQUEST, b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
        (REQUEST, b"HTTP/1.1 200 OK\r\n\r\nuntil the end"),
        (REQUEST, b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabc"),
        (REQUEST, b"HTTP/1.0 200 OK\r\ncontent-length: 3\r\n\r\nabc"),
        (REQUEST, b"HTTP/1.1 101 Switching Protocols\r\n\r\n"),
        (REQUEST, b"\x00\x01\x02\r\n\r\n"),
        (b"HEAD / HTTP/1.1\r\n\r\n", ANSWER),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", ANSWER),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b""),
        (b"GET / HTTP/1.1\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n", ANSWER),
        (b"POST / HTTP/1.1\r\nx: " + b"a" * 70_000, b""),
    ],
)
def test_what_is_not_understood_is_never_between_requests(request_: bytes, answer: bytes) -> None:
    exchange = feed(Exchange(), request_, answer)
    assert not exchange.is_understood
    assert not exchange.is_between_requests


@given(st.binary(max_size=400), st.binary(max_size=400))
def test_no_bytes_disturb_it(request: bytes, answer: bytes) -> None:
    feed(Exchange(), request, answer)
    feed(Exchange(), REQUEST + request, ANSWER + answer)


def test_an_answer_before_the_request_has_ended_is_not_the_end() -> None:
    exchange = Exchange()
    exchange.asked(memoryview(REQUEST[:-2]))
    exchange.answered(memoryview(ANSWER))
    assert not exchange.is_between_requests
    exchange.asked(memoryview(REQUEST[-2:]))
    assert exchange.is_between_requests
