"""How a revoked site tries to return. Each attempt is real; each returns the reason of its refusal."""

from __future__ import annotations

import http.client
import json
import shutil
import socket
import ssl
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from examples.lab import Lab
from fltrust.agent.session import connect
from fltrust.clock import SystemClock
from fltrust.errors import FltrustError, Refused
from fltrust.identity import RunId
from fltrust.keys import generate
from fltrust.pki import create_csr
from fltrust.updates import ExpectedUpdate, SignedStatement, UpdateStatement, Verifier, unverified_statement
from fltrust.wire.record import read_record

_LET_IN = "let in"


@dataclass(frozen=True, slots=True)
class Attempt:
    """What was tried, and what came of it: a refusal's reason, or `let in`."""

    what: str
    outcome: str

    @property
    def was_refused(self) -> bool:
        return self.outcome != _LET_IN


def return_of(site: str, *, lab: Lab, token: str, run_id: str) -> list[Attempt]:
    """Everything that `site` tries after its revocation."""
    state = lab.state(site)
    return [
        Attempt("its old certificate, at the superlink", _at_superlink(lab, site, state / "identity.pem")),
        Attempt("its old certificate, at the coordinator", _reason_of(lambda: _renew(state))),
        Attempt("a certificate and node key of its own making", _own_certificate(lab)),
        Attempt("its old join token, for a fresh node key", _join_again(lab, token)),
        Attempt("its update of round 1, replayed in round 2", _reason_of(lambda: _replay(lab, site, run_id))),
    ]


def _at_superlink(lab: Lab, site: str, identity: Path) -> str:
    """Pull messages with the old certificate; the reason is what the superlink wrote down."""
    before = len(_refusals(lab, site))
    status = _post(lab, identity)
    if status is not None and status < 400:
        return _LET_IN
    told = _refusals(lab, site)[before:]
    return told[-1] if told else "refused without a reason"


def _own_certificate(lab: Lab) -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    now = SystemClock().now()
    name = x509.Name([])
    uri = x509.UniformResourceIdentifier(f"spiffe://{lab.domain}/participant/site-a")
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([uri]), critical=True)
        .sign(key, SHA256())
    )
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with tempfile.NamedTemporaryFile() as file:
        file.write(pem + certificate.public_bytes(Encoding.PEM))
        file.flush()
        status = _post(lab, Path(file.name))
    return "refused by TLS" if status is None else _LET_IN if status < 400 else f"status {status}"


def _post(lab: Lab, identity: Path) -> int | None:
    """POST to the Fleet API with this certificate; None where the connection is not kept."""
    context = ssl.create_default_context(cafile=str(lab.folder / "coordinator" / "ca" / "root.pem"))
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(identity)
    try:
        with socket.create_connection(("127.0.0.1", lab.fleet_port), timeout=10) as plain:
            name = f"main.aggregator.{lab.domain}"
            with context.wrap_socket(plain, server_hostname=name) as secured:
                connection = http.client.HTTPConnection(name)
                connection.sock = secured
                headers = {"content-type": "application/protobuf"}
                connection.request("POST", "/v1/fleet/pull-messages", body=b"", headers=headers)
                return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None


def _renew(state: Path) -> None:
    with connect(state) as (client, _):
        client.renew(create_csr(generate()))


def _join_again(lab: Lab, token: str) -> str:
    folder = lab.folder / "return"
    done = lab.fltrust("join", "--state", str(folder), stdin=token, check=False)
    shutil.rmtree(folder, ignore_errors=True)
    return _LET_IN if done.returncode == 0 else done.stderr.partition("[")[2].partition("]")[0]


def _replay(lab: Lab, site: str, run_id: str) -> None:
    """What a lying relay would do: offer the signed update of round 1 as the answer to round 2."""
    record = read_record(lab.fltrust("rounds", "export", run_id).stdout.encode())
    trained = [r for r in record.rounds if r.key.phase == "train"]
    for candidate in trained[0].evidence:
        update = unverified_statement(SignedStatement.from_bytes(candidate.update))
        if isinstance(update, UpdateStatement) and update.participant.name == site:
            expected = ExpectedUpdate(
                domain=update.domain,
                run_id=RunId(int(run_id)),
                round=trained[1].key.round,
                phase=update.phase,
                step=trained[1].key.step,
                participant=update.participant,
                node_id=update.node_id,
                node_key=update.node_key,
                message_type=update.message_type,
                instruction_id=update.instruction_id,
                instruction=update.instruction,
                model=update.model,
            )
            Verifier(record.bundle).verify_update(
                SignedStatement.from_bytes(candidate.update),
                at=SystemClock().now(),
                judge=lambda _certificate: None,
                expected=expected,
                content=update.content,
            )
            return
    raise Refused(f"found no update of {site} in round 1", reason="nothing-to-replay")


def _reason_of(attempt: Callable[[], None]) -> str:
    try:
        attempt()
    except FltrustError as error:
        return error.reason
    return _LET_IN


def _refusals(lab: Lab, site: str) -> list[str]:
    events = [json.loads(line) for line in lab.events.read_text().splitlines()]
    return [
        str(e.get("reason"))
        for e in events
        if e["process"] == "superlink"
        and "refused" in e["event"]
        and str(e.get("participant", "")).endswith(site)
    ]
