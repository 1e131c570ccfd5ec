"""Keys by their URI, wherever they lie: made, opened and destroyed in one way.

    file:/var/lib/fltrust/issuing.key?pin-source=file:/run/passphrase     PKCS#8, as `fltrust.keys.file`
    pkcs11:token=hospital;object=issuing?module-path=/usr/lib/…           `fltrust.keys.pkcs11_uri`
    awskms:///alias/fltrust-issuing?region=eu-central-1                   `fltrust.keys.awskms`
    tpm:file=/var/lib/fltrust/issuing.tpm                                 `fltrust.keys.tpm_uri`

What a kind of key needs beside the base install is imported when the first key of that kind is used.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from fltrust.errors import Malformed, Unavailable
from fltrust.keys.ed25519 import NoteSigner
from fltrust.keys.file_uri import FileUri
from fltrust.keys.pkcs11_uri import Pkcs11Uri
from fltrust.keys.signer import Signer
from fltrust.keys.tpm_uri import TpmUri


class KeyHome(StrEnum):
    """Where a key lies."""

    FILE = "file"
    PKCS11 = "pkcs11"
    AWSKMS = "awskms"
    TPM = "tpm"


@dataclass(frozen=True, slots=True)
class Destroyed:
    """What became of a key that was to be destroyed: whether it was there, and when it will be gone for good
    (None: it is)."""

    was_there: bool
    gone_at: datetime | None = None


def home_of(uri: str) -> KeyHome:
    """The kind of key that a URI names; `Malformed` for a scheme that is not known."""
    scheme = uri.partition(":")[0]
    try:
        return KeyHome(scheme)
    except ValueError:
        raise Malformed(
            f"expected the URI of a key, {', '.join(f'{home}:…' for home in KeyHome)}, got another scheme"
        ) from None


def check_uri(uri: str) -> str:
    """Return the URI in its one form; refusals as the kind's own. Nothing is opened."""
    match home_of(uri):
        case KeyHome.FILE:
            return str(FileUri.parse(uri))
        case KeyHome.PKCS11:
            return str(Pkcs11Uri.parse(uri))
        case KeyHome.TPM:
            return str(TpmUri.parse(uri))
        case KeyHome.AWSKMS:
            from fltrust.keys.awskms import KmsUri

            return str(KmsUri.parse(uri))


def open_key(uri: str) -> Signer:
    """Open a P-256 key, which must be there and usable; see the kind's own `open_signer` for the refusals."""
    match home_of(uri):
        case KeyHome.FILE:
            return FileUri.parse(uri).load()
        case KeyHome.PKCS11:
            from fltrust.keys import pkcs11

            return pkcs11.open_signer(Pkcs11Uri.parse(uri))
        case KeyHome.TPM:
            from fltrust.keys import tpm

            return tpm.open_signer(TpmUri.parse(uri))
        case KeyHome.AWSKMS:
            from fltrust.keys import awskms

            return awskms.open_signer(awskms.KmsUri.parse(uri))


def open_note_key(uri: str) -> NoteSigner:
    """Open an Ed25519 key: in a file, or in a PKCS#11 token that has CKM_EDDSA; no other kind has any."""
    match home_of(uri):
        case KeyHome.FILE:
            return FileUri.parse(uri).load_note_key()
        case KeyHome.PKCS11:
            from fltrust.keys import pkcs11

            return pkcs11.open_note_signer(Pkcs11Uri.parse(uri))
        case other:
            raise _no_ed25519(other)


def generate_key(uri: str, *, ed25519: bool = False) -> str:
    """Make a key at the URI and return the URI that names it alone; `Conflict` where one is."""
    match home_of(uri):
        case KeyHome.FILE:
            return str(FileUri.parse(uri).generate(ed25519=ed25519))
        case KeyHome.PKCS11:
            from fltrust.keys import pkcs11

            return str(pkcs11.generate_key(Pkcs11Uri.parse(uri), ed25519=ed25519))
        case other if ed25519:
            raise _no_ed25519(other)
        case KeyHome.TPM:
            from fltrust.keys import tpm

            return str(tpm.generate_key(TpmUri.parse(uri)))
        case KeyHome.AWSKMS:
            from fltrust.keys import awskms

            return str(awskms.generate_key(awskms.KmsUri.parse(uri)))
    raise Unavailable("expected a kind of key that can be made")  # pragma: no cover - every kind is above


def destroy_key(uri: str) -> Destroyed:
    """Destroy the key at the URI, for good. A second call says that it was not there."""
    match home_of(uri):
        case KeyHome.FILE:
            return Destroyed(FileUri.parse(uri).destroy())
        case KeyHome.PKCS11:
            from fltrust.keys import pkcs11

            return Destroyed(pkcs11.destroy_key(Pkcs11Uri.parse(uri)))
        case KeyHome.TPM:
            from fltrust.keys import tpm

            return Destroyed(tpm.destroy_key(TpmUri.parse(uri)))
        case KeyHome.AWSKMS:
            from fltrust.keys import awskms

            gone_at = awskms.destroy_key(awskms.KmsUri.parse(uri))
            return Destroyed(gone_at is not None, gone_at)


def _no_ed25519(home: KeyHome) -> Malformed:
    return Malformed(
        f"expected an Ed25519 key in a file or a PKCS#11 token, got the URI of kind {home}",
        hint="the log's note key can be of these two kinds alone",
    )
