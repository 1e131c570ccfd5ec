"""Walk a model without following anything out of it, and notice when it changes under our hands.

Bound are regular files, by the path below the model's top in POSIX form, and empty directories. Two
names of one file (hard links) are two files. Refused, each with its ``reason``:

    symlink                a link inside the model, wherever it points: it could leave the model
    special-file           a pipe, socket or device
    name                   not UTF-8, or with a control character, a backslash or a text-direction mark
    name-collision         two names that some file system takes for one (case, Unicode normalisation)
    unreadable             no permission, or the disk fails
    changed-while-hashing  a file or directory whose identity, size or times changed since it was listed
    git-directory          ``.git`` at the top: it changes by itself, and OMS verifiers do not see it

The path given may itself be a link; it is resolved once. From there every step opens one name
relative to a directory that is already open, never through a link, so nobody can swap a directory
for a link half-way. The times that a file system keeps are coarse: a file rewritten within its
clock's tick, in place and to the same size, is not noticed here, and its bytes are then whatever was
hashed. Loading (`fltrust.artifacts.loading`) does not depend on this: it uses the bytes it hashed.
"""

from __future__ import annotations

import os
import re
import stat
import unicodedata
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from fltrust.errors import ArtifactRefused, LimitExceeded, NotFound

SINGLE_FILE: Final = "."
"""The name of the one entry when the model is a file, as OMS writes it."""
SIGNATURE_NAME: Final = "model.sig"
LINEAGE_NAME: Final = "model.lineage.jsonl"
SIDECARS: Final = (LINEAGE_NAME, SIGNATURE_NAME)
"""Files of these names at the top of a directory are never part of the model."""

MAX_FILES: Final = 250_000
"""Files, or directories, of one model."""
MAX_DEPTH: Final = 64
MAX_NAME_BYTES: Final = 4_096

_GIT_DIRECTORY = ".git"
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\\\\\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
    r"|(?:\A|/)\.{0,2}(?:/|\Z)"  # a part that is empty, or leads nowhere or up
)
_OPEN = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
_OPEN_FILE = _OPEN | os.O_NONBLOCK  # a pipe put in a file's place must not make us wait
_OPEN_DIRECTORY = _OPEN | os.O_DIRECTORY

Seal = tuple[int, int, int, int, int]
"""Device, inode, size, and times of the last change to data and to the inode, in ns."""


def seal_of(found: os.stat_result) -> Seal:
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def name_order(name: str) -> tuple[str, ...]:
    """Sorts as OMS does: by the parts of the path, by code point."""
    return tuple(name.split("/"))


def is_safe_name(name: str) -> bool:
    """Whether a path below a model's top can be bound and shown without doubt."""
    return not _UNSAFE.search(name) and len(name.encode()) <= MAX_NAME_BYTES


def collision_key(name: str) -> str:
    """Equal for names that a file system without case, or with Unicode normalisation, takes for one."""
    return (
        name.lower()
        if name.isascii()
        else unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())
    )


@dataclass(frozen=True, slots=True)
class ListedFile:
    """A regular file as it stood when it was listed."""

    name: str
    seal: Seal

    @property
    def size(self) -> int:
        return self.seal[2]


class Listing:
    """The files of a model, in the order of `name_order`, and its empty directories.

    Holds the top open; use it as a context. `ignore` names files and directories to pass over, with
    all in them, by their path below the top. Raises `ArtifactRefused`, `LimitExceeded`, `NotFound`.
    """

    def __init__(self, path: Path, *, ignore: Collection[str] = ()) -> None:
        self.path = path
        self.files: list[ListedFile] = []
        self.empty_directories: list[str] = []
        self._ignore = frozenset(name.rstrip("/") for name in ignore)
        self._directories: list[tuple[str, Seal]] = []
        real, kind = _resolve(path)
        self.is_directory = stat.S_ISDIR(kind)
        self._base = "" if self.is_directory else os.path.basename(real)
        self._top = _open_top(real if self.is_directory else os.path.dirname(real), path)
        try:
            if self.is_directory:
                self._list(self._top, "", 0)
                self._finish()
            else:
                found = os.stat(self._base, dir_fd=self._top, follow_symlinks=False)
                self._add_file(SINGLE_FILE, found)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        os.close(self._top)

    def opener(self) -> Opener:
        """Opens the listed files, for one thread."""
        return Opener(self, self._top, self._base)

    def check_unchanged(self) -> None:
        """Raise `ArtifactRefused` if a directory got, lost or renamed an entry since it was listed."""
        opener = self.opener()
        try:
            for name, seal in self._directories:
                if seal_of(os.fstat(opener.directory(name))) != seal:
                    raise changed(self.path, name or ".")
        finally:
            opener.close()

    def _list(self, fd: int, prefix: str, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise LimitExceeded(f"expected at most {MAX_DEPTH} nested directories in {self.path}")
        self._directories.append((prefix.rstrip("/"), seal_of(os.fstat(fd))))
        if len(self._directories) > MAX_FILES:
            raise LimitExceeded(f"expected at most {MAX_FILES} directories in {self.path}")
        is_empty = True
        for entry, found in self._entries(fd, prefix):
            name = prefix + entry
            if self._passes_over(name, found):
                continue
            is_empty = False
            if stat.S_ISDIR(found.st_mode):
                self._enter(fd, entry, name, depth)
            else:
                self._add_file(name, found)
        if is_empty and prefix:
            self.empty_directories.append(prefix.rstrip("/"))

    def _entries(self, fd: int, prefix: str) -> Iterator[tuple[str, os.stat_result]]:
        try:
            with os.scandir(fd) as entries:
                for entry in entries:
                    yield entry.name, entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            raise changed(self.path, prefix or ".") from None

    def _enter(self, parent: int, entry: str, name: str, depth: int) -> None:
        if name == _GIT_DIRECTORY:
            raise _refused(
                "git-directory",
                f"expected a model without a repository inside, found {_GIT_DIRECTORY} in {self.path}",
                hint="sign a copy without it, or ignore it: --ignore .git",
            )
        self._check_name(name)
        fd = _open(entry, _OPEN_DIRECTORY, parent, where=self.path, name=name)
        try:
            self._list(fd, name + "/", depth + 1)
        finally:
            os.close(fd)

    def _passes_over(self, name: str, found: os.stat_result) -> bool:
        return name in self._ignore or (name in SIDECARS and stat.S_ISREG(found.st_mode))

    def _add_file(self, name: str, found: os.stat_result) -> None:
        if name != SINGLE_FILE:
            self._check_name(name)
        if stat.S_ISLNK(found.st_mode):
            raise _refused(
                "symlink",
                f"expected no symbolic link in a model, found {name!r} in {self.path}",
                hint="put the file itself in its place, e.g. with cp -rL",
            )
        if not stat.S_ISREG(found.st_mode):
            kind = stat.filemode(found.st_mode)[0]
            raise _refused(
                "special-file", f"expected files in a model, found {name!r} of type {kind!r} in {self.path}"
            )
        self.files.append(ListedFile(name, seal_of(found)))
        if len(self.files) > MAX_FILES:
            raise LimitExceeded(f"expected at most {MAX_FILES} files in {self.path}")

    def _check_name(self, name: str) -> None:
        if not is_safe_name(name):
            raise _refused(
                "name",
                f"expected names in UTF-8 without control characters or '\\' in {self.path}, "
                f"got {ascii(name)[:200]}",
                hint="rename it",
            )

    def _finish(self) -> None:
        self.files.sort(key=lambda file: name_order(file.name))
        self.empty_directories.sort(key=name_order)
        seen: dict[str, str] = {}
        for name in (*(file.name for file in self.files), *self.empty_directories):
            other = seen.setdefault(collision_key(name), name)
            if other is not name:
                raise _refused(
                    "name-collision",
                    f"expected names that stay apart everywhere, got {other!r} and {name!r} in {self.path}",
                    hint="rename one of them",
                )


class Opener:
    """Opens files of a listing by name, below its top and through no link. Keeps the last directory open."""

    __slots__ = ("_base", "_fd", "_folder", "_listing", "_top")

    def __init__(self, listing: Listing, top: int, base: str) -> None:
        self._listing, self._top, self._base = listing, top, base
        self._folder, self._fd = "", -1

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._folder, self._fd = "", -1

    def directory(self, name: str) -> int:
        """The open directory of that name, until the next call."""
        if not name:
            return self._top
        if name != self._folder:
            self.close()
            fd, owned = self._top, -1
            for part in name.split("/"):
                fd = _open(part, _OPEN_DIRECTORY, fd, where=self._listing.path, name=name)
                if owned >= 0:
                    os.close(owned)
                owned = fd
            self._folder, self._fd = name, fd
        return self._fd

    def open(self, name: str) -> int:
        if name == SINGLE_FILE:
            name = self._base
        folder, _, base = name.rpartition("/")
        return _open(base, _OPEN_FILE, self.directory(folder), where=self._listing.path, name=name)


def changed(path: Path, name: str) -> ArtifactRefused:
    return _refused(
        "changed-while-hashing",
        f"expected {name!r} in {path} to stay as it is while it is read, but it changed",
        hint="try again when nothing writes to the model",
    )


def _resolve(path: Path) -> tuple[str, int]:
    try:
        real = os.path.realpath(path, strict=True)
        return real, os.lstat(real).st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(f"expected a model at {path}, found nothing") from None
    except (OSError, ValueError) as error:
        raise _unreadable(path, ".", error) from None


def _open_top(real: str, path: Path) -> int:
    try:
        return os.open(real, _OPEN_DIRECTORY)
    except OSError as error:
        raise _unreadable(path, ".", error) from None


def _open(entry: str, flags: int, parent: int, *, where: Path, name: str) -> int:
    try:
        return os.open(entry, flags, dir_fd=parent)
    except PermissionError as error:
        raise _unreadable(where, name, error) from None
    except OSError:  # it was a file or directory when it was listed: gone, or a link now
        raise changed(where, name) from None


def _unreadable(path: Path, name: str, error: OSError | ValueError) -> ArtifactRefused:
    text = getattr(error, "strerror", None) or error
    return _refused("unreadable", f"could not read {name!r} in {path}: {text}", hint="check permissions")


def _refused(reason: str, message: str, *, hint: str | None = None) -> ArtifactRefused:
    return ArtifactRefused(message, reason=reason, hint=hint)
