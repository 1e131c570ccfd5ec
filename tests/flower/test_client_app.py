"""A `TrustedClientApp` runs nothing on an instruction that it cannot trust, and signs what it answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import pytest
from app_world import answering, honest, instruction, plus_one, train, trusted
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.client import NumPyClient
from flwr.clientapp import ClientApp

from fltrust.agent.handlers import participant_handlers
from fltrust.agent.server import AgentServer
from fltrust.errors import AgentUnavailable, FltrustError, Refusal, Revoked
from fltrust.flower import TrustedClientApp
from fltrust.flower import agents as agents_module
from fltrust.flower._private import become_server_app, copy_message
from fltrust.flower.agents import register_in_process
from fltrust.flower.records import Carried, attach, detach
from fltrust.identity import Role, RunId
from fltrust.revocation.events import RevocationReason
from fltrust.revocation.ports import RevocationTarget
from fltrust.testing import LocalFederation, LocalParticipant
from fltrust.testing.local_grid import copy_records, wire_copy
from fltrust.updates import SignedStatement, UpdateStatement, unverified_statement


class Counting:
    """An app that counts how often it ran."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, message: Message) -> RecordDict:
        self.calls += 1
        return plus_one(message)


@pytest.fixture
def counting() -> Counting:
    return Counting()


@pytest.fixture
def federation(counting: Counting) -> Iterator[LocalFederation]:
    with LocalFederation(answering(counting), participants=2) as made:
        yield made


def signed_instruction(federation: LocalFederation, site: str = "site-0", **options: Any) -> Message:
    """What reaches a site, as it came over the wire, without the site answering it."""
    came: SimpleQueue[Message] = SimpleQueue()
    federation[site].mischief = lambda asked, _reply: came.put(asked)  # and nothing leaves the site
    with trusted(federation) as grid:
        grid.push_messages([instruction(federation[site].node_id, **options)])
        return wire_copy(came.get(timeout=10))


def answer(app: ClientApp, message: Message, participant: LocalParticipant) -> Message:
    return app(message, participant.context)


def refusal_of(app: ClientApp, message: Message, participant: LocalParticipant) -> str:
    with pytest.raises(FltrustError) as caught:
        answer(app, message, participant)
    return caught.value.reason


def test_a_trusted_instruction_is_answered_and_the_answer_is_signed(federation: LocalFederation) -> None:
    train(federation)
    for participant in federation.participants:
        (reply,) = participant.sent
        _, carried = detach(reply.content)
        assert carried is not None
        statement = unverified_statement(SignedStatement.from_bytes(carried.statement))
        assert isinstance(statement, UpdateStatement)
        assert statement.participant == participant.spiffe_id
        assert int(statement.node_id) == participant.node_id


def test_the_app_never_sees_our_record() -> None:
    seen: list[list[str]] = []

    def look(message: Message) -> RecordDict:
        seen.append(list(message.content))
        return plus_one(message)

    with LocalFederation(answering(look), participants=1) as federation:
        train(federation)
    assert seen == [["arrays", "config"]]


def test_an_unsigned_instruction_is_refused_before_the_app_runs(
    federation: LocalFederation, counting: Counting
) -> None:
    become_server_app(int(federation.run_id))
    site = federation["site-0"]
    message = instruction(site.node_id)
    with pytest.raises(FltrustError, match="TrustedStrategy") as caught:
        answer(honest(), message, site)
    assert caught.value.reason == Refusal.UNSIGNED
    assert counting.calls == 0


def _other_weights(records: RecordDict) -> None:
    records["arrays"] = ArrayRecord({"w": Array(np.ones(4, dtype=np.float32))})


def _other_config(records: RecordDict) -> None:
    records["config"] = ConfigRecord({"server-round": 1, "lr": 9.0})


def _more(records: RecordDict) -> None:
    records["more"] = MetricRecord({"x": 1})


def _reordered(records: RecordDict) -> None:
    arrays = records["arrays"]
    del records["arrays"]
    records["arrays"] = arrays


@pytest.mark.parametrize("change", [_other_weights, _other_config, _more, _reordered])
def test_an_altered_instruction_is_refused_before_the_app_runs(
    federation: LocalFederation, counting: Counting, change: Callable[[RecordDict], None]
) -> None:
    message = signed_instruction(federation)
    ran = counting.calls
    change(message.content)
    app = answering(counting)
    assert refusal_of(app, message, federation["site-0"]) in (Refusal.DIGEST_MISMATCH, Refusal.WRONG_MODEL)
    assert counting.calls == ran


def test_the_instruction_of_another_site_is_refused(federation: LocalFederation) -> None:
    message = signed_instruction(federation, "site-0")
    other = federation["site-1"]
    message.metadata.dst_node_id = int(other.node_id)
    assert refusal_of(honest(), message, other) == Refusal.WRONG_PARTICIPANT


def test_a_message_for_another_node_than_ours_is_refused(federation: LocalFederation) -> None:
    message = signed_instruction(federation, "site-0")
    assert refusal_of(honest(), message, federation["site-1"]) == Refusal.WRONG_NODE


def test_an_instruction_of_another_run_is_refused(federation: LocalFederation) -> None:
    message = signed_instruction(federation)
    site = federation["site-0"]
    for claimed in (message.metadata, site.context):  # the SuperLink says, of both, that it is another run
        vars(claimed)["_run_id" if claimed is message.metadata else "run_id"] = int(federation.run_id) + 1
    register_in_process(RunId(federation.run_id + 1), site.node_id, site.agent)
    assert refusal_of(honest(), message, site) == Refusal.WRONG_RUN
    agents_module.forget_in_process(RunId(federation.run_id + 1))


def test_a_message_of_another_run_than_the_context_is_refused(federation: LocalFederation) -> None:
    message = signed_instruction(federation)
    vars(message.metadata)["_run_id"] = int(federation.run_id) + 1
    assert refusal_of(honest(), message, federation["site-0"]) == Refusal.WRONG_RUN


def test_the_same_instruction_again_gets_the_very_same_answer(federation: LocalFederation) -> None:
    train(federation, rounds=2)
    site = federation["site-0"]
    first = wire_copy(site.received[0])
    again = answer(honest(), first, site)
    assert detach(again.content)[1] == detach(site.sent[0].content)[1]


def test_an_instruction_for_a_round_before_the_last_one_is_refused_as_replayed(
    federation: LocalFederation,
) -> None:
    site = federation["site-0"]
    lost: SimpleQueue[Message] = SimpleQueue()

    def lose(message: Message) -> None:
        lost.put(wire_copy(message))
        raise RuntimeError("this instruction never reaches the app")

    with trusted(federation) as grid:
        site.before = lose
        grid.send_and_receive([instruction(site.node_id, server_round=1)])
        site.before = None
        grid.send_and_receive([instruction(site.node_id, server_round=2)])
    assert refusal_of(honest(), lost.get(timeout=10), site) == Refusal.REPLAYED


def test_a_second_answer_to_one_instruction_is_refused(federation: LocalFederation) -> None:
    train(federation)
    site = federation["site-0"]
    other = answering(lambda message: RecordDict({"config": message.content["config"]}))
    assert refusal_of(other, wire_copy(site.received[0]), site) == Refusal.DUPLICATE


def test_an_instruction_of_a_revoked_aggregator_is_refused(
    federation: LocalFederation, counting: Counting
) -> None:
    message = signed_instruction(federation)
    ran = counting.calls
    aggregator = RevocationTarget(name=(Role.AGGREGATOR, federation.aggregator.name))
    federation.coordinator.as_operator().revoke(aggregator, reason=RevocationReason.KEY_COMPROMISE)
    with pytest.raises(Revoked):
        answer(answering(counting), message, federation["site-0"])
    assert counting.calls == ran


def test_a_reply_under_the_reserved_name_is_refused(federation: LocalFederation) -> None:
    def squat(message: Message) -> RecordDict:
        return attach(plus_one(message), Carried(b"mine"))

    with LocalFederation(answering(squat), 1) as other:
        _, (report,) = train(other)
    assert dict(report.refused) == {"site-0": Refusal.NO_REPLY}


def test_an_error_reply_of_the_app_is_passed_on_unsigned(federation: LocalFederation) -> None:
    app = TrustedClientApp()

    @app.train()
    def fail(message: Message, context: Context) -> Message:
        return Message(Error(code=0, reason="no data today"), reply_to=message)

    with LocalFederation(app, 1) as other:
        _, (report,) = train(other)
        assert other["site-0"].sent[0].has_error()
    assert dict(report.refused) == {"site-0": Refusal.NO_REPLY}


# --- as a ClientApp


def test_decorators_actions_and_mods_work_as_on_a_client_app() -> None:
    order: list[str] = []

    def mod(message: Message, context: Context, call_next: Any) -> Message:
        order.append("mod")
        reply: Message = call_next(message, context)
        reply.content["from-mod"] = MetricRecord({"x": 1})
        return reply

    app = TrustedClientApp(mods=[mod])

    @app.train("special")
    def special(message: Message, context: Context) -> Message:
        order.append("app")
        return Message(plus_one(message), reply_to=message)

    with LocalFederation(app, 1) as federation, trusted(federation) as grid:
        (reply,) = grid.send_and_receive([instruction(federation["site-0"].node_id, kind="train.special")])
    assert order == ["mod", "app"]
    assert "from-mod" in reply.content  # what a mod makes of the reply is signed with it


def test_the_lifespan_begins_once_the_instruction_was_verified() -> None:
    app, seen = honest(), []

    @app.lifespan()
    def lifespan(context: Context) -> Iterator[None]:
        seen.append("enter")
        yield
        seen.append("exit")

    with LocalFederation(app, 1) as federation:
        train(federation)
        assert seen == ["enter", "exit"]
        become_server_app(int(federation.run_id))
        refusal_of(app, instruction(federation["site-0"].node_id), federation["site-0"])
    assert seen == ["enter", "exit"]


def test_a_wrapped_app_is_the_same_app_under_trust() -> None:
    plain = ClientApp()
    app = TrustedClientApp.wrap(plain)

    @plain.train()
    def registered_on_the_plain_one(message: Message, context: Context) -> Message:
        return Message(plus_one(message), reply_to=message)

    @app.evaluate()
    def registered_on_the_trusted_one(message: Message, context: Context) -> Message:
        metrics = MetricRecord({"num-examples": 1, "loss": 0.0})
        return Message(RecordDict({"metrics": metrics}), reply_to=message)

    with LocalFederation(app, 2) as federation:
        _, reports = train(federation, evaluate=True)
    assert [len(report.admitted) for report in reports] == [2, 2]


def test_a_client_fn_and_decorators_exclude_each_other_as_on_a_client_app() -> None:
    class Client(NumPyClient):
        pass

    app = TrustedClientApp(client_fn=lambda context: Client().to_client())  # noqa: ARG005 - Flower's signature
    with pytest.raises(ValueError, match="client_fn"):
        app.train()


def test_it_can_be_pickled_as_ray_does() -> None:
    cloudpickle = pytest.importorskip("cloudpickle", reason="Ray brings cloudpickle; it is not installed")
    again = cloudpickle.loads(cloudpickle.dumps(honest()))
    with LocalFederation(again, 1) as federation:
        _, (report,) = train(federation)
    assert report.admitted == ("site-0",)


def test_its_state_is_plain() -> None:
    held = [*vars(TrustedClientApp(mods=[])).values(), *vars(TrustedClientApp).values()]
    modules = {type(value).__module__.split(".")[0] for value in held}
    assert not modules & {"cryptography", "_thread", "ssl", "socket", "grpc"}


# --- finding the agent


def context(**node_config: Any) -> Context:
    return Context(run_id=5, node_id=6, node_config=node_config, state=RecordDict(), run_config={})


def test_without_an_agent_it_says_where_it_looked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLTRUST_AGENT_SOCKET", raising=False)
    with pytest.raises(AgentUnavailable) as caught:
        agents_module.participant_agent(context())
    assert "FLTRUST_AGENT_SOCKET" in str(caught.value)
    assert "fltrust supernode" in str(caught.value)


def test_the_environment_goes_before_the_node_config(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLTRUST_AGENT_SOCKET", "/run/one.sock")
    found = agents_module.participant_agent(context(**{"fltrust-socket": "/run/two.sock"}))
    assert getattr(found, "path") == Path("/run/one.sock")  # noqa: B009
    monkeypatch.delenv("FLTRUST_AGENT_SOCKET")
    found = agents_module.participant_agent(context(**{"fltrust-socket": "/run/two.sock"}))
    assert getattr(found, "path") == Path("/run/two.sock")  # noqa: B009


def test_a_simulation_socket_that_others_could_have_made_is_not_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("FLTRUST_AGENT_SOCKET", raising=False)
    with LocalFederation(honest(), 1) as federation:
        folder = tmp_path / "sim"
        monkeypatch.setattr(agents_module, "simulation_socket", lambda _run: folder / "agent.sock")
        server = AgentServer(folder / "agent.sock", handlers=participant_handlers(federation["site-0"].agent))
        server.start()
        try:
            agents_module.participant_agent(context())  # in a folder of our own: taken
            folder.chmod(0o755)
            with pytest.raises(AgentUnavailable):
                agents_module.participant_agent(context())
        finally:
            server.stop()


def test_an_app_speaks_to_its_agent_over_the_socket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with LocalFederation(honest(), 1) as federation:
        site = federation["site-0"]
        server = AgentServer(tmp_path / "run" / "agent.sock", handlers=participant_handlers(site.agent))
        server.start()
        try:
            agents_module.forget_in_process(RunId(federation.run_id))
            monkeypatch.setenv("FLTRUST_AGENT_SOCKET", str(tmp_path / "run" / "agent.sock"))
            _, (report,) = train(federation)
        finally:
            server.stop()
    assert report.admitted == ("site-0",)


def test_copying_a_message_keeps_what_it_says(federation: LocalFederation) -> None:
    become_server_app(int(federation.run_id))
    message = instruction(3)
    copied = copy_message(message, copy_records(message.content))
    assert (
        vars(copied.metadata).items()
        >= {k: v for k, v in vars(message.metadata).items() if k != "_delivered_at"}.items()
    )
