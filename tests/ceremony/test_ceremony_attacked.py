"""A ceremony's machine whose clock stands wrong, and whose power fails at the worst moment."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import pytest
from test_ceremony_room import DOMAIN, START, Clock, pair, people, request, roster

from fltrust.ceremony.files import Act, Answer
from fltrust.ceremony.holders import Holder
from fltrust.ceremony.room import Room
from fltrust.errors import Refused
from fltrust.pki.authority import read_certificate

__all__ = ["people"]


def room_of(folder: Path, people: dict[str, Holder], clock: Clock) -> Room:
    who = pair(people, "alice", "bob")
    return Room.create(folder, DOMAIN, roster=roster(people), holders=who, clock=clock)


def test_a_clock_that_is_behind_is_said_and_ends_no_room(tmp_path: Path, people: dict[str, Holder]) -> None:
    clock = Clock()
    room, who = room_of(tmp_path / "room", people, clock), pair(people, "alice", "bob")
    clock.time -= timedelta(days=365)  # its battery is empty
    with pytest.raises(Refused) as refused:
        room.perform(request(), who)
    assert refused.value.reason == "clock-behind"
    clock.time = START + timedelta(days=1)
    Room(tmp_path / "room", clock=clock).perform(request(), who)
    assert len(Room(tmp_path / "room", clock=clock).told()) == 2


def test_a_clock_that_jumps_back_while_the_key_is_used_ends_no_room(
    tmp_path: Path, people: dict[str, Holder], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    room, who = room_of(tmp_path / "room", people, clock), pair(people, "alice", "bob")
    real = Room._open

    def jump(self: Room, holders: list[Holder]) -> object:
        clock.time -= timedelta(hours=1)
        return real(self, holders)

    with monkeypatch.context() as jumping:
        jumping.setattr(Room, "_open", jump)
        with pytest.raises(Refused):
            room.perform(request(), who)
    clock.time += timedelta(hours=2)
    assert len(Room(tmp_path / "room", clock=clock).told()) == 1
    room.perform(request(), who)


@pytest.mark.parametrize("act", ["roll the root", "change holders"])
@pytest.mark.parametrize("moment", ["before the keys have their name", "before the old keys are gone"])
def test_a_crash_after_the_transcript_is_made_good_when_the_room_is_opened(
    tmp_path: Path, people: dict[str, Holder], monkeypatch: pytest.MonkeyPatch, act: str, moment: str
) -> None:
    clock = Clock()
    room, who = room_of(tmp_path / "room", people, clock), pair(people, "alice", "bob")
    before = room.root

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    def change() -> None:
        if act == "roll the root":
            room.perform(request(act=Act.ROLLOVER), who)
        else:
            room.change_holders(roster(people, ["bob", "carol"]), who)

    with monkeypatch.context() as crash:
        if moment == "before the keys have their name":
            crash.setattr(os, "rename", die)
        else:
            crash.setattr("fltrust.ceremony.room.sync_folder", die)
        with pytest.raises(KeyboardInterrupt):
            change()
    room = Room(tmp_path / "room", clock=clock)
    assert [path.name for path in (tmp_path / "room").glob("keys-*")] == ["keys-0002"]
    assert (room.root != before) is (act == "roll the root")
    assert read_certificate(tmp_path / "room" / "root.pem") == room.root
    room.perform(request(), pair(people, "bob", "carol"))
    if act == "roll the root":  # what came out is not lost with whoever should have written it
        answer = Answer.read(tmp_path / "room" / "answers" / "0002.json")
        assert answer.certificates[1] == room.root
