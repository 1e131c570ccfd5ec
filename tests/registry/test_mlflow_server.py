"""A real `mlflow server` with the gate before its registry: any client over HTTP, and MLflow's own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow_world import (
    PREDICTION,
    Client,
    Server,
    Trained,
    copied,
    mlflow_python,
    save_as_mlflow_does,
    starting_server,
    trained,
)

from tools.strangers import CannotInstall

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]  # the first run installs MLflow


@pytest.fixture(scope="module")
def python() -> Path:
    try:
        return mlflow_python()
    except CannotInstall as error:
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI must not skip: {error}")
        pytest.skip(f"not to be had on this machine: {error}")


@pytest.fixture(scope="module")
def made() -> Iterator[Trained]:
    with trained() as made:
        yield made


@pytest.fixture(scope="module")
def client(python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    client = Client(python, tmp_path_factory.mktemp("client") / "log")
    yield client
    client.close()


@pytest.fixture(scope="module")
def unsigned(client: Client, made: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_as_mlflow_does(client, made, tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def signed(unsigned: Path, made: Trained) -> Path:
    model = copied(unsigned, unsigned.with_name("signed"))
    made.sign(model)
    return model


@pytest.fixture(scope="module")
def mlflow(
    python: Path, made: Trained, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("mlflow")
    (folder / "trust.json").write_bytes(made.trust_file())
    (folder / "policy.toml").write_text(
        f"""
version = 1
[[signers]]
identity = "spiffe://{made.domain}/signer/release"
[lineage]
min-participants = 3
[content]
pickles = false
"""
    )
    variables = {"FLTRUST_TRUST": str(folder / "trust.json"), "FLTRUST_POLICY": str(folder / "policy.toml")}
    with starting_server(python, folder, **variables) as found:
        client: Client = request.getfixturevalue("client")  # starts meanwhile
        assert client.do("track", url=found.url) is None
        found.wait_until_up()
        yield found


@pytest.fixture
def gated(client: Client, mlflow: Server, made: Trained) -> Iterator[Client]:
    """The client's process with the gate at loading in it."""
    client.do(
        "gate", FLTRUST_TRUST=str(mlflow.trust), FLTRUST_IDENTITY=f"spiffe://{made.domain}/signer/release"
    )
    yield client
    client.do("gate")


def refused(answer: tuple[int, dict[str, Any]], reason: str) -> None:
    """HTTP 400, which no client of MLflow's retries, with our reason word and what to do."""
    status, body = answer
    assert status == 400, body
    assert body["error_code"] == "INVALID_PARAMETER_VALUE"
    assert f"({reason})" in body["message"], body


def test_an_unsigned_model_is_refused_whoever_asks(mlflow: Server, unsigned: Path) -> None:
    refused(mlflow.register("unsigned", unsigned), "unsigned")
    assert mlflow.versions("unsigned") == []


def test_mlflows_own_client_is_told_why_at_once(mlflow: Server, client: Client, unsigned: Path) -> None:
    answer = client.do("register", folder=str(unsigned), name="unsigned-too")
    assert "fltrust refuses this model (unsigned)" in answer["error"]


def test_a_signed_model_is_accepted_marked_and_loaded(
    mlflow: Server, gated: Client, signed: Path, made: Trained
) -> None:
    version = gated.do("register", folder=str(signed), name="digits")
    tags = version["tags"]
    assert tags["fltrust.attestation"] == "verified"
    assert tags["fltrust.signer"] == f"spiffe://{made.domain}/signer/release"
    assert tags["fltrust.log-index"].isdigit()
    assert gated.do("predict", uri="models:/digits/1") == PREDICTION
    assert gated.do("alias", name="digits", alias="champion", version="1") is None
    assert gated.do("predict", uri="models:/digits@champion") == PREDICTION


def test_a_model_changed_after_signing_is_refused(mlflow: Server, signed: Path, tmp_path: Path) -> None:
    model = copied(signed, tmp_path / "model")
    weights = next(model.rglob("model.safetensors"))
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    refused(mlflow.register("tampered", model), "file-changed")
    (model / "code" / "extra.py").write_text("import os\n")
    weights.write_bytes(next(signed.rglob("model.safetensors")).read_bytes())
    refused(mlflow.register("tampered", model), "file-added")


def test_a_model_signed_by_somebody_else_is_refused(
    mlflow: Server, unsigned: Path, made: Trained, tmp_path: Path
) -> None:
    model = copied(unsigned, tmp_path / "model")
    made.sign(model, name="intern")
    refused(mlflow.register("by-the-intern", model), "untrusted-signer")


def test_a_source_that_another_host_answers_for_is_refused(mlflow: Server) -> None:
    mlflow.call("registered-models/create", name="elsewhere")
    for source in ("http://127.0.0.1:9/model", "mlflow-artifacts://127.0.0.1:9/0/x/artifacts/model"):
        status, body = mlflow.call("model-versions/create", name="elsewhere", source=source)
        assert status == 400, body
    assert mlflow.versions("elsewhere") == []


def test_a_source_with_nothing_there_is_refused(mlflow: Server, signed: Path) -> None:
    run_id, source = mlflow.upload(signed)
    mlflow.call("registered-models/create", name="nothing")
    answer = mlflow.call("model-versions/create", name="nothing", source=f"{source}-not", run_id=run_id)
    assert answer[0] == 400, answer


def test_a_client_cannot_write_or_delete_the_gates_tags(mlflow: Server, client: Client, signed: Path) -> None:
    forged = [{"key": "fltrust.signer", "value": "mallory"}, {"key": "team", "value": "radiology"}]
    status, body = mlflow.register("marked", signed, tags=forged)
    assert status == 200, body
    tags = {tag["key"]: tag["value"] for tag in body["model_version"]["tags"]}
    assert tags["team"] == "radiology"
    assert tags["fltrust.signer"].endswith("/signer/release")
    mark = {"name": "marked", "version": "1", "key": "fltrust.attestation"}
    assert "written by fltrust alone" in client.do("tag", **mark, value="verified")["error"]
    assert "written by fltrust alone" in client.do("untag", **mark)["error"]
    assert client.do("tag", name="marked", version="1", key="stage", value="x") is None


def test_a_client_cannot_mark_a_whole_model_either(mlflow: Server, signed: Path) -> None:
    forged = [{"key": "fltrust.attestation", "value": "verified"}, {"key": "team", "value": "radiology"}]
    status, body = mlflow.call("registered-models/create", name="whole", tags=forged)
    assert status == 200, body
    assert [tag["key"] for tag in body["registered_model"]["tags"]] == ["team"]
    for key in ("fltrust.attestation", "FLTrust.attestation", "\uff46ltrust.attestation"):
        mark = {"name": "whole", "key": key, "value": "verified"}
        refused = mlflow.call("registered-models/set-tag", **mark)
        assert (refused[0], "written by fltrust alone" in str(refused[1])) == (400, True), refused


def test_a_copy_of_a_version_goes_through_the_gate_too(mlflow: Server, client: Client, signed: Path) -> None:
    status, body = mlflow.register("origin", signed)
    assert status == 200, body
    copy = client.do("copy", uri="models:/origin/1", name="copies")
    assert copy["tags"]["fltrust.attestation"] == "verified"
    _spoil(mlflow, body["model_version"]["source"])
    assert "file-changed" in client.do("copy", uri="models:/origin/1", name="copies")["error"]
    assert len(mlflow.versions("copies")) == 1


def test_what_is_changed_in_the_store_later_is_neither_promoted_nor_loaded(
    mlflow: Server, gated: Client, signed: Path
) -> None:
    status, body = mlflow.register("spoilt", signed)
    assert status == 200, body
    _spoil(mlflow, body["model_version"]["source"])
    version = {"name": "spoilt", "version": "1"}
    assert "file-changed" in gated.do("alias", **version, alias="champion")["error"]
    assert "file-changed" in gated.do("stage", **version, stage="Production")["error"]
    tags = gated.do("describe", **version)["tags"]
    assert (tags["fltrust.attestation"], tags["fltrust.reason"]) == ("refused", "file-changed")
    assert "file-changed" in gated.do("predict", uri="models:/spoilt/1")["error"]


def test_the_gate_at_loading_binds_its_own_process_alone(
    mlflow: Server, client: Client, signed: Path
) -> None:
    """What the how-to says of it: without the variable, MLflow is as it was."""
    _, body = mlflow.register("loose", signed)
    _spoil(mlflow, body["model_version"]["source"])
    assert "error" not in client.do("predict", uri="models:/loose/1")


def test_prompts_have_no_files_and_pass(mlflow: Server, client: Client) -> None:
    answer = client.do("prompt", name="greeting")
    assert answer == "1", answer


def test_a_model_cannot_pass_as_a_prompt(mlflow: Server, unsigned: Path) -> None:
    tag = [{"key": "mlflow.prompt.is_prompt", "value": "true"}]
    status, body = mlflow.register("smuggled", unsigned, tags=tag)
    assert status == 400, body


def test_a_model_that_turns_out_tainted_is_refused_from_then_on(
    mlflow: Server, gated: Client, signed: Path, made: Trained
) -> None:
    status, body = mlflow.register("before", signed)
    assert status == 200, body
    made.revoke_long_since("site-b")
    mlflow.trust.write_bytes(made.trust_file())  # the server reads it anew for each verdict
    refused(mlflow.register("after", signed), "tainted")
    assert "(tainted)" in gated.do("alias", name="before", version="1", alias="champion")["error"]
    assert "(tainted)" in gated.do("predict", uri="models:/before/1")["error"]


def _spoil(mlflow: Server, source: str) -> None:
    weights = next(mlflow.stored(source).rglob("model.safetensors"))
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)


def test_refusals_are_in_the_servers_log(mlflow: Server) -> None:
    text = (mlflow.folder / "server.log").read_text()
    assert "fltrust refuses this model (unsigned)" in text
