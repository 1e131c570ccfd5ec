"""What a log may try with those who read it: a crash, all of their memory, or their time."""

from __future__ import annotations

import http.client
import socket
import time
from itertools import islice
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from log_certificates import AT, Ca

from fltrust.errors import Malformed, NotFound, Unavailable
from fltrust.keys.ed25519 import generate_note_key
from fltrust.tlog.checkpoint import CheckpointPolicy, sign_checkpoint
from fltrust.tlog.entries import CertificateLeaf, parse_entry, to_milliseconds
from fltrust.tlog.fetching import HttpLog
from fltrust.tlog.merkle import MAX_SIZE
from fltrust.tlog.mirror import download
from fltrust.tlog.note import NoteKey
from fltrust.tlog.ports import TreeHead
from fltrust.tlog.tiles import count_tiles, each_tile, tiles_of

VERSION_3 = bytes.fromhex("a003020102")


def test_a_certificate_of_a_version_that_does_not_exist_is_malformed() -> None:
    """It raises what is no ValueError; a monitor that dies of it says nothing of the entries behind it."""
    der = Ca().issue("spiffe://hospitals.example/participant/site-a").public_bytes(Encoding.DER)
    odd = der.replace(VERSION_3, VERSION_3[:-1] + b"\x31", 1)
    with pytest.raises(Malformed):
        parse_entry(CertificateLeaf(to_milliseconds(AT), odd).encode())


def test_tiles_are_given_one_by_one_and_counted_without_being_made() -> None:
    for size, since in ((0, 0), (1, 0), (255, 3), (70_000, 0), (70_000, 66_000)):
        assert list(each_tile(size, since=since)) == tiles_of(size, since=since)
        assert count_tiles(size, since=since) == len(tiles_of(size, since=since))
    assert [str(tile) for tile in islice(each_tile(MAX_SIZE), 2)] == ["tile/entries/000", "tile/entries/001"]
    assert count_tiles(MAX_SIZE) > 2**55


def test_a_log_that_claims_all_the_entries_there_can_be_costs_no_memory(tmp_path: Path) -> None:
    key = NoteKey("hospitals.example/log", generate_note_key())
    note = sign_checkpoint(TreeHead(2**55, b"\x01" * 32), key)

    def fetch(path: str) -> bytes:
        if path == "checkpoint":
            return note
        raise NotFound(path)

    with pytest.raises(NotFound):
        download(fetch, tmp_path / "mirror", CheckpointPolicy((key.verifier,)))


def test_time_that_went_by_while_connecting_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The alarm finds no socket to shut down then; without another look, the rest could last for ever."""
    connect = http.client.HTTPConnection.connect

    def slowly(connection: http.client.HTTPConnection) -> None:
        time.sleep(0.3)
        connect(connection)

    monkeypatch.setattr(http.client.HTTPConnection, "connect", slowly)
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(5)
        log = HttpLog(f"http://127.0.0.1:{server.getsockname()[1]}", timeout=0.1)
        with pytest.raises(Unavailable, match="no whole answer"):
            log("checkpoint")
        asked, _ = server.accept()
        with asked:
            asked.settimeout(5)
            assert asked.recv(1) == b""
