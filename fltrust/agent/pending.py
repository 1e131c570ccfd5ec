"""A join that operators have yet to decide: its keys are kept, so that the same request can be asked about.

A folder ``pending-<first digits of the request's id>`` beside the states, private as they are:

identity.key   the certificate's key, encrypted as a state's is
node.key       a participant's Flower node key
pending.json   the request, and where to ask
"""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fltrust.agent.state import AgentState, default_home
from fltrust.enrollment.types import Issued, JoinToken
from fltrust.errors import Malformed, NotFound, RequestDenied
from fltrust.files import make_private_folder, read_bounded, write_durably
from fltrust.identity import KeyId
from fltrust.keys import FileSigner, load, load_node_key

Collector = Callable[[JoinToken, str, bytes], Issued]
"""Asks the coordinator what became of a request."""

_MAX_FILE = 64 * 1024
_FIELDS = {"version", "request", "bootstrap", "address", "root", "csr", "participant"}


@dataclass(frozen=True, slots=True)
class PendingJoin:
    """One request that waits, with its keys."""

    folder: Path
    request_id: str
    token: JoinToken
    """Where to ask; its secret is empty: it was spent, and is not kept."""
    csr_der: bytes
    signer: FileSigner
    is_participant: bool

    @property
    def node_key_path(self) -> Path:
        return self.folder / "node.key"

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def keep_pending(
    home: Path,
    *,
    request_id: str,
    token: JoinToken,
    csr_der: bytes,
    signer: FileSigner,
    node_key_path: Path | None,
    passphrase: bytes | None,
) -> Path:
    """Keep the keys of a request that was taken; returns the folder. The note of where to ask goes last."""
    folder = folder_of(request_id, home)
    make_private_folder(folder)
    write_durably(folder / "identity.key", signer.to_pem(passphrase))
    if node_key_path is not None:
        for path in (node_key_path, node_key_path.with_name(node_key_path.name + ".pub")):
            write_durably(folder / path.name, read_bounded(path, limit=_MAX_FILE))
    said = {
        "version": 1,
        "request": request_id,
        "bootstrap": token.bootstrap,
        "address": token.address,
        "root": base64.b64encode(token.root_der).decode(),
        "csr": base64.b64encode(csr_der).decode(),
        "participant": node_key_path is not None,
    }
    write_durably(folder / "pending.json", json.dumps(said, sort_keys=True).encode())
    return folder


def open_pending(folder: Path, *, passphrase: bytes | None) -> PendingJoin:
    """Read what `keep_pending` wrote; `Malformed` for anything else."""
    try:
        said = json.loads(read_bounded(folder / "pending.json", limit=_MAX_FILE))
        if not isinstance(said, dict) or set(said) != _FIELDS or said["version"] != 1:
            raise ValueError
        root = base64.b64decode(said["root"], validate=True)
        csr = base64.b64decode(said["csr"], validate=True)
        token = JoinToken(str(said["bootstrap"]), str(said["address"]), root, b"")
    except (ValueError, TypeError, KeyError):
        raise Malformed(f"expected a request that waits in {folder}, found something else") from None
    signer = load(folder / "identity.key", passphrase=passphrase)
    return PendingJoin(folder, str(said["request"]), token, csr, signer, said["participant"] is True)


def list_pending(home: Path | None = None) -> tuple[Path, ...]:
    """The folders of requests that wait."""
    return tuple(sorted(path.parent for path in (home or default_home()).glob("pending-*/pending.json")))


def the_pending(home: Path | None = None) -> Path:
    """The one request that waits. `NotFound` for none; `Malformed` for several, with what to do."""
    found = list_pending(home)
    if not found:
        raise NotFound("expected a request that waits, found none", hint="run 'fltrust join' first")
    if len(found) > 1:
        names = ", ".join(path.name for path in found[:8])
        raise Malformed(f"expected one request that waits, found {names}", hint="name one: --resume FOLDER")
    return found[0]


def collect_pending(
    pending: PendingJoin,
    *,
    finish: Callable[[PendingJoin, Issued], AgentState],
    collect: Collector,
) -> AgentState:
    """Ask what became of the request, and let `finish` write the state of what was issued.

    The keys go when the state is there, or when the request was denied. `ApprovalPending` leaves them.
    """
    try:
        issued = collect(pending.token, pending.request_id, pending.csr_der)
    except RequestDenied:
        pending.remove()
        raise
    state = finish(pending, issued)
    pending.remove()
    return state


def folder_of(request_id: str, home: Path | None = None) -> Path:
    """The folder that `keep_pending` makes for a request."""
    return (home or default_home()) / f"pending-{request_id[:12]}"


def copy_node_key(folder: Path, target: Path) -> KeyId | None:
    """Put a participant's node key in its place in a new state; None where there is none."""
    if not (folder / "node.key").exists():
        return None
    for name in ("", ".pub"):
        source = folder / f"node.key{name}"
        write_durably(target.with_name(target.name + name), read_bounded(source, limit=_MAX_FILE))
    return load_node_key(target).key_id
