"""Group commit: everybody is acknowledged for what is durable, and for nothing else."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from authority_world import Member, World

from fltrust.coordinator.ledger import Work
from fltrust.coordinator.sequencer import Sequencer
from fltrust.errors import Conflict, LimitExceeded, Oversized, Revoked, StorageUnavailable
from fltrust.identity import Digest
from fltrust.revocation import EventKind, RevocationReason
from fltrust.storage import CommitStep, open_store
from fltrust.tlog.merkle import Prover, leaf_hash, tree_head, verify_consistency
from fltrust.tlog.ports import MAX_ENTRY, NewEntry, TreeHead


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    world = World(database_url)
    yield world
    world.close()


@pytest.fixture
def sequencer(world: World) -> Sequencer:
    return world.authority.sequencer


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(64) as pool:
        yield pool


def entry(world: World, text: str) -> NewEntry:
    return NewEntry("statement", world.clock.now(), text.encode(), (f"run:{text}",))


def together(world: World, pool: ThreadPoolExecutor, *calls: Callable[[], object]) -> list[Future[object]]:
    """Make calls that share a transaction: all wait while the database is held, in this order."""
    sequencer = world.authority.sequencer
    futures: list[Future[object]] = []
    with world.authority.ledger.writing():
        leader = pool.submit(sequencer.append, entry(world, "leader"))  # takes a batch of itself alone
        _until(lambda: sequencer._is_led and not sequencer._queue)
        for number, call in enumerate(calls, 1):
            futures.append(pool.submit(call))
            _until(lambda wanted=number: len(sequencer._queue) == wanted)  # type: ignore[misc]
    leader.result(30)
    return futures


def _until(condition: Callable[[], bool]) -> None:
    waited = threading.Event()
    for _ in range(1_000):
        if condition():
            return
        waited.wait(0.01)
    pytest.fail("waited for what did not come")


def test_an_entry_alone_is_durable_when_it_is_acknowledged(world: World, sequencer: Sequencer) -> None:
    logged = sequencer.append(entry(world, "one"))
    world.reopen()
    with world.store.reading() as tx:
        assert tx.tlog.read(logged.index, logged.index + 1)[0].data == b"one"


def test_entries_of_many_threads_take_every_place_once(world: World, sequencer: Sequencer) -> None:
    with world.store.reading() as tx:
        start = tx.tlog.head.size
    found: dict[int, bytes] = {}

    def write(writer: int) -> None:
        for number in range(10):
            logged = sequencer.append(entry(world, f"{writer}/{number}"))
            found[logged.index] = logged.data

    threads = [threading.Thread(target=write, args=(n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == list(range(start, start + 160))
    with world.store.reading() as tx:
        assert {e.index: e.data for e in tx.tlog.read(start, start + 1_000)} == found
        assert tx.tlog.head == tree_head(tx.tlog, start + 160)
    for writer in range(16):
        mine = [i for i, data in sorted(found.items()) if data.startswith(f"{writer}/".encode())]
        assert [found[i] for i in mine] == [f"{writer}/{n}".encode() for n in range(10)]


def test_what_waits_is_written_with_one_commit_and_in_order(world: World, pool: ThreadPoolExecutor) -> None:
    commits: list[CommitStep] = []
    sequencer = world.authority.sequencer
    world.store.on_commit = commits.append
    futures = together(
        world, pool, *[lambda n=n: sequencer.append(entry(world, f"e{n}")).index for n in range(20)]
    )
    places = [future.result(30) for future in futures]
    assert commits.count(CommitStep.AFTER) == 3  # the one that held the database, the leader's, the rest
    assert places == list(range(int(str(places[0])), int(str(places[0])) + 20))


def test_a_job_that_is_refused_fails_alone_and_leaves_nothing(world: World, pool: ThreadPoolExecutor) -> None:
    sequencer = world.authority.sequencer

    def job(text: str, error: Exception | None = None) -> Callable[[], object]:
        def write(work: Work) -> int:
            place = work.log(entry(world, text)).index
            if error is not None:
                raise error
            return place

        return lambda: sequencer.run(write)

    def twice(work: Work) -> None:
        work.tx.countersigned.put(Digest.sha256_of(b"same"), b"bundle")
        work.tx.countersigned.put(Digest.sha256_of(b"same"), b"bundle")

    good1, bad, broken, conflict, good2, plain = together(
        world,
        pool,
        job("good-1"),
        job("refused", Conflict("no", reason="of-its-own")),
        job("broken", RuntimeError("a bug")),
        lambda: sequencer.run(twice),
        job("good-2"),
        lambda: sequencer.append(entry(world, "plain")).index,
    )
    with pytest.raises(Conflict) as refusal:
        bad.result(30)
    assert refusal.value.reason == "of-its-own"
    with pytest.raises(RuntimeError, match="a bug"):
        broken.result(30)
    with pytest.raises(Conflict):  # the database itself refused
        conflict.result(30)
    places = [future.result(30) for future in (good1, good2, plain)]
    with world.store.reading() as tx:
        assert tx.countersigned.get(Digest.sha256_of(b"same")) is None
        found = {e.data: e.index for e in tx.tlog.read(0, 1_000)}
        assert [found[name] for name in (b"good-1", b"good-2", b"plain")] == places
        assert b"refused" not in found
        assert b"broken" not in found
        assert tx.tlog.head == tree_head(tx.tlog, tx.tlog.head.size)


def test_an_entry_that_cannot_be_kept_is_refused_before_it_waits(world: World, sequencer: Sequencer) -> None:
    with pytest.raises(Oversized):
        sequencer.append(NewEntry("statement", world.clock.now(), bytes(MAX_ENTRY + 1)))


def test_a_job_after_a_revocation_knows_of_it(world: World, pool: ThreadPoolExecutor) -> None:
    """A job that takes an epoch ends its transaction, so the next one is judged by the state after it."""
    site, sequencer = world.join("site-a"), world.authority.sequencer

    def revoke(work: Work) -> None:
        work.emit(
            EventKind.REVOKED,
            actor=world.operator.spiffe_id,
            subject=site.spiffe_id,
            identity_wide=True,
            reason=RevocationReason.KEY_COMPROMISE,
        )

    def judge(work: Work) -> str:
        work.state.judge(site.certificate)
        return "stands well"

    before, revoked, after = together(
        world,
        pool,
        lambda: sequencer.run(judge),
        lambda: sequencer.run(revoke),
        lambda: sequencer.run(judge),
    )
    assert before.result(30) == "stands well"
    revoked.result(30)
    with pytest.raises(Revoked):
        after.result(30)


@pytest.mark.parametrize("step", CommitStep)
def test_nobody_is_acknowledged_where_the_commit_failed(
    world: World, pool: ThreadPoolExecutor, step: CommitStep
) -> None:
    sequencer = world.authority.sequencer
    commits = 0

    def fail(reached: CommitStep) -> None:
        nonlocal commits
        commits += reached is step
        if reached is step and commits == 3:
            raise OSError("crash")

    world.store.on_commit = fail
    futures = together(world, pool, *[lambda n=n: sequencer.append(entry(world, f"e{n}")) for n in range(8)])
    errors = [future.exception(30) for future in futures]
    assert isinstance(errors[0], OSError)
    assert all(isinstance(error, StorageUnavailable) for error in errors[1:])
    world.store.on_commit = None
    with world.store.reading() as tx:
        there = [e.data for e in tx.tlog.read(0, 1_000) if e.data.startswith(b"e")]
    assert len(there) == (8 if step is CommitStep.AFTER else 0)
    sequencer.append(entry(world, "later"))


def test_who_waits_behind_a_failure_is_written_after_it(world: World, pool: ThreadPoolExecutor) -> None:
    """The disk refuses in the middle of a batch: those behind it try again, in a transaction of theirs."""
    sequencer = world.authority.sequencer

    def full(_work: Work) -> None:
        raise StorageUnavailable("the disk is full")

    first, failed, last = together(
        world,
        pool,
        lambda: sequencer.append(entry(world, "first")),
        lambda: sequencer.run(full),
        lambda: sequencer.append(entry(world, "last")),
    )
    for future in (first, failed):
        with pytest.raises(StorageUnavailable):
            future.result(30)
    last.result(30)
    with world.store.reading() as tx:
        found = [e.data for e in tx.tlog.read(0, 1_000)]
    assert b"first" not in found
    assert found[-1] == b"last"


def test_a_transaction_takes_no_more_once_it_has_lasted_long(world: World, pool: ThreadPoolExecutor) -> None:
    """Of ten slow jobs a revocation waits for one, not for all."""
    commits: list[CommitStep] = []
    ticks = itertools.count()
    world.authority.sequencer._monotonic = lambda: float(next(ticks))  # every look at it is a second later
    world.store.on_commit = commits.append
    jobs = [lambda n=n: world.authority.sequencer.run(lambda _work: n) for n in range(10)]
    futures = together(world, pool, *jobs)
    assert [future.result(30) for future in futures] == list(range(10))
    assert commits.count(CommitStep.AFTER) == 2 + 10


def test_too_many_that_wait_are_refused_at_once(world: World, pool: ThreadPoolExecutor) -> None:
    small = Sequencer(world.authority.ledger, max_waiting=2)
    with world.authority.ledger.writing():
        leader = pool.submit(small.append, entry(world, "leader"))
        _until(lambda: small._is_led and not small._queue)
        waiting = [pool.submit(small.append, entry(world, f"w{n}")) for n in range(2)]
        _until(lambda: len(small._queue) == 2)
        with pytest.raises(LimitExceeded) as refusal:
            small.append(entry(world, "one too many"))
        assert refusal.value.reason == "log-busy"
    for future in (leader, *waiting):
        future.result(30)
    small.append(entry(world, "room again"))


def test_renewals_at_the_same_time_share_a_commit_and_a_bad_one_fails_alone(
    world: World, pool: ThreadPoolExecutor
) -> None:
    members = [world.join(f"site-{n}") for n in range(4)]
    world.revoke(members[0])
    commits: list[CommitStep] = []
    world.store.on_commit = commits.append

    def renew(member: Member) -> Member:
        return world.renew(member)

    with pytest.raises(Revoked):
        renew(members[0])
    futures = together(world, pool, *[lambda m=m: renew(m) for m in members[1:]])
    renewed = [future.result(30) for future in futures]
    assert commits.count(CommitStep.AFTER) == 3
    with world.store.reading() as tx:
        for member in renewed:
            assert isinstance(member, Member)
            record = tx.certificates.by_key(member.signer.key_id)
            assert record is not None
            assert record.der == member.chain[0]


APPEND = """
import sys, threading, time
sys.path[:0] = sys.argv[2:]
from authority_world import World
from test_sequencer import entry

world = World(sys.argv[1])
said = threading.Lock()

def write(writer):
    for number in range(10**6):
        text = f"{writer}/{number}"
        index = world.authority.sequencer.append(entry(world, text)).index
        with said:
            print(index, text, flush=True)

def look():
    while True:
        with world.store.reading() as tx:
            head = tx.tlog.head
        with said:
            print("head", head.size, head.root.hex(), flush=True)
        time.sleep(0.005)

for n in range(16):
    threading.Thread(target=write, args=(n,)).start()
look()
"""


def test_what_was_acknowledged_survives_a_kill_and_every_tree_seen_before_is_its_beginning(
    tmp_path: Path,
) -> None:
    tmp_path.chmod(0o700)
    url = f"sqlite:///{tmp_path / 'state.db'}"
    process = subprocess.Popen(
        [sys.executable, "-c", APPEND, url, str(Path(__file__).parent), *sys.path],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line)
        if sum(not line.startswith("head") for line in lines) >= 200:
            break
    process.kill()
    lines += [line for line in process.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
    process.wait()
    with open_store(url) as store, store.reading() as tx:
        head = tx.tlog.head
        data = {e.index: e.data for e in tx.tlog.read(0, head.size)}
        assert sorted(data) == list(range(head.size))
        assert list(tx.tlog.hashes(0, 0, head.size)) == [leaf_hash(data[i]) for i in range(head.size)]
        assert tree_head(tx.tlog, head.size) == head
        prover, heads = Prover(tx.tlog, head.size), 0
        for line in lines:
            first, *rest = line.split()
            if first == "head":
                heads += 1
                seen = TreeHead(int(rest[0]), bytes.fromhex(rest[1]))
                verify_consistency(prover.consistency(seen.size), old=seen, new=head)
            else:
                assert data[int(first)] == rest[0].encode()
    assert heads > 0
    assert len(lines) - heads >= 200
