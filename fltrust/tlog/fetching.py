"""Where a log is fetched from: over HTTP or from a folder, within bounds."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
import zlib
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from fltrust.errors import Malformed, NotFound, Oversized, Unavailable
from fltrust.files import read_bounded
from fltrust.tlog.note import MAX_NOTE
from fltrust.tlog.tiles import CHECKPOINT_PATH, Tile

TIMEOUT = 30.0
"""Seconds for one request, from first to last byte."""

_CHUNK = 64 * 1024
_MAX_COMPLAINT = 64 * 1024  # of the body of an answer that is none: longer than many a tile
_GZIP_MORE = 8 * 1024  # what gzip may add to bytes that do not compress


def limit_of(path: str) -> int:
    """The most bytes that may stand at a path of a log; `Malformed` if it is none."""
    return MAX_NOTE if path == CHECKPOINT_PATH else Tile.parse(path).limit


def open_source(place: str, *, ca_file: Path | None = None, timeout: float = TIMEOUT) -> LogSource:
    """The log at a URL (``http://`` or ``https://``), or in a folder."""
    if place.startswith(("http://", "https://")):
        return HttpLog(place, ca_file=ca_file, timeout=timeout)
    if "://" in place:
        raise Malformed(f"expected an http or https URL or a folder, got {place[:80]!r}")
    return FolderLog(Path(place))


class LogSource(Protocol):
    """A `Fetch` that holds something open."""

    def __call__(self, path: str) -> bytes: ...

    def close(self) -> None: ...


class FolderLog:
    """A log's files below a folder. What a link points to is read: the folder is its owner's."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise NotFound(f"expected a log in the folder {folder}, found no folder")
        self._folder = folder

    def __call__(self, path: str) -> bytes:
        limit, file = limit_of(path), self._folder / path
        if not file.is_file():
            raise NotFound(f"expected {path} in {self._folder}, found none")
        return read_bounded(file, limit=limit)

    def close(self) -> None:
        pass


class HttpClient:
    """One kept-alive connection to the origin of one URL. Not for many threads at once.

    Bounded in bytes and seconds; follows no redirect; sends nothing but what it is told, and trusts for TLS
    the machine's authorities, or those of `ca_file` alone. Raises `Unavailable` when the other side cannot
    be reached, is too slow, or answers what is no HTTP.
    """

    def __init__(self, url: str, *, ca_file: Path | None = None, timeout: float = TIMEOUT) -> None:
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise Malformed("expected a URL 'https://host[:port]/path', got another") from None
        if (
            parts.scheme not in ("http", "https")
            or not parts.hostname
            or parts.username is not None
            or parts.query
            or parts.fragment
            or any(not "!" <= c <= "~" for c in url)
        ):
            shown = "another" if "@" in url else repr(url[:80])  # what stands before an @ may be a secret
            raise Malformed(
                f"expected a URL 'https://host[:port]/path' without user, query or fragment, got {shown}"
            )
        self._prefix = parts.path.rstrip("/")
        self._timeout = timeout
        self._where = f"{parts.scheme}://{parts.netloc}"
        self._connection: http.client.HTTPConnection
        if parts.scheme == "https":
            try:
                context = ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
            except (OSError, ssl.SSLError):
                raise Malformed(f"expected certificates in PEM in {ca_file}, found none") from None
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            self._connection = http.client.HTTPSConnection(
                parts.hostname, port, timeout=timeout, context=context
            )
        else:
            self._connection = http.client.HTTPConnection(parts.hostname, port, timeout=timeout)

    def request(
        self, method: str, path: str, *, limit: int, body: bytes | None = None
    ) -> tuple[int, str, bytes]:
        """Ask below the URL's path: the status, the content type, and a body of at most `limit` bytes."""
        try:
            return self._request(method, path, limit, body)
        except _Dropped:
            pass  # a kept-alive connection that was closed meanwhile: once more, on a new one
        except (OSError, http.client.HTTPException) as error:
            raise self._unavailable(error) from None
        try:
            return self._request(method, path, limit, body)
        except (_Dropped, OSError, http.client.HTTPException) as error:
            raise self._unavailable(error) from None

    def close(self) -> None:
        self._connection.close()

    def _request(self, method: str, path: str, limit: int, body: bytes | None) -> tuple[int, str, bytes]:
        is_kept = self._connection.sock is not None
        # A socket's timeout bounds one wait; a drop of bytes every now and then would pass it for ever.
        expired = threading.Event()
        alarm = threading.Timer(self._timeout, self._abort, (expired,))
        alarm.daemon = True
        alarm.start()
        try:
            if not is_kept:
                self._connection.connect()
                if expired.is_set():  # while there was no socket yet that could be shut down
                    raise TimeoutError
            self._connection.request(
                method, f"{self._prefix}/{path}", body=body, headers={"Accept-Encoding": "gzip, identity"}
            )
            with self._connection.getresponse() as answer:
                most = limit if answer.status == 200 else max(limit, _MAX_COMPLAINT)
                is_zipped = answer.headers.get("Content-Encoding", "identity") == "gzip"
                data = self._read(answer, most + _GZIP_MORE if is_zipped else most)
                if expired.is_set():
                    raise TimeoutError
                if is_zipped:
                    data = _gunzip(data, most)
                return answer.status, answer.headers.get_content_type(), data
        except BaseException as error:
            self.close()  # what is left of the answer must not be read as the next one
            if expired.is_set():
                raise TimeoutError(f"no whole answer within {self._timeout:g} s") from None
            if is_kept and isinstance(error, (http.client.RemoteDisconnected, ConnectionError)):
                raise _Dropped from None
            raise
        finally:
            alarm.cancel()

    def _abort(self, expired: threading.Event) -> None:
        expired.set()
        sock = self._connection.sock
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _read(self, answer: http.client.HTTPResponse, limit: int) -> bytes:
        parts, size = [], 0
        while part := answer.read1(_CHUNK):
            size += len(part)
            if size > limit:
                raise Oversized(f"expected at most {limit} bytes from {self._where}, got more")
            parts.append(part)
        if answer.length:
            raise http.client.IncompleteRead(b"", answer.length)
        return b"".join(parts)

    def _unavailable(self, error: Exception) -> Unavailable:
        self.close()
        return Unavailable(
            f"could not ask {self._where}: {str(error)[:200] or type(error).__name__}",
            hint="check the address, and that the service runs",
        )


class _Dropped(Exception):
    """A kept-alive connection turned out to be closed."""


class HttpLog:
    """A log below a URL prefix (C2SP tlog-tiles)."""

    def __init__(self, url: str, *, ca_file: Path | None = None, timeout: float = TIMEOUT) -> None:
        self._url = url
        self._client = HttpClient(url, ca_file=ca_file, timeout=timeout)

    def __call__(self, path: str) -> bytes:
        status, _, data = self._client.request("GET", path, limit=limit_of(path))
        if status in (404, 410):
            raise NotFound(f"expected {path} at {self._url}, found none")
        if status != 200:
            hint = "give the log's own address: redirects are not followed" if 300 <= status < 400 else None
            raise Unavailable(f"expected {path} at {self._url}, got HTTP status {status}", hint=hint)
        return data

    def close(self) -> None:
        self._client.close()


def _gunzip(data: bytes, limit: int) -> bytes:
    machine = zlib.decompressobj(wbits=31)
    try:
        whole = machine.decompress(data, limit + 1)
    except zlib.error:
        raise Malformed("expected a gzip-encoded answer, got something else") from None
    if len(whole) > limit:
        raise Oversized(f"expected at most {limit} bytes, uncompressed, got more")
    if not machine.eof or machine.unused_data:
        raise Malformed("expected one whole gzip stream as answer, got something else")
    return whole
