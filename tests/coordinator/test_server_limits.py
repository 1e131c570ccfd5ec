"""What one caller can make the coordinator hold, and what happens at the bound."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from server_world import DOMAIN, ServedWorld, served

from fltrust.client.channel import coordinator_of, open_bootstrap_channel
from fltrust.coordinator.lanes import Lane, Urgency
from fltrust.coordinator.limits import RateLimiter, Slots, address_key
from fltrust.coordinator.serving import ServerSettings
from fltrust.errors import LimitExceeded, Oversized, Unavailable
from fltrust.identity import Role, RunId
from fltrust.pki import bundle_to_pem
from fltrust.rounds.types import Candidate, RoundKey
from fltrust.updates import Phase
from fltrust.wire import methods
from fltrust.wire.artifacts import MAX_COUNTERSIGN
from fltrust.wire.errors import error_from_call
from fltrust.wire.values import MAX_MESSAGE


def repeatedly(call: Callable[[], object], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        call()


def test_an_identity_that_calls_too_fast_is_slowed_and_others_are_not(tmp_path: Path) -> None:
    settings = ServerSettings(rate=1.0, burst=5.0)
    with served(tmp_path, settings=settings) as world:
        site, other = world.join("a"), world.join("b")
        with pytest.raises(LimitExceeded) as caught:
            repeatedly(site.client.get_bundle)
        assert caught.value.reason == "rate-limited"
        assert "try again" in (caught.value.hint or "")
        other.client.get_bundle()


def test_an_address_that_enrolls_too_fast_is_slowed(tmp_path: Path) -> None:
    settings = ServerSettings(bootstrap_rate=0.1, bootstrap_burst=3.0)
    with (
        served(tmp_path, settings=settings) as world,
        open_bootstrap_channel(world.bootstrap, world.ca.bundle, expect=coordinator_of(DOMAIN)) as channel,
    ):
        with pytest.raises(grpc.RpcError) as caught:
            repeatedly(lambda: channel.unary_unary(methods.GET_BUNDLE)(b"", timeout=10))
        assert error_from_call(caught.value).reason == "rate-limited"


@pytest.mark.parametrize("port", ["bootstrap", "mtls"])
def test_a_message_above_the_bound_is_refused(tmp_path: Path, port: str) -> None:
    with served(tmp_path) as world:
        if port == "mtls":  # one method takes more, so the port does; each method keeps to its own bound
            opened, method, size = (
                world.channel(world.operator.credentials),
                methods.CREATE_TOKEN,
                MAX_MESSAGE,
            )
        else:
            opened, method, size = _bootstrap_channel(world), methods.ENROLL, MAX_MESSAGE
        with opened as channel, pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary(method)(b"\0" * (size + 1), timeout=10)
        if port == "mtls":
            assert error_from_call(caught.value).reason == "oversized"
        else:
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        world.operator.client.get_bundle()


def test_a_message_above_every_bound_is_not_even_taken(tmp_path: Path) -> None:
    with served(tmp_path) as world, world.channel(world.operator.credentials) as channel:
        request = b"\0" * (MAX_COUNTERSIGN + 1)
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary(methods.COUNTERSIGN)(request, timeout=10)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def _bootstrap_channel(world: ServedWorld) -> grpc.Channel:
    return grpc.secure_channel(
        world.bootstrap,
        grpc.ssl_channel_credentials(bundle_to_pem(world.ca.bundle)),
        [("grpc.ssl_target_name_override", coordinator_of(DOMAIN).dns_name)],
    )


def test_metadata_above_the_bound_is_refused(tmp_path: Path) -> None:
    with served(tmp_path) as world, world.channel(world.operator.credentials) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary(methods.GET_BUNDLE)(b"", timeout=10, metadata=(("x-much", "y" * 20_000),))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        channel.unary_unary(methods.GET_BUNDLE)(b"", timeout=10)


def test_a_seal_is_streamed_past_the_bound_of_one_message_up_to_its_own(tmp_path: Path) -> None:
    with served(tmp_path, settings=ServerSettings(max_seal=3 * MAX_MESSAGE)) as world:
        aggregator = world.join("main", Role.AGGREGATOR)
        key = RoundKey(RunId(1), 1, 1, Phase.TRAIN)
        candidate = Candidate(b"i" * 100_000, b"u" * 100_000)
        with pytest.raises(Exception) as passed:  # noqa: PT011 - it was read whole, and then refused
            aggregator.client.seal_round(key, (candidate,) * 10, ())
        assert not isinstance(passed.value, (Oversized, LimitExceeded))
        with pytest.raises(Oversized, match="seal"):
            aggregator.client.seal_round(key, (candidate,) * 20, ())


def test_a_caller_that_never_sends_its_request_is_let_go(tmp_path: Path) -> None:
    with (
        served(tmp_path, settings=ServerSettings(receive_timeout=0.3)) as world,
        world.channel(world.operator.credentials) as channel,
    ):
        never = threading.Event()

        def requests() -> Iterator[bytes]:
            never.wait(30)
            yield b""

        with pytest.raises(grpc.RpcError) as caught:
            channel.stream_unary(methods.GET_BUNDLE)(requests(), timeout=20)
        never.set()
        assert error_from_call(caught.value).reason == "slow-caller"


def test_calls_at_once_are_bounded_by_identity(tmp_path: Path) -> None:
    settings = ServerSettings(rate=1e6, burst=1e6, receive_timeout=60.0, calls_per_identity=2)
    with (
        served(tmp_path, settings=settings) as world,
        world.channel(world.operator.credentials) as channel,
    ):
        release = threading.Event()

        def slow() -> Iterator[bytes]:
            release.wait(30)
            yield b""

        def hold() -> Any:
            return channel.stream_unary(methods.GET_BUNDLE).future(slow(), timeout=60)

        held = [hold(), hold()]
        caught: LimitExceeded | None = None
        for _ in range(40):
            time.sleep(0.25)  # a call of ours at the same moment could take the place of one that is held
            held = [hold() if call.done() else call for call in held]
            try:
                world.operator.client.get_bundle()
            except LimitExceeded as error:
                caught = error
                break
        assert caught is not None
        assert caught.reason == "too-many-calls"
        release.set()
        assert all(call.result() for call in held)
        world.operator.client.get_bundle()


def test_what_the_server_refuses_is_counted_by_reason(tmp_path: Path) -> None:
    with served(tmp_path, settings=ServerSettings(rate=0.001, burst=3.0)) as world:
        with pytest.raises(LimitExceeded):
            repeatedly(world.operator.client.get_bundle)
        counts = world.authority.counters.snapshot()
        assert counts["rpc.mtls.GetBundle.rate-limited"] == 1
        assert counts["rpc.mtls.GetBundle.ok"] == 3


def test_a_bucket_fills_again_with_time() -> None:
    now = 0.0
    limiter = RateLimiter(rate=2.0, burst=2.0, monotonic=lambda: now)
    limiter.take("a")
    limiter.take("a")
    with pytest.raises(LimitExceeded):
        limiter.take("a")
    now = 0.5
    limiter.take("a")
    with pytest.raises(LimitExceeded):
        limiter.take("a")


def test_buckets_are_forgotten_before_they_fill_the_memory() -> None:
    limiter = RateLimiter(rate=1.0, burst=1.0, monotonic=lambda: 0.0, max_keys=10)
    for i in range(1_000):
        limiter.take(str(i))
    assert len(limiter._buckets) == 10


def test_slots_are_given_back_also_after_an_error() -> None:
    slots = Slots("calls", total=1, per_key=1)
    for _ in range(3):
        with pytest.raises(RuntimeError), slots.hold("a"):
            raise RuntimeError
    assert slots.count == 0


@pytest.mark.parametrize(
    ("peer", "key"),
    [
        ("ipv4:192.0.2.7:5123", "192.0.2.7"),
        ("ipv6:[2001:db8::7]:5123", "2001:db8::/64"),
        ("ipv6:%5B2001:db8::9%5D:5123", "2001:db8::/64"),
        ("unix:/run/x", "unix:/run/x"),
        ("", ""),
    ],
)
def test_rates_are_kept_by_address_or_network(peer: str, key: str) -> None:
    assert address_key(peer) == key


def test_a_revocation_overtakes_what_waits_and_is_never_turned_away() -> None:
    async def scenario() -> list[str]:
        lane = Lane("write", threads=1, waiting=3)
        began, gate, order = threading.Event(), threading.Event(), []

        def block() -> None:
            began.set()
            gate.wait(20)

        running = [asyncio.ensure_future(lane.run(block))]
        await asyncio.to_thread(began.wait, 20)
        running += [
            asyncio.ensure_future(lane.run(lambda i=i: order.append(f"renewal {i}"))) for i in range(3)
        ]
        await asyncio.sleep(0)
        with pytest.raises(LimitExceeded):
            await lane.run(lambda: order.append("one too many"))
        running.append(
            asyncio.ensure_future(lane.run(lambda: order.append("revocation"), urgency=Urgency.NOW))
        )
        await asyncio.sleep(0)
        gate.set()
        await asyncio.gather(*running)
        lane.close(5)
        with pytest.raises(Unavailable):
            await lane.run(lambda: None)
        return order

    assert asyncio.run(scenario()) == ["revocation", "renewal 0", "renewal 1", "renewal 2"]


def test_a_call_whose_caller_left_before_it_began_never_begins() -> None:
    async def scenario() -> list[str]:
        lane = Lane("write", threads=1, waiting=10)
        began, gate, done = threading.Event(), threading.Event(), []

        def block() -> None:
            began.set()
            gate.wait(20)

        first = asyncio.ensure_future(lane.run(block))
        await asyncio.to_thread(began.wait, 20)
        left = asyncio.ensure_future(lane.run(lambda: done.append("left")))
        await asyncio.sleep(0)
        left.cancel()
        await asyncio.sleep(0)
        gate.set()
        await first
        await lane.run(lambda: done.append("stayed"))
        lane.close(5)
        return done

    assert asyncio.run(scenario()) == ["stayed"]
