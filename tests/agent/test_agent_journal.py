"""The journal: one answer to one instruction, whatever dies in between."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from agent_world import RUN, START, content, scene

from fltrust.agent.journal import Journal, Question
from fltrust.errors import Refusal, StatementRefused, StorageUnavailable
from fltrust.identity import Digest, RunId
from fltrust.updates.statement import Phase


def question(seed: int = 1, *, round: int = 1, run: int = RUN, phase: Phase = Phase.TRAIN) -> Question:  # noqa: A002
    return Question(Digest.sha256_of(bytes([seed])), f"{seed:032x}", RunId(run), phase, round)


def test_an_answer_survives_reopening(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    journal = Journal(path)
    journal.remember(question(), reply=content(1), at=START, sign=lambda: b"signed")
    journal.close()
    journal = Journal(path)
    again = journal.remember(question(), reply=content(1), at=START, sign=lambda: b"another")
    assert again == b"signed"
    with pytest.raises(StatementRefused) as caught:
        journal.remember(question(), reply=content(2), at=START, sign=lambda: b"another")
    assert caught.value.reason == Refusal.DUPLICATE


def test_rounds_do_not_go_back_after_reopening(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j")
    journal.remember(question(1, round=7), reply=content(1), at=START, sign=lambda: b"s")
    journal.close()
    journal = Journal(tmp_path / "j")
    journal.check(question(2, round=7))
    journal.check(question(2, round=1, phase=Phase.EVALUATE))
    with pytest.raises(StatementRefused) as caught:
        journal.check(question(2, round=6))
    assert caught.value.reason == Refusal.REPLAYED


def test_each_answered_round_moves_the_mark() -> None:
    journal = Journal(None)
    for number, seed in ((1, 1), (3, 2)):
        journal.remember(question(seed, round=number), reply=content(1), at=START, sign=lambda: b"s")
    with pytest.raises(StatementRefused):
        journal.remember(question(3, round=2), reply=content(1), at=START, sign=lambda: b"s")


def test_another_instruction_under_an_answered_id_is_refused() -> None:
    journal = Journal(None)
    journal.remember(question(1), reply=content(1), at=START, sign=lambda: b"s")
    twin = Question(Digest.sha256_of(b"twin"), question(1).instruction_id, RUN, Phase.TRAIN, 1)
    with pytest.raises(StatementRefused) as caught:
        journal.check(twin)
    assert caught.value.reason == Refusal.REPLAYED


def test_a_signature_that_fails_is_not_remembered() -> None:
    journal = Journal(None)

    def broken() -> bytes:
        raise RuntimeError("the token was pulled")

    with pytest.raises(RuntimeError):
        journal.remember(question(), reply=content(1), at=START, sign=broken)
    assert journal.remember(question(), reply=content(2), at=START, sign=lambda: b"s") == b"s"


def test_only_runs_that_were_closed_long_ago_are_forgotten() -> None:
    journal = Journal(None)
    for run in (1, 2, 3):
        journal.remember(question(run, run=run), reply=content(1), at=START, sign=lambda: b"s")
    journal.close_run(RunId(1), at=START)
    journal.close_run(RunId(2), at=START + timedelta(days=20))
    journal.close_run(RunId(99), at=START)
    assert journal.prune(now=START + timedelta(days=31)) == 1
    for run, kept in ((1, False), (2, True), (3, True)):
        signed = journal.remember(question(run, run=run), reply=content(1), at=START, sign=lambda: b"new")
        assert (signed == b"s") is kept
    assert journal.prune(now=START + timedelta(days=31)) == 0


def test_run_numbers_of_64_bits_are_kept_apart() -> None:
    journal = Journal(None)
    journal.remember(question(1, run=2**64 - 1, round=9), reply=content(1), at=START, sign=lambda: b"s")
    journal.check(question(2, run=2**63 - 1, round=1))
    with pytest.raises(StatementRefused):
        journal.check(question(2, run=2**64 - 1, round=1))


def test_the_file_is_private(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j")
    journal.remember(question(), reply=content(1), at=START, sign=lambda: b"s")
    for path in tmp_path.iterdir():
        assert path.stat().st_mode & 0o077 == 0, path


def test_what_is_no_journal_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "j"
    path.write_bytes(b"something else entirely" * 100)
    with pytest.raises(StorageUnavailable, match="restored"):
        Journal(path)
    assert path.read_bytes() == b"something else entirely" * 100


def test_a_newer_journal_is_refused(tmp_path: Path) -> None:
    Journal(tmp_path / "j").close()
    db = sqlite3.connect(tmp_path / "j")
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(StorageUnavailable, match="newer"):
        Journal(tmp_path / "j")


def test_a_disk_that_takes_nothing_signs_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j")
    journal._db.execute("PRAGMA query_only = ON")
    with pytest.raises(StorageUnavailable):
        journal.remember(question(), reply=content(1), at=START, sign=lambda: b"s")
    journal._db.execute("PRAGMA query_only = OFF")
    assert journal.remember(question(), reply=content(2), at=START, sign=lambda: b"t") == b"t"


def test_a_full_disk_signs_nothing_and_loses_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j")
    journal.remember(question(1), reply=content(1), at=START, sign=lambda: b"first")
    (pages,) = journal._db.execute("PRAGMA page_count").fetchone()
    journal._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StorageUnavailable, match="free space"):
        journal.remember(question(2), reply=content(1), at=START, sign=lambda: b"x" * 100_000)
    journal._db.execute("PRAGMA max_page_count = 100000")
    assert journal.remember(question(1), reply=content(1), at=START, sign=lambda: b"-") == b"first"
    assert journal.remember(question(2), reply=content(2), at=START, sign=lambda: b"second") == b"second"


def test_two_processes_on_one_journal_give_one_answer(tmp_path: Path) -> None:
    one, two = Journal(tmp_path / "j"), Journal(tmp_path / "j")
    one.remember(question(), reply=content(1), at=START, sign=lambda: b"one")
    assert two.remember(question(), reply=content(1), at=START, sign=lambda: b"two") == b"one"


SIGN = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from agent_world import START, content
from test_agent_journal import question
from fltrust.agent.journal import Journal
journal = Journal(Path(sys.argv[1]))
def sign():
    print("signing", flush=True)
    if sys.argv[3] == "inside":
        sys.stdin.readline()
    return b"by " + sys.argv[3].encode()
signed = journal.remember(question(), reply=content(1), at=START, sign=sign)
print("remembered", flush=True)
sys.stdin.readline()
print(signed.decode(), flush=True)
"""


def killed_at(path: Path, moment: str, word: str) -> None:
    """Run a process that signs, and kill it when it has said `word`."""
    process = subprocess.Popen(
        [sys.executable, "-c", SIGN, str(path), str(Path(__file__).parent), moment],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    while process.stdout.readline().strip() != word:
        assert process.poll() is None
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()


def test_killed_between_remembering_and_sending_the_answer_stays_the_one(tmp_path: Path) -> None:
    killed_at(tmp_path / "j", "after", "remembered")
    journal = Journal(tmp_path / "j")
    assert journal.remember(question(), reply=content(1), at=START, sign=lambda: b"new") == b"by after"
    with pytest.raises(StatementRefused):
        journal.remember(question(), reply=content(2), at=START, sign=lambda: b"new")


def test_killed_before_remembering_nothing_was_said_and_another_answer_is_free(tmp_path: Path) -> None:
    killed_at(tmp_path / "j", "inside", "signing")
    journal = Journal(tmp_path / "j")
    assert journal.remember(question(), reply=content(2), at=START, sign=lambda: b"new") == b"new"


def test_the_agent_of_a_new_process_gives_the_same_bytes(tmp_path: Path) -> None:
    here = scene(Journal(tmp_path / "j"))
    received = here.instruction()
    first = here.participant.sign_update(received, reply=content(9), reply_type="train")
    reborn = here.world.participant(here.site, Journal(tmp_path / "j"))
    assert reborn.sign_update(received, reply=content(9), reply_type="train") == first
    with pytest.raises(StatementRefused):
        reborn.sign_update(received, reply=content(8), reply_type="train")
