"""Keys of a TPM 2.0 by URI.

    tpm:file=/var/lib/fltrust/issuing.tpm;pin-source=file:/run/password;tcti=device:/dev/tpmrm0
    tpm:handle=0x81010001

A key lies in a file that only its own TPM can load (``TSS2 PRIVATE KEY``, what tpm2-openssl reads, too), or
in the TPM under a persistent handle. `tcti` says how the TPM is reached; left out, ``FLTRUST_TPM_TCTI`` does,
else it is ``device:/dev/tpmrm0``. `pin_source` is where the key's password lies, if it has one.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import quote

from fltrust.errors import Malformed
from fltrust.keys.pin import check_pin_source, find_pin
from fltrust.keys.query import parse_query

TCTI_VARIABLE = "FLTRUST_TPM_TCTI"
_DEFAULT_TCTI = "device:/dev/tpmrm0"
_MAX_URI = 4_096
_TCTI = re.compile(
    r"(?:device:/[A-Za-z0-9/._-]+|(?:swtpm|mssim):[A-Za-z0-9=,./_-]*|tabrmd:[A-Za-z0-9=,._-]*)\Z"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TpmUri:
    """A key of a TPM: in a file that it wrapped, or under a persistent handle."""

    file: Path | None = None
    handle: int | None = None
    tcti: str | None = None
    pin_source: str | None = None

    def __post_init__(self) -> None:
        if (self.file is None) == (self.handle is None):
            raise Malformed("expected 'file' or 'handle' in the URI of a TPM's key")
        if self.file is not None and (not self.file.is_absolute() or "\x00" in str(self.file)):
            raise Malformed("expected an absolute path in the URI of a TPM's key")
        if self.handle is not None and not 0x81000000 <= self.handle <= 0x81FFFFFF:
            raise Malformed("expected a persistent handle from 0x81000000 to 0x81ffffff")
        if self.tcti is not None:
            check_tcti(self.tcti)
        if self.pin_source is not None:
            check_pin_source(self.pin_source)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a URI; `Malformed` for one that says what we do not understand."""
        if len(text) > _MAX_URI or not text.startswith("tpm:"):
            raise Malformed("expected the URI of a TPM's key 'tpm:file=/absolute/path'")
        known = {"file", "handle", "tcti", "pin-source"}
        given = parse_query(text.removeprefix("tpm:"), known, separator=";")
        handle = given.get("handle")
        if handle is not None and not re.fullmatch(r"0x[0-9a-fA-F]{8}", handle):
            raise Malformed("expected a handle such as 0x81010001 in the URI of a TPM's key")
        return cls(
            file=Path(given["file"]) if "file" in given else None,
            handle=None if handle is None else int(handle, 16),
            tcti=given.get("tcti"),
            pin_source=given.get("pin-source"),
        )

    def __str__(self) -> str:
        parts = [f"file={quote(str(self.file))}" if self.file is not None else f"handle=0x{self.handle:08x}"]
        if self.tcti is not None:
            parts.append(f"tcti={quote(self.tcti, safe=':/=,')}")
        if self.pin_source is not None:
            parts.append(f"pin-source={quote(self.pin_source, safe=':/')}")
        return "tpm:" + ";".join(parts)

    def password(self) -> bytes | None:
        """The key's password, where it has one."""
        pin = find_pin(self.pin_source) if self.pin_source is not None else None
        return None if pin is None else pin.encode()


def default_tcti() -> str:
    """How the machine's TPM is reached."""
    return check_tcti(os.environ.get(TCTI_VARIABLE) or _DEFAULT_TCTI)


def check_tcti(text: str) -> str:
    """Return the TCTI's name if it is one that may be loaded: a TCTI is a library that is loaded by name."""
    if not _TCTI.match(text):
        raise Malformed("expected a TCTI 'device:/dev/tpmrm0', 'swtpm:…', 'mssim:…' or 'tabrmd:…'")
    return text
