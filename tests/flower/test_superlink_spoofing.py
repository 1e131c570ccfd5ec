"""A malicious node on Flower's own client code, against a victim beside it: the victim's reply counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import httpx
import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.app.error import Error
from flwr.app.message import make_message
from flwr.common.serde import message_to_proto
from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, ObjectTree, PullObjectRequest
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from superlink_world import (
    AppSide,
    Domain,
    NodeSide,
    RunningSuperlink,
    copy_metadata,
    node_side,
    object_ids,
    reply_to,
    running_superlink,
    text_of,
    without_content,
)


@dataclass
class Scene:
    """A victim and an attacker, each given an instruction of the same run and holding it."""

    app: AppSide
    victim: NodeSide
    attacker: NodeSide
    theirs: Message
    mine: Message
    superlink: RunningSuperlink

    def refused(self, act: Callable[[], object]) -> tuple[int, str]:
        with pytest.raises(httpx.HTTPStatusError) as error:
            act()
        return error.value.response.status_code, error.value.response.json()["reason"]


@pytest.fixture(scope="module")
def superlink(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSuperlink]:
    with running_superlink(Domain(), tmp_path_factory.mktemp("spoofing"), hold_seconds=0.5) as running:
        yield running


@pytest.fixture
def scene(superlink: RunningSuperlink, request: pytest.FixtureRequest) -> Iterator[Scene]:
    """After each attack the victim sends its reply, and the ServerApp gets it, from the victim."""
    names = [f"{who}-{abs(hash(request.node.name)) % 10**9}" for who in ("victim", "attacker")]
    victim_site, attacker_site = (superlink.domain.enroll(name) for name in names)
    with node_side(victim_site, superlink) as victim, node_side(attacker_site, superlink) as attacker:
        app = AppSide(superlink)
        theirs_id, mine_id = app.instruct(victim_site.node_id, attacker_site.node_id)
        theirs, mine = victim.receive(), attacker.receive()
        assert (theirs.metadata.message_id, mine.metadata.message_id) == (theirs_id, mine_id)
        scene = Scene(app, victim, attacker, theirs, mine, superlink)
        yield scene
        victim.send(reply_to(scene.theirs, "honest"))
        (kept,) = app.collect(scene.theirs.metadata.message_id)
        assert text_of(kept) == "honest"
        assert kept.metadata.src_node_id == victim_site.node_id


def forged(base: Message, text: str = "forged", **metadata: object) -> Message:
    """A reply that says of itself what it pleases."""
    return make_message(
        metadata=copy_metadata(base.metadata, **metadata),
        content=RecordDict({"answer": ConfigRecord({"text": text})}),
    )


def test_a_reply_in_anothers_name_is_refused(scene: Scene) -> None:
    """`cross`: the victim's reply, whole, from the attacker's connection."""
    stolen = reply_to(scene.theirs, "forged")
    assert scene.refused(lambda: scene.attacker.send(stolen)) == (403, "wrong-node")


def test_a_reply_to_anothers_instruction_is_refused(scene: Scene) -> None:
    answer = forged(reply_to(scene.theirs, ""), src_node_id=scene.attacker.node.node_id)
    assert scene.refused(lambda: scene.attacker.send(answer)) == (403, "wrong-instruction")


def test_an_uploaded_message_that_names_another_sender_is_refused(scene: Scene) -> None:
    """`spoofsrc`: announced as the attacker's own, uploaded as the victim's."""
    honest = reply_to(scene.mine, "forged")
    inside = forged(honest, src_node_id=scene.victim.node.node_id)
    wanted, session = scene.attacker.announce(inside, claim=honest)
    assert scene.refused(lambda: scene.attacker.upload(inside, wanted, session)) == (400, "wrong-node")
    (end,) = scene.app.collect(scene.mine.metadata.message_id)
    assert end.has_error()  # at once, not when the upload expires


def test_an_uploaded_message_that_answers_anothers_instruction_is_refused(scene: Scene) -> None:
    """`steal`: announced as the answer to the attacker's instruction, uploaded as one to the victim's."""
    honest = reply_to(scene.mine, "forged")
    inside = forged(
        honest,
        reply_to_message_id=scene.theirs.metadata.message_id,
        src_node_id=scene.victim.node.node_id,
    )
    wanted, session = scene.attacker.announce(inside, claim=honest)
    assert scene.refused(lambda: scene.attacker.upload(inside, wanted, session)) == (400, "wrong-node")


def test_an_error_inside_that_was_not_announced_is_refused(scene: Scene) -> None:
    honest = reply_to(scene.mine, "forged")
    inside = make_message(metadata=honest.metadata, error=Error(code=0, reason="not announced"))
    wanted, session = scene.attacker.announce(inside, claim=honest)
    assert scene.refused(lambda: scene.attacker.upload(inside, wanted, session)) == (400, "wrong-node")


def test_an_error_reply_that_was_announced_goes_through(scene: Scene) -> None:
    failure = make_message(
        metadata=reply_to(scene.mine, "").metadata, error=Error(code=0, reason="out of memory" * 100)
    )
    scene.attacker.send(failure)
    (got,) = scene.app.collect(scene.mine.metadata.message_id)
    assert got.has_error()
    assert got.metadata.src_node_id == scene.attacker.node.node_id


def test_an_object_with_other_children_than_announced_is_refused(scene: Scene) -> None:
    reply, other = reply_to(scene.mine, "one"), reply_to(scene.mine, "two")
    tree = ObjectTree(object_id=reply.object_id, children=get_object_tree(other).children)
    proto = message_to_proto(without_content(reply))
    proto.metadata.message_id = reply.object_id
    answer = scene.attacker.client.PushMessages(
        PushMessagesRequest(node=scene.attacker.node, messages_list=[proto], message_object_trees=[tree])
    )
    wanted = [reply.object_id]
    act = partial(scene.attacker.upload, reply, wanted, answer.session_id)
    assert scene.refused(act) == (400, "structure")


def test_an_object_that_was_not_announced_is_refused(scene: Scene) -> None:
    reply, other = reply_to(scene.mine, "one"), reply_to(scene.mine, "two")
    _, session = scene.attacker.announce(reply)
    for object_id, item in get_all_nested_objects(other).items():
        act = partial(scene.attacker.push_object, scene.app.run_id, session, object_id, item.deflate())
        assert scene.refused(act) == (400, "structure")


def test_confirming_anothers_instruction_is_refused(scene: Scene) -> None:
    """It would delete the instruction before its owner fetched it."""
    request = ConfirmMessageReceivedRequest(
        node=scene.attacker.node,
        run_id=scene.app.run_id,
        message_object_id=scene.theirs.metadata.message_id,
    )
    assert scene.refused(lambda: scene.attacker.client.ConfirmMessageReceived(request)) == (
        403,
        "wrong-instruction",
    )


def test_fetching_what_was_not_given_is_refused(scene: Scene) -> None:
    theirs = reply_to(scene.theirs, "secret weights")
    wanted, session = scene.victim.announce(theirs)
    scene.victim.upload(theirs, wanted, session)
    for object_id in [*wanted, scene.theirs.metadata.message_id, "0" * 64]:
        request = PullObjectRequest(node=scene.attacker.node, run_id=scene.app.run_id, object_id=object_id)
        act = partial(scene.attacker.client.PullObject, request)
        assert scene.refused(act) == (403, "wrong-instruction")
    (kept,) = scene.app.collect(scene.theirs.metadata.message_id)
    assert text_of(kept) == "secret weights"
    scene.app.instruct(scene.victim.node.node_id)
    scene.theirs = scene.victim.receive()


def test_uploading_in_anothers_session_is_refused(scene: Scene) -> None:
    theirs = reply_to(scene.theirs, "honest")
    wanted, session = scene.victim.announce(theirs)
    for object_id, item in get_all_nested_objects(theirs).items():
        for guess in (session, "", "no-such-session"):
            act = partial(scene.attacker.push_object, scene.app.run_id, guess, object_id, item.deflate())
            assert scene.refused(act) == (403, "wrong-node")
    scene.victim.upload(theirs, wanted, session)
    (kept,) = scene.app.collect(scene.theirs.metadata.message_id)
    assert text_of(kept) == "honest"
    scene.app.instruct(scene.victim.node.node_id)
    scene.theirs = scene.victim.receive()


def test_a_second_different_reply_is_refused_and_the_same_one_again_is_not(scene: Scene) -> None:
    first, second = reply_to(scene.mine, "first"), reply_to(scene.mine, "second")
    scene.attacker.send(first)
    assert scene.refused(lambda: scene.attacker.send(second)) == (409, "duplicate")
    scene.attacker.announce(first)  # as after an answer that got lost
    (kept,) = scene.app.collect(scene.mine.metadata.message_id)
    assert text_of(kept) == "first"


@pytest.mark.parametrize("whose", ["mine", "theirs"])
def test_a_reply_under_the_id_of_an_instruction_is_refused(scene: Scene, whose: str) -> None:
    """The SuperLink holds that object already, and would hand it out as the reply."""
    instruction: Message = getattr(scene, whose)
    proto = message_to_proto(without_content(reply_to(scene.mine, "")))
    proto.metadata.message_id = instruction.metadata.message_id
    request = PushMessagesRequest(
        node=scene.attacker.node,
        messages_list=[proto],
        message_object_trees=[ObjectTree(object_id=instruction.metadata.message_id)],
    )
    assert scene.refused(lambda: scene.attacker.client.PushMessages(request)) == (409, "replayed")


def test_a_reply_in_another_run_or_to_another_node_is_refused(scene: Scene) -> None:
    base = reply_to(scene.mine, "")
    other_run = AppSide(scene.superlink).run_id
    for change, reason in (
        ({"run_id": other_run}, "wrong-run"),
        ({"dst_node_id": scene.victim.node.node_id}, "wrong-instruction"),
        ({"message_type": "evaluate"}, "wrong-instruction"),
    ):
        act = partial(scene.attacker.send, forged(base, **change))
        assert scene.refused(act) == (403, reason)


def test_several_messages_or_a_monstrous_tree_are_refused(scene: Scene) -> None:
    reply = reply_to(scene.mine, "one")
    proto = message_to_proto(without_content(reply))
    proto.metadata.message_id = reply.object_id
    tree = get_object_tree(reply)
    deep = tree
    for number in range(10):
        deep = ObjectTree(object_id=reply.object_id if number == 9 else "a" * 64, children=[deep])
    for messages, trees, expected in (
        ([proto, proto], [tree, tree], (400, "malformed")),
        ([], [], (400, "malformed")),
        ([proto], [deep], (413, "oversized")),
        ([proto], [ObjectTree(object_id="../etc/passwd")], (400, "structure")),
    ):
        request = PushMessagesRequest(
            node=scene.attacker.node, messages_list=messages, message_object_trees=trees
        )
        act = partial(scene.attacker.client.PushMessages, request)
        assert scene.refused(act) == expected


def test_asking_about_a_run_one_is_not_part_of_is_refused(scene: Scene) -> None:
    from flwr.proto.run_pb2 import GetRunRequest

    other = AppSide(scene.superlink)
    request = GetRunRequest(node=scene.attacker.node, run_id=other.run_id)
    assert scene.refused(lambda: scene.attacker.client.GetRun(request)) == (403, "wrong-run")
    own = GetRunRequest(node=scene.attacker.node, run_id=scene.app.run_id)
    assert scene.attacker.client.GetRun(own).run.run_id == scene.app.run_id


def test_every_object_of_an_instruction_can_be_fetched(scene: Scene) -> None:
    (message_id,) = scene.app.instruct(scene.attacker.node.node_id, text="again")
    pulled = scene.attacker.pull()
    assert pulled is not None
    message, tree = pulled
    assert message.metadata.message_id == message_id
    assert len(object_ids(tree)) >= 3
    assert text_of(scene.attacker.fetch(message, tree)) == "again"
