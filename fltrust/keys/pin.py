"""Where the PIN of a key lies: in a private file or in the environment, never in the key's URI."""

from __future__ import annotations

import os
import re
from pathlib import Path

from fltrust.errors import Malformed, Refused
from fltrust.keys.file import read_private

PIN_FILE_VARIABLE = "FLTRUST_KEY_PIN_FILE"
_MAX_PIN = 255
_ENVIRONMENT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}\Z")


def check_pin_source(source: str) -> None:
    """Return only for ``file:/absolute/path`` and ``env:NAME``; `Malformed` for any other source."""
    kind, _, where = source.partition(":")
    if kind == "file" and Path(where).is_absolute():
        return
    if kind == "env" and _ENVIRONMENT_NAME.match(where):
        return
    raise Malformed(
        "expected pin-source=file:/absolute/path or pin-source=env:NAME in the URI of a key",
        hint="commands ('|…') and other places are not run or read",
    )


def find_pin(source: str | None) -> str | None:
    """The PIN from `source`, else from the file that ``FLTRUST_KEY_PIN_FILE`` names; None where neither is.

    `Refused`: ``pin-missing`` where a source holds none, ``key-file-exposed`` for a file that others may
    read.
    """
    if source is None and (name := os.environ.get(PIN_FILE_VARIABLE)):
        source = f"file:{name}"
    if source is None:
        return None
    if source.startswith("env:"):
        pin = os.environ.get(source.removeprefix("env:"), "")
    else:
        try:
            pin = read_private(Path(source.removeprefix("file:"))).decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError:
            raise Malformed("expected the PIN in UTF-8 in its file, found something else") from None
    if not 0 < len(pin) <= _MAX_PIN:
        raise no_pin(f"expected a PIN of 1 to {_MAX_PIN} characters from {source}, found another")
    return pin


def pin_in_uri() -> Refused:
    """The refusal of a URI that holds a PIN; it repeats nothing of it."""
    return Refused(
        "expected no PIN in the URI of a key, got one",
        reason="pin-in-uri",
        hint="write it to a private file and name that: pin-source=file:/path; change the PIN, since it may "
        "be in a log or a shell's history by now",
    )


def no_pin(message: str) -> Refused:
    return Refused(
        message,
        reason="pin-missing",
        hint=f"pin-source=file:/path in the URI, or {PIN_FILE_VARIABLE}, names a file (0600) that holds it",
    )
