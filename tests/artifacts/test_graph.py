"""A lineage in text and as a picture."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree

from lineage_world import DOMAIN, believe, bundles, chain, initial, round_after, sha

from fltrust.artifacts.graph import svg, text_tree
from fltrust.artifacts.lineage import Lineage, verify_lineage
from fltrust.artifacts.provenance import BuildType, Provenance
from fltrust.identity import RunId

_NS = "{http://www.w3.org/2000/svg}"


def verified(statements: list[tuple[Provenance, int]]) -> Lineage:
    return verify_lineage(bundles(statements), head=None, verify_bundle=believe, domain=DOMAIN)


def words(picture: str) -> str:
    return "\n".join("".join(node.itertext()) for node in ElementTree.fromstring(picture).iter(f"{_NS}text"))


def test_text_names_each_step_and_who_is_in_it() -> None:
    lines = text_tree(verified(chain(2)))
    assert lines[0] == "● run 1 · step 2 · round 2"
    assert "2026-11-01 12:00:00 UTC · log entry 14" in lines[1]
    assert lines[2] == "│   3 updates: site-a (100), site-b (100), site-c (100)"
    assert lines[-2] == "○ run 1 · step 0 · initial model"
    assert not any("TAINTED" in line for line in lines)


def test_taints_are_marked_direct_or_by_descent() -> None:
    statements = chain(2)
    taints = {statements[1][0].tensors: True, statements[0][0].tensors: False}
    lines = text_tree(verified(statements), taints=taints)
    assert lines[0] == "✗ run 1 · step 2 · round 2   TAINTED BY DESCENT"
    assert "✗ run 1 · step 1 · round 1   TAINTED" in lines
    shown = words(svg(verified(statements), taints=taints))
    assert "step 1 · round 1   TAINTED\n" in shown
    assert "step 2 · round 2   TAINTED BY DESCENT" in shown


def test_a_replay_says_for_what_it_stands_and_without_whom() -> None:
    statements = chain(2)
    tainted, index = statements[0]
    clean, clean_index = statements[1]
    replay = replace(
        tainted,
        build_type=BuildType.REPLAYED_ROUND,
        run_id=RunId(9),
        tensors=sha("repaired"),
        previous=clean.as_input(log_index=clean_index),
        updates=tainted.updates[:2],
        tainted=tainted.as_input(log_index=index),
        without=(tainted.updates[2].public_name,),
    )
    lines = text_tree(verified([(replay, 99), *statements[1:]]))
    assert lines[0] == "◇ run 9 · step 2 · round 2 · replayed"
    assert "│   stands in for run 1 · step 2, without site-c" in lines


def test_a_run_that_goes_on_from_another_says_so() -> None:
    first = chain(1)
    earlier, index = first[0]
    start = initial(run=2, tensors=earlier.tensors, previous=earlier.as_input(log_index=index))
    lines = text_tree(verified([(round_after(start, log_index=42), 42), (start, 40), *first]))
    assert "│   goes on from run 1 · step 1" in lines


def test_the_picture_is_one_svg_that_loads_nothing() -> None:
    picture = svg(verified(chain(3)), title="digits & <friends>")
    root = ElementTree.fromstring(picture)
    assert root.tag == f"{_NS}svg"
    assert len(root.findall(f"{_NS}circle")) == 4
    assert root.find(f"{_NS}title").text == "digits & <friends>"  # type: ignore[union-attr]
    for word in ("href", "script", "style=", "url(", "<!", "&lt;friends"):
        assert (word in picture) == (word == "&lt;friends")


def test_a_long_lineage_and_a_large_round_are_cut_short() -> None:
    statements = chain(300)
    lines = text_tree(verified(statements))
    assert "┊  101 more steps" in lines
    assert words(svg(verified(statements))).count("updates:") == 199
    first = (initial(), 10)
    crowd = round_after(first[0], log_index=12, sites=tuple(f"{n}" for n in range(40)))
    assert any(line.endswith("and 28 more") for line in text_tree(verified([(crowd, 12), first])))
