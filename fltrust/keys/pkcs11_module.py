"""PKCS#11 modules in this process: loaded once, each token logged in to once, one lock around every call.

Many modules are not safe for threads, whatever they say. A session that is lost is opened again, once; a PIN
that was refused is not tried again, since a token locks after a few.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pkcs11
from pkcs11 import exceptions as refusals

from fltrust.errors import FltrustError, NotFound, Refused, Unavailable
from fltrust.keys.pkcs11_uri import Pkcs11Uri

T = TypeVar("T")


@dataclass(slots=True)
class _Token:
    """A token that this process uses: its sessions, and the PIN that it refused."""

    session: Any = None
    refused_pin: str | None = field(default=None, repr=False)


class Module:
    """One PKCS#11 library in this process; its lock surrounds every call into it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.lock = threading.RLock()
        self._pid = os.getpid()
        self._tokens: dict[
            str, _Token
        ] = {}  # by serial: however a URI names a token, it is logged in to once
        self._named: dict[str, _Token] = {}  # by what URIs say of it
        try:
            self._library = pkcs11.lib(path)
        except (refusals.PKCS11Error, RuntimeError, OSError):
            raise Unavailable(
                f"expected a PKCS#11 module at {path}, it does not load",
                reason="key-unavailable",
                hint="is the HSM's client installed, and its service running?",
            ) from None

    def session(self, uri: Pkcs11Uri) -> Any:
        """A session on the URI's token, logged in. Hold the lock."""
        if self._pid != os.getpid():  # a child inherits handles that are not its own
            self._library.reinitialize()
            self._tokens, self._named, self._pid = {}, {}, os.getpid()
        name = str(uri.with_key(object=None, id=None))
        held = self._named.get(name)
        if held is None or held.session is None:
            token = self._token_of(uri)
            held = self._tokens.setdefault(bytes(token.serial).hex() + token.label, _Token())
            self._named[name] = held
            if held.session is None:
                held.session = self._log_in(token, held, uri)
        return held.session

    def writing_session(self, uri: Pkcs11Uri) -> Any:
        """A second session, that may change the token; the login of the first holds for it. Hold the lock."""
        self.session(uri)
        return self._token_of(uri).open(rw=True)

    def forget(self) -> None:
        """Drop every session, as they are no longer good. Hold the lock."""
        for held in self._tokens.values():
            session, held.session = held.session, None
            if session is not None:
                try:
                    session.close()
                except refusals.PKCS11Error:
                    continue

    def restart(self) -> None:
        """Drop every session, and let the module look at its slots anew. Hold the lock."""
        self.forget()
        self._library.reinitialize()

    def _token_of(self, uri: Pkcs11Uri) -> Any:
        found = [
            token
            for slot in self._library.get_slots(token_present=True)
            if _is_of(token := slot.get_token(), uri)
        ]
        if len(found) != 1:
            raise NotFound(
                f"expected one token of {token_words(uri)}, found {len(found) or 'none'}",
                reason="key-gone",
                hint="is it plugged in? a 'serial' tells two of one label apart",
            )
        return found[0]

    def _log_in(self, token: Any, held: _Token, uri: Pkcs11Uri) -> Any:
        pin = uri.read_pin()
        if pin == held.refused_pin:
            raise _pin_refused(uri, "was refused before and is not tried again")
        try:
            return token.open(user_pin=pin)
        except refusals.UserAlreadyLoggedIn:  # by another library in this process
            return token.open()
        except (refusals.PinIncorrect, refusals.PinInvalid, refusals.PinLenRange):
            held.refused_pin = pin
            raise _pin_refused(uri, "is not the token's") from None
        except (refusals.PinLocked, refusals.PinExpired, refusals.UserPinNotInitialized) as error:
            raise Refused(
                f"expected {token_words(uri)} to take a PIN, it does not ({type(error).__name__})",
                reason="pin-locked",
                hint="its security officer sets a new PIN",
            ) from None


_modules: dict[str, Module] = {}
_modules_lock = threading.Lock()


def _module_of(uri: Pkcs11Uri) -> Module:
    path = uri.module()
    with _modules_lock:
        module = _modules.get(path)
        if module is None:
            module = _modules[path] = Module(path)
        return module


def close_sessions() -> None:
    """Log out of every token. Signers stay: the next signature logs in again."""
    with _modules_lock:
        modules = tuple(_modules.values())
    for module in modules:
        with module.lock:
            module.forget()


def run(uri: Pkcs11Uri, work: Callable[[Module], T]) -> T:
    """Do `work` under the module's lock; where the module refuses, once more after a new start.

    1. A refusal of ours (no such key, wrong PIN) stands.
    2. Any refusal by the module may be a lost session: sessions are dropped, the slots looked at anew.
    3. A second refusal is `Unavailable` (``key-unavailable``), with the module's word for it.
    """
    module = _module_of(uri)
    with module.lock:
        try:
            return work(module)
        except FltrustError:  # 1
            raise
        except refusals.PKCS11Error:  # 2
            pass
        try:
            module.restart()
            return work(module)
        except refusals.PKCS11Error as error:  # 3
            module.forget()
            raise Unavailable(
                f"expected {uri.object or 'the key'} in {token_words(uri)} to answer, "
                f"it does not ({type(error).__name__})",
                reason="key-unavailable",
                hint="is the HSM reachable, and does it hold the key still?",
            ) from None


def _is_of(token: Any, uri: Pkcs11Uri) -> bool:
    serial = bytes(token.serial).decode("utf-8", "replace").strip()
    found = {
        "token": str(token.label).strip(),
        "serial": serial,
        "manufacturer": str(token.manufacturer_id).strip(),
        "model": str(token.model).strip(),
    }
    return all(getattr(uri, name) in (None, value) for name, value in found.items())


def token_words(uri: Pkcs11Uri) -> str:
    return f"token {uri.token or uri.serial!r}"


def _pin_refused(uri: Pkcs11Uri, why: str) -> Refused:
    return Refused(
        f"expected the PIN of {token_words(uri)}, the one given {why}",
        reason="pin-wrong",
        hint="correct it where pin-source says, before you try again: a token locks after a few",
    )
