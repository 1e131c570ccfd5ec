"""Requests that somebody else carries to the coordinator: made where the keys are, without a network."""

from __future__ import annotations

import json
from pathlib import Path

from fltrust.agent.credentials import Credentials
from fltrust.clock import Clock
from fltrust.enrollment.bulk import BulkEvidence
from fltrust.enrollment.challenge import node_key_challenge
from fltrust.enrollment.renewal_proof import renewal_challenge
from fltrust.enrollment.state import AgentState, refuse_if_taken
from fltrust.errors import Malformed
from fltrust.files import make_private_folder, read_bounded, write_durably
from fltrust.identity import Name, Role
from fltrust.keys import create_node_key, generate, load, spki_der
from fltrust.pki import create_csr
from fltrust.strictbase64 import to_base64

REQUEST_FILE = "request.json"


def make_request(folder: Path, *, role: Role, name: str, passphrase: bytes | None) -> dict[str, str]:
    """Make keys in a new folder, and the line that an operator enrolls them by. The line has no secret."""
    wanted = Name(name)
    refuse_if_taken(folder)
    make_private_folder(folder)
    signer = generate()
    csr = create_csr(signer)
    line = {"role": role.value, "name": str(wanted), "csr": to_base64(csr)}
    if role is Role.PARTICIPANT:
        node = create_node_key(folder / "node.key")
        line["node_key"] = to_base64(spki_der(node.public_key))
        line["node_key_proof"] = to_base64(node.sign(node_key_challenge(csr, BulkEvidence())))
    write_durably(folder / "identity.key", signer.to_pem(passphrase))
    write_durably(folder / REQUEST_FILE, json.dumps(line).encode())
    return line


def make_renewal(state: AgentState, folder: Path, *, passphrase: bytes | None) -> dict[str, str]:
    """Make the next key of an identity in a new folder; its present key signs for it."""
    refuse_if_taken(folder)
    make_private_folder(folder)
    present, _ = state.load_identity()
    signer, who = generate(), state.spiffe_id
    csr = create_csr(signer)
    write_durably(folder / "identity.key", signer.to_pem(passphrase))
    line = {
        "role": who.role.value,
        "name": str(who.name),
        "csr": to_base64(csr),
        "proof": to_base64(present.sign(renewal_challenge(csr, who))),
    }
    write_durably(folder / REQUEST_FILE, json.dumps(line).encode())
    return line


def read_request(folder: Path) -> dict[str, str]:
    """The line that was made with the keys in this folder."""
    try:
        line = json.loads(read_bounded(folder / REQUEST_FILE, limit=16 * 1024))
    except ValueError:
        line = None
    if not isinstance(line, dict) or not all(isinstance(value, str) for value in line.values()):
        raise Malformed(f"expected a request that was made here in {folder}, found something else")
    return line


def install_renewal(
    state: AgentState, folder: Path, chain: tuple[bytes, ...], *, passphrase: bytes | None, clock: Clock
) -> AgentState:
    """Put a renewal that somebody carried here in the place of the present certificate, once it verifies."""
    lock = state.lock()
    try:
        signer, bundle = load(folder / "identity.key", passphrase=passphrase), state.load_bundle()
        found = Credentials.verified(signer, chain, bundle=bundle, expect=state.spiffe_id, clock=clock)
        state.store_identity(signer, found.certificate.chain, bundle)
    finally:
        lock.release()
    return state
