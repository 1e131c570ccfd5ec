"""A log's files over real HTTP, well behaved and otherwise."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from fltrust.errors import NotFound

Answerer = Callable[[BaseHTTPRequestHandler], None]


@contextmanager
def serving(answer: Answerer, *, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """Serve GET and POST by calling `answer`; gives the URL."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            answer(self)

        def do_POST(self) -> None:
            answer(self)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http{'' if tls is None else 's'}://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def send(handler: BaseHTTPRequestHandler, body: bytes, status: int = 200, **headers: str) -> None:
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(body)))
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)


def from_fetch(fetch: Callable[[str], bytes], prefix: str = "/log/") -> Answerer:
    """Answer with what `fetch` gives below `prefix`."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        if not handler.path.startswith(prefix):
            send(handler, b"", 404)
            return
        try:
            send(handler, fetch(handler.path.removeprefix(prefix)))
        except NotFound:
            send(handler, b"not there", 404)

    return answer


def from_folder(folder: Path) -> Answerer:
    def fetch(path: str) -> bytes:
        try:
            return (folder / path).read_bytes()
        except OSError:
            raise NotFound(path) from None

    return from_fetch(fetch)
