"""What one enrolled identity keeps on disk, in a folder of its own that is open to nobody else.

    agent.json         who this is and where its coordinator listens
    bundle.json        the roots of the trust domain
    identity.pem       the current private key (PKCS#8, or the line that says in which hardware it is:
                       `fltrust.keys.stored`) and its certificate chain: one file, so that
                       a crash leaves the old pair or the new pair, never a mixture
    node.key, .pub     a participant's Flower node key, as OpenSSH writes it
    journal.sqlite     a participant's memory of what it signed
    second.pem, second-next.pem   a second key and its chain, where there is one: `fltrust.enrollment.second`
    agent.lock         held by the running agent

Files are replaced durably. A new folder takes its name only when it is whole (`StateDraft`). The
format lives in this room because both ends write it: a site that joins, and a coordinator that
makes its first operator.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from cryptography import x509

from fltrust.enrollment.private import read_private
from fltrust.enrollment.second import SecondHome
from fltrust.errors import Conflict, Malformed, NotFound, StorageUnavailable
from fltrust.files import exclusively, make_private_folder, sync_folder, write_durably
from fltrust.identity import KeyId, SpiffeId
from fltrust.keys import FileSigner, Signer, load_node_key
from fltrust.keys.stored import from_stored, reference_to
from fltrust.pki import TrustBundle, bundle_from_json, bundle_to_json, certificates_from_pem, chain_to_pem
from fltrust.pki.bundle import MAX_BUNDLE
from fltrust.pki.verify import MAX_CHAIN

_VERSION = 1
_MAX_RECORD = 16 * 1024
_MAX_IDENTITY = 128 * 1024


@dataclass(frozen=True, slots=True)
class AgentRecord:
    """Who a state folder belongs to; `address` and `bootstrap` are the coordinator's ``host:port``."""

    spiffe_id: SpiffeId
    address: str
    bootstrap: str
    node_key: KeyId | None

    def to_json(self) -> bytes:
        fields = {
            "version": _VERSION,
            "spiffe_id": str(self.spiffe_id),
            "address": self.address,
            "bootstrap": self.bootstrap,
            "node_key": self.node_key,
        }
        return json.dumps(fields, indent=1).encode() + b"\n"

    @classmethod
    def from_json(cls, data: bytes) -> AgentRecord:
        """Read what `to_json` wrote; another version or shape raises `Malformed`."""
        try:
            fields = json.loads(data)
        except (ValueError, RecursionError):
            raise Malformed("expected agent.json to be JSON, found something else") from None
        if not isinstance(fields, dict) or fields.get("version") != _VERSION:
            raise Malformed(
                f"expected agent.json of version {_VERSION}, found another",
                hint="was this state written by a newer fltrust?",
            )
        who, address, bootstrap, node_key = (
            fields.get(k) for k in ("spiffe_id", "address", "bootstrap", "node_key")
        )
        if not (
            isinstance(who, str)
            and isinstance(address, str)
            and isinstance(bootstrap, str)
            and (node_key is None or isinstance(node_key, str))
        ):
            raise Malformed("expected spiffe_id, address, bootstrap and node_key in agent.json")
        return cls(SpiffeId.parse(who), address, bootstrap, None if node_key is None else KeyId(node_key))


class AgentState:
    """The state folder of one identity. `passphrase` encrypts the certificate's key at rest."""

    def __init__(self, folder: Path, record: AgentRecord, *, passphrase: bytes | None) -> None:
        self.folder = folder
        self.record = record
        self._passphrase = passphrase

    @classmethod
    def open(cls, folder: Path, *, passphrase: bytes | None = None) -> AgentState:
        """Open what `join` wrote. `NotFound` where there is none; `Refused` or `StorageUnavailable`
        for a folder or file that another user owns or may read."""
        if not has_state(folder):
            raise NotFound(
                f"expected the state of an agent in {folder}, found none",
                hint="run 'fltrust join TOKEN' first, or name its folder with --state",
            )
        make_private_folder(folder)
        record = AgentRecord.from_json(read_private(folder / "agent.json", limit=_MAX_RECORD))
        return cls(folder, record, passphrase=passphrase)

    @property
    def spiffe_id(self) -> SpiffeId:
        return self.record.spiffe_id

    @property
    def node_key_path(self) -> Path:
        return self.folder / "node.key"

    @property
    def journal_path(self) -> Path:
        return self.folder / "journal.sqlite"

    def load_bundle(self) -> TrustBundle:
        bundle = bundle_from_json(read_private(self.folder / "bundle.json", limit=MAX_BUNDLE))
        if bundle.domain != self.spiffe_id.domain:
            raise Malformed(f"expected the roots of {self.spiffe_id.domain}, found those of {bundle.domain}")
        return bundle

    def load_identity(self) -> tuple[Signer, tuple[x509.Certificate, ...]]:
        """The current key and its chain, leaf first. Says nothing about their validity."""
        key, chain = self._read_identity()
        signer = from_stored(key, passphrase=self._passphrase, where=self.folder / "identity.pem")
        return signer, certificates_from_pem(chain, limit=MAX_CHAIN)

    def load_chain(self) -> tuple[x509.Certificate, ...]:
        """The current chain alone, leaf first: needs no passphrase."""
        return certificates_from_pem(self._read_identity()[1], limit=MAX_CHAIN)

    def _read_identity(self) -> tuple[bytes, bytes]:
        """The PEM of the key, and that of the chain."""
        pem = read_private(self.folder / "identity.pem", limit=_MAX_IDENTITY)
        key, begin, chain = pem.partition(b"-----BEGIN CERTIFICATE-----")
        return key, begin + chain

    def load_node_key(self) -> FileSigner:
        return load_node_key(self.node_key_path)

    def store_identity(self, signer: Signer, chain: Sequence[x509.Certificate], bundle: TrustBundle) -> None:
        """Make this the current key and chain. After a crash the old pair or this one is there.

        The bundle goes first: with the new roots and the old pair the agent can still renew.
        """
        bundle_json = bundle_to_json(bundle)
        bundle_path = self.folder / "bundle.json"
        if not bundle_path.exists() or bundle_path.read_bytes() != bundle_json:
            write_durably(bundle_path, bundle_json)
        key = signer.to_pem(self._passphrase) if isinstance(signer, FileSigner) else reference_to(signer)
        write_durably(self.folder / "identity.pem", key + chain_to_pem(chain))

    def second(self) -> SecondHome:
        """Where the second key (ML-DSA-65) of this identity lies, if it has one."""
        return SecondHome(self.folder, self.spiffe_id, passphrase=self._passphrase)

    def lock(self) -> StateLock:
        """Claim the state for this process; `Conflict` while another agent runs on it.

        What a writer that was killed left behind is swept: it may hold a key.
        """
        lock = StateLock(self.folder)
        with exclusively(self.folder):  # a command may be writing a second key just now
            for left_over in self.folder.glob(".*.pem.*"):
                left_over.unlink(missing_ok=True)
        return lock


class StateLock:
    """An advisory lock that ends with its process, however that ends."""

    def __init__(self, folder: Path) -> None:
        path = folder / "agent.lock"
        try:
            self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StorageUnavailable(f"could not open {path}: {error.strerror or error}") from error
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._handle)
            raise Conflict(
                f"expected no other agent on {folder}, one is running",
                hint="stop it first; one identity has one agent",
            ) from None

    def release(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


class StateDraft:
    """A state in the making, in a hidden folder beside its place; left without `finish`, it is removed.

    with StateDraft(parent) as draft:
        create_node_key(draft.node_key_path)
        ...
        state = draft.finish(target, record, ...)
    """

    def __init__(self, parent: Path) -> None:
        """Make the folder, so that a disk that refuses says so before anything is spent."""
        if not parent.exists():
            make_private_folder(parent)
        self.folder = parent / f".joining-{secrets.token_hex(8)}"
        make_private_folder(self.folder)

    @property
    def node_key_path(self) -> Path:
        return self.folder / "node.key"

    def finish(
        self,
        target: Path,
        record: AgentRecord,
        *,
        signer: Signer,
        chain: Sequence[x509.Certificate],
        bundle: TrustBundle,
        passphrase: bytes | None,
        replace: bool,
    ) -> AgentState:
        """Write the rest and take the name `target`, whole or not at all.

        A state that is there already is refused (`Conflict`), or, with `replace`, put aside as
        ``<target>.replaced-<n>``; never while its agent runs.
        """
        draft = AgentState(self.folder, record, passphrase=passphrase)
        draft.store_identity(signer, chain, bundle)
        write_durably(self.folder / "agent.json", record.to_json())
        if not target.parent.exists():
            make_private_folder(target.parent)
        with contextlib.ExitStack() as stack:
            if has_state(target):
                if not replace:
                    raise _taken(target)
                stack.callback(StateLock(target).release)
                _rename(target, _free_name(target))
            _rename(self.folder, target)
        return AgentState(target, record, passphrase=passphrase)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def refuse_if_taken(folder: Path) -> None:
    """Raise `Conflict` if a state, or anything else, lies in `folder`."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise _taken(folder)


def has_state(folder: Path) -> bool:
    return (folder / "agent.json").exists()


def _taken(folder: Path) -> Conflict:
    return Conflict(
        f"expected no state in {folder}, found one",
        reason="state-exists",
        hint="choose another folder with --state, or remove what is there if it is no longer needed",
    )


def _free_name(target: Path) -> Path:
    for number in range(1, 1000):
        aside = target.with_name(f"{target.name}.replaced-{number}")
        if not aside.exists():
            return aside
    raise Conflict(f"expected fewer than 1000 replaced states beside {target}", hint="remove old ones")


def _rename(source: Path, target: Path) -> None:
    try:
        os.rename(source, target)
        sync_folder(target.parent)
    except OSError as error:
        raise StorageUnavailable(
            f"could not rename {source} to {target}: {error.strerror or error}"
        ) from error
