"""`fltrust rounds verify` as a script relies on it: what does not hold is not exit code 0."""

from __future__ import annotations

import json
from base64 import b64encode
from pathlib import Path

import pytest

from fltrust.cli.main import run
from fltrust.identity import Digest, NodeId, Role, RunId
from fltrust.pki import root_fingerprint
from fltrust.rounds.types import CohortMember, RoundKey
from fltrust.testing import ScratchCoordinator
from fltrust.updates import Phase
from fltrust.wire.record import export_record

RUN = RunId(7)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """The record of a run with one sealed round, in a file; the root's fingerprint lies beside it."""
    path = tmp_path / "record"
    with ScratchCoordinator() as coordinator:
        site, main = coordinator.enroll("site-a"), coordinator.enroll("main", Role.AGGREGATOR)
        member = CohortMember(site.spiffe_id, NodeId(2), site.node_key, Digest.sha256_of(b"instruction"))
        key = RoundKey(RUN, 1, 1, Phase.TRAIN)
        coordinator.session(main).open_round(key, (member,))
        coordinator.session(main).seal_round(key, (), ())
        path.write_bytes(export_record(coordinator.as_operator(), coordinator.bundle, RUN))
        path.with_name("root").write_text(str(root_fingerprint(coordinator.bundle.roots[0])))
    return path


def verify(path: Path, *more: str) -> int:
    root = path.with_name("root").read_text()
    return run(["rounds", "verify", str(int(RUN)), "--record", str(path), "--root", root, *more])


def test_a_record_that_holds_is_exit_code_0(written: Path) -> None:
    assert verify(written) == 0


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_a_forged_record_is_told_by_the_exit_code(
    written: Path, more: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [json.loads(line) for line in written.read_text().splitlines()]
    (sealed,) = (line["round"] for line in lines if "round" in line)
    sealed["key"]["round"] = 9  # the receipt speaks of round 1
    written.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert verify(written, *more) == 5
    said = capsys.readouterr().out
    assert json.loads(said)["good"] is False if more else "FAILED" in said


@pytest.mark.parametrize("part", ["inclusion", "consistency"])
def test_a_round_that_is_not_where_it_says_in_the_log_is_told_by_the_exit_code(
    written: Path, part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [json.loads(line) for line in written.read_text().splitlines()]
    (place,) = (line["place"] for line in lines if "place" in line)
    place[part][0] = b64encode(bytes(32)).decode()
    written.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert verify(written) == 5
    assert "log: " in capsys.readouterr().out


def test_a_record_without_a_round_proves_nothing(written: Path) -> None:
    lines = [line for line in written.read_text().splitlines() if '"round":' not in line]
    written.write_text("\n".join(lines) + "\n")
    assert verify(written) == 6
