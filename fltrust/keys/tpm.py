"""Keys of a TPM 2.0. Extra: ``tpm``, which needs Debian's libtss2-dev to build.

One context for each TPM in this process, and one lock around every command. A key is loaded when it first
signs and stays until others need the room: a TPM without a resource manager holds three objects. One that was
reset forgets them, and then the key is loaded again, once. A password that was refused is not tried again: it
counts towards the TPM's lockout.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from typing import Any, TypeVar

from tpm2_pytss import ESAPI, ESYS_TR, TPM2_RC, TPM2B_DIGEST, TPMT_TK_HASHCHECK, TSS2_Exception
from tpm2_pytss.constants import TPM2_RH, TPM2_ST
from tpm2_pytss.tsskey import TSSPrivKey

from fltrust.errors import Conflict, FltrustError, Malformed, NotFound, Refused, Unavailable
from fltrust.files import read_bounded, sync_folder, write_durably
from fltrust.keys.hardware import HardwareSigner
from fltrust.keys.tpm_shapes import ecdsa_scheme, ecdsa_signature, public_key_of, signing_template
from fltrust.keys.tpm_uri import TpmUri, default_tcti

T = TypeVar("T")

_MAX_KEY_FILE = 16 * 1024
_MOST_LOADED = 2
"""Of the three objects that every TPM holds, one is the parent while a key is loaded."""


class Tpm:
    """One TPM in this process: one context, one lock."""

    def __init__(self, tcti: str) -> None:
        self.tcti = tcti
        self.lock = threading.RLock()
        self._context: Any = None
        self._loaded: dict[str, Any] = {}
        self._refused: dict[str, bytes | None] = {}

    @property
    def context(self) -> Any:
        """The ESAPI context. Hold the lock."""
        if self._context is None:
            try:
                self._context = ESAPI(self.tcti)
            except TSS2_Exception as error:
                raise _unavailable(self.tcti, error) from None
        return self._context

    def run(self, work: Callable[[Tpm], T]) -> T:
        """Do `work` under the lock; where the TPM refuses, once more with a new context.

        1. A refusal of ours stands; so does one of the key's password.
        2. Any other may be a TPM that was reset, or a daemon that was restarted.
        3. A second refusal is `Unavailable` (``key-unavailable``), with the TPM's word for it.
        """
        with self.lock:
            try:
                return work(self)
            except FltrustError:  # 1
                raise
            except TSS2_Exception:  # 2
                self.forget()
            try:
                return work(self)
            except TSS2_Exception as error:  # 3
                self.forget()
                raise _unavailable(self.tcti, error) from None

    def forget(self) -> None:
        """Drop the context and every handle in it. Hold the lock."""
        context, self._context = self._context, None
        loaded, self._loaded = self._loaded, {}
        if context is not None:
            for handle in loaded.values():
                with suppress(TSS2_Exception):
                    context.flush_context(handle)
            with suppress(TSS2_Exception):
                context.close()

    def key(self, uri: TpmUri) -> Any:
        """The handle of the URI's key, loaded and with its password. Hold the lock."""
        name = str(uri)
        handle = self._loaded.get(name)
        if handle is None:
            password = uri.password()
            if name in self._refused and self._refused[name] == password:
                raise _wrong_password(uri, "was refused before and is not tried again")
            while len(self._loaded) >= _MOST_LOADED:
                self._unload(next(iter(self._loaded)))
            handle = self._load(uri, password)
            if uri.file is not None:  # a persistent one takes no room
                self._loaded[name] = handle
        return handle

    def _unload(self, name: str) -> None:
        self.context.flush_context(self._loaded.pop(name))

    def refuse(self, uri: TpmUri) -> Refused:
        """Remember that the key's password is not the one that we have."""
        if str(uri) in self._loaded:
            self._unload(str(uri))
        self._refused[str(uri)] = uri.password()
        return _wrong_password(uri, "is not the key's")

    def _load(self, uri: TpmUri, password: bytes | None) -> Any:
        if uri.file is None:
            try:
                handle = self.context.tr_from_tpmpublic(uri.handle)
            except TSS2_Exception as error:
                if _code(error) == TPM2_RC.HANDLE:
                    raise _gone(uri) from None
                raise
            self.context.tr_set_auth(handle, password)
            return handle
        stored = read_key_file(uri)
        if bool(stored.empty_auth) is (password is not None):
            word = "no password" if stored.empty_auth else "a password"
            raise _wrong_password(uri, f"does not fit: the key has {word}")
        try:
            return stored.load(self.context, password)
        except TSS2_Exception as error:
            if _code(error) in (TPM2_RC.INTEGRITY, TPM2_RC.SIZE, TPM2_RC.BINDING):
                raise NotFound(
                    f"expected a key of this TPM in {uri.file}, it is another TPM's or damaged",
                    reason="key-gone",
                    hint="a key works in the TPM that made it; was the TPM cleared?",
                ) from None
            raise


_tpms: dict[str, Tpm] = {}
_tpms_lock = threading.Lock()


def tpm_of(tcti: str | None = None) -> Tpm:
    """The TPM that `tcti` reaches, the machine's own by default; the same object each time."""
    name = tcti or default_tcti()
    with _tpms_lock:
        return _tpms.setdefault(name, Tpm(name))


def close_contexts() -> None:
    """Close every context. Signers stay: the next signature opens a new one."""
    with _tpms_lock:
        tpms = tuple(_tpms.values())
    for tpm in tpms:
        with tpm.lock:
            tpm.forget()


def open_signer(uri: TpmUri) -> HardwareSigner:
    """Open a P-256 key of a TPM; it signs once, on trial, before it is returned.

    Refused: a key that is not there or of another TPM (`NotFound`, ``key-gone``), one that could leave the
    TPM (`Refused`, ``key-extractable``), of another kind (`Malformed`), a wrong password (``pin-wrong``).
    """
    tpm = tpm_of(uri.tcti)
    public = tpm.run(lambda held: held.context.read_public(held.key(uri))[0])
    public_key = public_key_of(public)

    def ask(data: bytes) -> bytes:
        return tpm.run(lambda held: _sign(held, uri, sha256(data).digest()))

    signer = HardwareSigner(public_key, ask, where=str(uri))
    signer.try_out()
    return signer


def generate_key(uri: TpmUri) -> TpmUri:
    """Make a P-256 signing key in the TPM, wrapped into the URI's file, durably (0600).

    `Conflict` where the file is there. A persistent handle is for whoever manages the TPM to give.
    """
    if uri.file is None:
        raise Malformed("expected 'file' in the URI of a key to make", hint="tpm2_evictcontrol makes handles")
    if uri.file.exists():
        raise Conflict(f"expected nothing at {uri.file}, found a file", reason="key-exists")
    password = uri.password()
    stored = tpm_of(uri.tcti).run(
        lambda held: TSSPrivKey.create(held.context, signing_template(), password=password)
    )
    write_durably(uri.file, stored.to_pem())
    return uri


def destroy_key(uri: TpmUri) -> bool:
    """Destroy the key: remove its file, or evict its handle; False if it is not there."""
    tpm = tpm_of(uri.tcti)
    if uri.file is not None:
        with tpm.lock:
            tpm.forget()
        if not uri.file.exists():
            return False
        uri.file.unlink()
        sync_folder(uri.file.parent)
        return True

    def evict(held: Tpm) -> bool:
        try:
            handle = held.key(uri)
        except NotFound:
            return False
        held.context.evict_control(ESYS_TR.OWNER, handle, uri.handle)
        held.forget()
        return True

    return tpm.run(evict)


def read_key_file(uri: TpmUri) -> Any:
    """The wrapped key in the URI's file (TSS2 PRIVATE KEY)."""
    assert uri.file is not None  # noqa: S101 - for the type checker: callers have looked
    if not uri.file.exists():
        raise _gone(uri)
    try:
        return TSSPrivKey.from_pem(read_bounded(uri.file, limit=_MAX_KEY_FILE))
    except (ValueError, TypeError, RuntimeError, NotImplementedError):
        raise Malformed(f"expected a TSS2 PRIVATE KEY in {uri.file}, found something else") from None


def _sign(tpm: Tpm, uri: TpmUri, digest: bytes) -> bytes:
    ticket = TPMT_TK_HASHCHECK(tag=TPM2_ST.HASHCHECK, hierarchy=TPM2_RH.NULL)
    try:
        signature = tpm.context.sign(tpm.key(uri), TPM2B_DIGEST(digest), ecdsa_scheme(), ticket)
    except TSS2_Exception as error:
        if _code(error) in (TPM2_RC.AUTH_FAIL, TPM2_RC.BAD_AUTH):
            raise tpm.refuse(uri) from None
        if _code(error) == TPM2_RC.LOCKOUT:
            raise Refused(
                f"expected {uri} to take its password, the TPM is locked",
                reason="pin-locked",
                hint="wait, or clear the lockout with the TPM's lockout authorisation",
            ) from None
        raise
    return ecdsa_signature(signature)


def _code(error: Any) -> int:
    """The TPM's response code without the handle, parameter or session that it is about."""
    return int(error.error)


def _gone(uri: TpmUri) -> NotFound:
    return NotFound(f"expected a key at {uri}, found none", reason="key-gone")


def _wrong_password(uri: TpmUri, why: str) -> Refused:
    return Refused(
        f"expected the password of {uri.file or f'handle 0x{uri.handle:08x}'}, the one given {why}",
        reason="pin-wrong",
        hint="correct it where pin-source says, before you try again: a TPM locks after a few",
    )


def _unavailable(tcti: str, error: Exception) -> Unavailable:
    return Unavailable(
        f"expected the TPM at {tcti} to answer, it does not: {str(error)[:120]}",
        reason="key-unavailable",
        hint="may this user open /dev/tpmrm0 (group tss)?",
    )
