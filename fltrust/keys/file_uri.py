"""Keys in files by URI: ``file:/absolute/path?pin-source=file:/path/of/passphrase``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import quote, unquote

from fltrust.errors import Conflict, Malformed, NotFound, StorageUnavailable
from fltrust.files import sync_folder
from fltrust.keys.ed25519 import FileNoteSigner, generate_note_key, load_note_key, save_note_key
from fltrust.keys.file import FileSigner, generate, load, save
from fltrust.keys.pin import check_pin_source, find_pin
from fltrust.keys.query import parse_query

_MAX_URI = 4_096


@dataclass(frozen=True, slots=True)
class FileUri:
    """A PKCS#8 file and where its passphrase lies; without a `pin_source` it is not encrypted."""

    path: Path
    pin_source: str | None = None

    def __post_init__(self) -> None:
        if not self.path.is_absolute() or "\x00" in str(self.path):
            raise Malformed("expected an absolute path in the URI of a key file")
        if self.pin_source is not None:
            check_pin_source(self.pin_source)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a URI; `Malformed` for one that says what we do not understand."""
        if len(text) > _MAX_URI or not text.startswith("file:/"):
            raise Malformed("expected the URI of a key file 'file:/absolute/path'")
        path, _, query = text.removeprefix("file:").partition("?")
        given = parse_query(query, {"pin-source"})
        return cls(Path(unquote(path)), given.get("pin-source"))

    def __str__(self) -> str:
        query = "" if self.pin_source is None else f"?pin-source={quote(self.pin_source, safe=':/')}"
        return f"file:{quote(str(self.path))}{query}"

    def load(self) -> FileSigner:
        """Refusals as `fltrust.keys.file.load`; `NotFound` (``key-gone``) where there is no file."""
        self._require()
        return load(self.path, passphrase=self._passphrase())

    def load_note_key(self) -> FileNoteSigner:
        self._require()
        return load_note_key(self.path, passphrase=self._passphrase())

    def generate(self, *, ed25519: bool) -> Self:
        if self.path.exists():
            raise Conflict(f"expected nothing at {self.path}, found a file", reason="key-exists")
        if ed25519:
            save_note_key(generate_note_key(), self.path, passphrase=self._passphrase())
        else:
            save(generate(), self.path, passphrase=self._passphrase())
        return self

    def destroy(self) -> bool:
        """Remove the file. What a disk or a backup keeps of it, only an encrypted key is safe from."""
        try:
            self.path.unlink()
            sync_folder(self.path.parent)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise StorageUnavailable(f"could not remove {self.path}: {error.strerror or error}") from error
        return True

    def _require(self) -> None:
        if not self.path.exists():
            raise NotFound(f"expected a private key at {self.path}, found no file", reason="key-gone")

    def _passphrase(self) -> bytes | None:
        if self.pin_source is None:
            return None
        pin = find_pin(self.pin_source)
        return None if pin is None else pin.encode()
