"""Blast radius on random histories, against a walk over the graph that knows nothing of databases."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from fltrust.artifacts.keeping import AggregateRecord, ContributionRecord, ModelRecord
from fltrust.artifacts.ports import StepOfRun
from fltrust.coordinator.blast import blast_radius
from fltrust.coordinator.ports import Transaction
from fltrust.identity import Digest, Role, RunId, SpiffeId
from fltrust.storage import Store, open_store

DOMAIN = "hospitals.example"
START = datetime(2026, 3, 1, tzinfo=UTC)
SITES = [SpiffeId.of(DOMAIN, Role.PARTICIPANT, name) for name in ("a", "b", "c")]
SIGNER = SpiffeId.of(DOMAIN, Role.SIGNER, "release")


class Clock:
    def now(self) -> datetime:
        return START

    def monotonic(self) -> float:
        return 0.0


@dataclass
class Node:
    """An aggregate: from which others it comes, and who signed what in it, and when."""

    place: StepOfRun
    parents: list[int]
    signed: dict[int, int]
    tensors: Digest = field(default_factory=lambda: Digest("sha256", secrets.token_bytes(32)))
    models: int = 0


@st.composite
def histories(draw: st.DrawFn) -> list[Node]:
    """Aggregates in the order recorded: each from up to two earlier ones, of any run."""
    nodes: list[Node] = []
    for number in range(draw(st.integers(1, 14))):
        earlier = st.integers(0, number - 1) if number else st.nothing()
        parents = draw(st.lists(earlier, max_size=2, unique=True)) if number else []
        signed = draw(st.dictionaries(st.integers(0, 2), st.integers(0, 9), max_size=3))
        place = StepOfRun(RunId(draw(st.integers(1, 3))), number)
        nodes.append(Node(place, parents, signed, models=draw(st.integers(0, 2))))
    return nodes


@contextmanager
def stored(nodes: list[Node]) -> Iterator[Store]:
    with open_store("sqlite://") as store:
        with store.writing() as tx:
            _write(tx, nodes)
        yield store


def _write(tx: Transaction, nodes: list[Node]) -> None:
    for number, node in enumerate(nodes):
        stated, *others = [nodes[parent].place for parent in node.parents] or [None]
        tx.aggregates.add(
            AggregateRecord(
                run_id=node.place.run_id,
                step=node.place.step,
                round=number,
                tensors=node.tensors,
                model=Digest("fltrust-model-v1", secrets.token_bytes(32)),
                previous=None,
                log_index=10 * number,
                bundle=b"bundle",
                recorded_at=START,
                parent=stated,
                same_as=tuple(place for place in others if place is not None),
            )
        )
        tx.contributions.add_all(
            ContributionRecord(
                run_id=node.place.run_id,
                step=node.place.step,
                participant=SITES[site],
                signed_at=START + timedelta(hours=hour),
                update=Digest.sha256_of(b"u"),
                certificate=Digest.sha256_of(b"c"),
                log_index=10 * number,
            )
            for site, hour in node.signed.items()
        )
        for extra in range(node.models):
            says_so = extra == 0
            tx.models.add(
                ModelRecord(
                    name=f"{number}-{extra}",
                    subject=Digest("sha256", secrets.token_bytes(32)),
                    tensors=() if says_so else (node.tensors,),
                    aggregate=node.place if says_so else None,
                    signer=SIGNER,
                    log_index=10 * number + 1 + extra,
                    bundle=b"bundle",
                    recorded_at=START,
                )
            )


def walk(nodes: list[Node], site: int, hour: int) -> tuple[dict[int, bool], dict[str, bool]]:
    """The same by hand: forward through the list, since nothing comes from what is later."""
    spoilt: dict[int, bool] = {}
    for number, node in enumerate(nodes):
        if node.signed.get(site, -1) >= hour:
            spoilt[number] = True
        elif any(parent in spoilt for parent in node.parents):
            spoilt[number] = False
    models = {f"{n}-{i}": is_direct for n, is_direct in spoilt.items() for i in range(nodes[n].models)}
    return spoilt, models


@settings(max_examples=60, deadline=None)
@given(histories(), st.integers(0, 2), st.integers(0, 10))
def test_the_blast_radius_is_that_of_a_walk_over_the_graph(nodes: list[Node], site: int, hour: int) -> None:
    with stored(nodes) as store, store.reading() as tx:
        found = blast_radius(tx, SITES[site], START + timedelta(hours=hour))
    spoilt, models = walk(nodes, site, hour)
    assert {a.step: a.is_direct for a in found.aggregates} == {
        nodes[n].place.step: is_direct for n, is_direct in spoilt.items()
    }
    assert {m.name: m.is_direct for m in found.models} == models
    assert [a.log_index for a in found.aggregates] == sorted(a.log_index for a in found.aggregates)


@settings(max_examples=60, deadline=None)
@given(histories(), st.data())
def test_ancestry_is_the_stated_line_back_to_its_beginning(nodes: list[Node], data: st.DataObject) -> None:
    number = data.draw(st.integers(0, len(nodes) - 1))
    with stored(nodes) as store, store.reading() as tx:
        found = tx.aggregates.ancestry(nodes[number].place, limit=100)
        short = tx.aggregates.ancestry(nodes[number].place, limit=2)
    line = [number]
    while nodes[line[-1]].parents:
        line.append(nodes[line[-1]].parents[0])
    assert found == tuple(nodes[n].place for n in line)
    assert short == found[:2]
