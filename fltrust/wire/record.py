"""The written record of a run as JSON lines: exported whole, verified anywhere."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from cryptography import x509
from google.protobuf import json_format

from fltrust.errors import CertificateRefused, Malformed, NotFound, Oversized
from fltrust.identity import Digest, Epoch, RunId
from fltrust.pki.bundle import pin_bundle
from fltrust.pki.second import second_roots_of
from fltrust.pki.types import TrustBundle
from fltrust.revocation.events import TrustEvent
from fltrust.revocation.ports import TrustFeed
from fltrust.rounds.chain import ChainReport, verify_chain
from fltrust.rounds.logged import LogEvidence, PlaceProof
from fltrust.rounds.types import RoundArchive, RoundRecord
from fltrust.wire.enrollment import bundle_from_pb, bundle_to_pb
from fltrust.wire.federation import MAX_DOMAINS
from fltrust.wire.pb import record_pb2 as pb
from fltrust.wire.rounds import (
    add_place,
    place_to_pb,
    record_from_pb,
    record_to_pb,
    tree_from_pb,
    tree_to_pb,
)
from fltrust.wire.trust import event_from_pb, event_to_pb
from fltrust.wire.values import at_most

FORMAT = "fltrust-record-v2"
MAX_RECORD = 2 * 1024**3
MAX_LINE = 128 * 1024 * 1024


class Archive(RoundArchive, TrustFeed, Protocol):
    """Where a record is read from: a session with the coordinator."""


@dataclass(frozen=True, slots=True)
class WrittenRecord:
    """What one record file holds; nothing of it is verified yet."""

    run_id: RunId
    bundle: TrustBundle
    foreign: tuple[TrustBundle, ...]
    events: tuple[TrustEvent, ...]
    rounds: tuple[RoundRecord, ...]
    log: LogEvidence


def export_record(
    archive: Archive, bundle: TrustBundle, run_id: RunId, *, foreign: Iterable[TrustBundle] = ()
) -> bytes:
    """The record of a run, complete: roots, trust feed, rounds with all evidence, their places in the log.

    The run may go on meanwhile. So the rounds are read first, then the proofs, then the feed: no round in
    the record stands outside the tree, or names an epoch past the feed. `NotFound` for a run
    without rounds, `Oversized` for a record that nobody would read.
    """
    summaries = archive.list_rounds(run_id)
    if not summaries:
        raise NotFound(f"expected rounds of run {int(run_id)}, found none", hint="see: fltrust rounds list")
    rounds = [record_to_pb(archive.get_round(run_id, summary.key.step)) for summary in summaries]
    log = archive.prove_rounds(run_id)
    header = pb.RecordHeader(
        format=FORMAT,
        run_id=int(run_id),
        bundle=bundle_to_pb(bundle),
        foreign=map(bundle_to_pb, foreign),
    )
    lines = [pb.RecordLine(header=header)]
    lines.extend(pb.RecordLine(event=event_to_pb(event)) for event in _feed_so_far(archive))
    lines.extend(pb.RecordLine(round=found) for found in rounds)
    lines.append(pb.RecordLine(tree=tree_to_pb(log)))
    lines.extend(pb.RecordLine(place=place_to_pb(index, proof)) for index, proof in log.proofs.items())
    data = b"".join(json_format.MessageToJson(line, indent=None).encode() + b"\n" for line in lines)
    if len(data) > MAX_RECORD:
        raise Oversized(
            f"expected a record of at most {MAX_RECORD} bytes, which is what is read, got {len(data)}"
        )
    return data


def read_record(data: bytes) -> WrittenRecord:
    """Parse what `export_record` writes; bounded, and strict about unknown fields and order."""
    if len(data) > MAX_RECORD:
        raise Oversized(f"expected a record of at most {MAX_RECORD} bytes, got {len(data)}")
    lines = _lines(data)
    header = next(lines, None)
    if header is not None:
        at_most(header.header.foreign, MAX_DOMAINS, what="foreign domains in a record")
    if header is None or header.WhichOneof("line") != "header" or header.header.format != FORMAT:
        raise Malformed(f"expected a record that begins with a header of format {FORMAT!r}")
    events: list[TrustEvent] = []
    rounds: list[RoundRecord] = []
    tree: tuple[str, bytes] | None = None
    proofs: dict[int, PlaceProof] = {}
    for line in lines:
        match line.WhichOneof("line"):
            case "event":
                events.append(event_from_pb(line.event))
            case "round":
                rounds.append(record_from_pb(line.round))
            case "tree" if tree is None:
                tree = tree_from_pb(line.tree)
            case "place":
                add_place(proofs, line.place)
            case other:
                raise Malformed(f"expected events, rounds, one tree and places after the header, got {other}")
    if tree is None:
        raise Malformed("expected the log's tree in a record, found none")
    return WrittenRecord(
        RunId(header.header.run_id),
        bundle_from_pb(header.header.bundle),
        tuple(map(bundle_from_pb, header.header.foreign)),
        tuple(events),
        tuple(rounds),
        LogEvidence(*tree, proofs),
    )


def verify_record(
    data: bytes,
    run_id: RunId,
    *,
    roots: Collection[Digest],
    second_roots: Collection[x509.Certificate] | None = None,
) -> ChainReport:
    """Verify a record with nothing trusted but the fingerprints of the roots: one, or two where the trust
    domain changed its root in between.

    1. The record is well formed and about this run, of which it holds a round at least.
    2. One of its roots at least has such a fingerprint; those that have none are dropped. So are those of
       foreign domains whose participants took part, where nobody vouches for them: what they sent does not
       verify then.
    3. Steps 1 to 5 of `fltrust.rounds.chain.verify_chain`; with `second_roots`, step 6 as well.

    The trust feed in a record is what the coordinator told the exporter: it is checked against the
    receipts' epochs, but not signed by itself. The log's key is the one that the receipts name.
    """
    record = read_record(data)  # 1
    if record.run_id != run_id or any(r.key.run_id != run_id for r in record.rounds):
        raise Malformed(f"expected the record of run {int(run_id)}, got that of run {int(record.run_id)}")
    if not record.rounds:
        raise NotFound(f"expected rounds of run {int(run_id)} in the record, found none")
    try:
        trusted = pin_bundle(record.bundle, *roots)  # 2
    except CertificateRefused as error:
        error.hint = error.hint or "is this the record of another federation?"
        raise
    foreign = []
    for bundle in record.foreign:
        with suppress(CertificateRefused):
            foreign.append(pin_bundle(bundle, *roots, unnamed=True))
    return verify_chain(  # 3
        record.rounds,
        trusted,
        log=record.log,
        events=record.events,
        foreign=foreign,
        second_roots=None if second_roots is None else second_roots_of(second_roots),
    )


def _feed_so_far(archive: TrustFeed) -> Iterator[TrustEvent]:
    for item in archive.watch(Epoch(0)):
        if not isinstance(item, TrustEvent):
            return
        yield item


def _lines(data: bytes) -> Iterator[pb.RecordLine]:
    for line in _split(data):
        if len(line) > MAX_LINE:
            raise Oversized(f"expected lines of at most {MAX_LINE} bytes in a record, got {len(line)}")
        message = pb.RecordLine()
        try:
            json_format.Parse(line, message, max_recursion_depth=16)
        except (json_format.ParseError, UnicodeDecodeError, RecursionError, ValueError):
            raise Malformed("expected a record of JSON lines, got a line that is none") from None
        yield message


def _split(data: bytes) -> Iterable[bytes]:
    return (line for line in data.split(b"\n") if line)
