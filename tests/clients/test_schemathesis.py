"""schemathesis makes requests from our OpenAPI document and finds nothing to complain about."""

from __future__ import annotations

import re
import subprocess
from datetime import timedelta
from pathlib import Path

import pytest
from server_world import served

from fltrust.coordinator.serving import ServerSettings
from fltrust.identity import Name, Role
from fltrust.pki.bundle import bundle_to_pem
from tools.strangers import SCHEMATHESIS, environment

pytestmark = pytest.mark.client


def test_every_answer_is_what_the_document_says(tmp_path: Path) -> None:
    settings = ServerSettings(
        services="localhost:0",
        rate=1e4,
        burst=1e5,
        bootstrap_burst=1e4,
        services_rate=1e4,
        services_burst=1e5,
    )
    with served(tmp_path, settings=settings) as world:
        (tmp_path / "root.pem").write_bytes(bundle_to_pem(world.ca.bundle))
        # An operator of its own, so that what it tries out bars nobody else.
        tester = world.join("tester", Role.OPERATOR).credentials
        (tmp_path / "chain.pem").write_bytes(tester.chain_pem)
        (tmp_path / "key.pem").write_bytes(tester.key_pem)
        for number in range(3):
            world.join(f"site-{number}")
            world.operator.client.create_token(
                Role.PARTICIPANT, Name(f"waiting-{number}"), ttl=timedelta(minutes=5)
            )
        done = subprocess.run(
            [
                str(environment(SCHEMATHESIS).parent / "schemathesis"),
                "run",
                f"https://{world.server.services_address}/api/v1/openapi.json",
                *("--tls-verify", str(tmp_path / "root.pem")),
                *("--request-cert", str(tmp_path / "chain.pem")),
                *("--request-cert-key", str(tmp_path / "key.pem")),
                *("--checks", "all", "--phases", "examples,coverage,fuzzing", "--max-examples", "15"),
                *("--seed", "1", "--generation-database", "none", "--no-color", "--continue-on-failure"),
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=110,
            check=False,
        )
    assert done.returncode == 0, done.stdout[-8_000:] + done.stderr
    count = re.search(r"(\d+) generated, (\d+) passed", done.stdout)
    assert count is not None, done.stdout[-2_000:]
    assert count[1] == count[2]
    assert int(count[1]) > 500
