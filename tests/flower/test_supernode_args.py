from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fltrust.errors import Malformed
from fltrust.flower.supernode_args import SupernodeArgs, parse_address, scripts_folder, supernode_environment

SOCKET = Path("/run/fltrust/agent.sock")


def test_the_real_superlink_is_replaced_by_the_relay_and_all_else_is_kept() -> None:
    args = SupernodeArgs.parse(
        ["--node-config", "partition-id=0 x='--insecure'", "--superlink", "fl.example:9092", "--port", "9401"]
    )
    assert args.superlink == ("fl.example", 9092)
    assert args.behind_relay("127.0.0.1:5000", root_certificates=Path("/r.pem"), node_key=Path("/n.key")) == (
        *("--superlink", "127.0.0.1:5000"),
        *("--root-certificates", "/r.pem", "--auth-supernode-private-key", "/n.key"),
        *("--node-config", "partition-id=0 x='--insecure'", "--port", "9401"),
    )


def test_flowers_own_parser_reads_what_we_pass_on(tmp_path: Path) -> None:
    from flwr.supernode.cli.flower_supernode import _parse_args_run_supernode

    args = SupernodeArgs.parse(["--superlink=fl.example:9092", "--max-retries", "3", "--isolation=process"])
    read = _parse_args_run_supernode().parse_args(
        list(args.behind_relay("127.0.0.1:5000", root_certificates=tmp_path, node_key=tmp_path / "node.key"))
    )
    assert (read.superlink, read.root_certificates) == ("127.0.0.1:5000", str(tmp_path))
    assert read.auth_supernode_private_key == str(tmp_path / "node.key")
    assert (read.max_retries, read.isolation, read.insecure) == (3, "process", False)


def test_straight_arguments_keep_the_real_superlink() -> None:
    args = SupernodeArgs.parse(["--superlink", "[2001:db8::1]:9092", "--port", "9401"])
    assert args.superlink == ("2001:db8::1", 9092)
    assert args.straight(node_key=Path("/n.key")) == (
        *("--superlink", "[2001:db8::1]:9092", "--auth-supernode-private-key", "/n.key", "--port", "9401"),
    )


@pytest.mark.parametrize(
    "ours",
    [
        ["--insecure"],
        ["--root-certificates", "ca.pem"],
        ["--root-certificates=ca.pem"],
        ["--auth-supernode-private-key", "key"],
        ["--auth-supernode-public-key=key"],
    ],
)
def test_options_that_are_ours_are_refused_with_a_reason(ours: list[str]) -> None:
    with pytest.raises(Malformed, match="fltrust gives it") as caught:
        SupernodeArgs.parse(["--superlink", "a:1", *ours])
    assert caught.value.reason == "option-conflict"
    assert caught.value.hint


@pytest.mark.parametrize(
    "short", ["--insec", "--root-cert=x", "--superl", "--auth-supernode-private", "--s", "--i"]
)
def test_an_option_cut_short_that_could_be_ours_is_refused(short: str) -> None:
    with pytest.raises(Malformed, match="in full"):
        SupernodeArgs.parse(["--superlink", "a:1", short])


@pytest.mark.parametrize("given_", [[], ["--port", "9401"], ["--superlink", "a:1", "--superlink", "b:2"]])
def test_without_exactly_one_superlink_it_says_what_to_give(given_: list[str]) -> None:
    with pytest.raises(Malformed, match="expected one --superlink"):
        SupernodeArgs.parse(given_)


@pytest.mark.parametrize(
    "address",
    [
        "",
        "a",
        ":1",
        "a:",
        "a:0",
        "a:65536",
        "a:x",
        "a:-1",
        "https://a:1",
        "a:1/x",
        "::1:9",
        "[::1]",
        "a b:1",
        "a:１",
    ],
)
def test_an_address_that_is_not_host_and_port_is_refused(address: str) -> None:
    with pytest.raises(Malformed):
        parse_address(address)


@pytest.mark.parametrize("question", ["--help", "-h", "--version", "-V"])
def test_a_question_to_flower_needs_no_superlink(question: str) -> None:
    assert SupernodeArgs.parse([question]).superlink is None


@given(st.lists(st.text(max_size=12), max_size=6))
def test_any_arguments_are_read_or_refused(given_: list[str]) -> None:
    try:
        args = SupernodeArgs.parse(given_)
    except Malformed:
        return
    assert args.superlink is None or 0 < args.superlink[1] < 65536


def test_the_environment_names_the_socket_and_keeps_flower_quiet() -> None:
    found = supernode_environment({"HOME": "/home/a"}, agent_socket=SOCKET)
    assert found["FLTRUST_AGENT_SOCKET"] == str(SOCKET)
    assert found["HOME"] == "/home/a"
    assert found["FLWR_TELEMETRY_ENABLED"] == "0"
    assert found["FLWR_DISABLE_UPDATE_CHECK"] == "1"
    assert found["FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION"] == "1"
    assert found["FLWR_SUPEREXEC_TASK_POLL_INTERVAL"] == "0.05"
    assert found["PATH"].startswith(str(scripts_folder()))


def test_what_opens_a_key_does_not_reach_the_apps() -> None:
    secrets = ("FLTRUST_PASSPHRASE_FILE", "FLTRUST_CA_PASSPHRASE_FILE", "FLTRUST_ROOT_PASSPHRASE_FILE")
    base = {**dict.fromkeys(secrets, "/secret"), "FLTRUST_HOME": "/state"}
    found = supernode_environment(base, agent_socket=SOCKET)
    assert not any(name in found for name in secrets)
    assert found["FLTRUST_HOME"] == "/state"


def test_a_users_own_poll_interval_and_proxies_are_kept() -> None:
    base = {
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.5",
        "NO_PROXY": "a.example, localhost",
        "HTTPS_PROXY": "p",
    }
    found = supernode_environment(base, agent_socket=SOCKET)
    assert found["FLWR_SUPEREXEC_TASK_POLL_INTERVAL"] == "0.5"
    assert found["HTTPS_PROXY"] == "p"
    assert found["NO_PROXY"] == "a.example,localhost,127.0.0.1,::1"
    assert found["no_proxy"] == "127.0.0.1,localhost,::1"
