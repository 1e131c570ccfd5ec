"""A witness over HTTP, small enough to run anywhere: one POST, within bounds."""

from __future__ import annotations

import contextlib
import logging
import signal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import AF_INET, AF_INET6, SHUT_RDWR, socket
from threading import BoundedSemaphore, Event, Thread, Timer

from fltrust.errors import Conflict, FltrustError
from fltrust.tlog.witness import ADD_CHECKPOINT, MAX_REQUEST, Answer, Witness

MAX_CONNECTIONS = 64
IDLE_SECONDS = 15.0
LIFE_SECONDS = 120.0

_log = logging.getLogger(__name__)


class WitnessServer(ThreadingHTTPServer):
    """Serves one `Witness` on `address`; at most `MAX_CONNECTIONS` at once, others are closed at the door."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], witness: Witness) -> None:
        self.witness = witness
        self._room = BoundedSemaphore(MAX_CONNECTIONS)
        self.address_family = AF_INET6 if ":" in address[0] else AF_INET
        try:
            super().__init__(address, _Handler)
        except OSError as error:
            raise Conflict(
                f"could not listen on {address[0]} port {address[1]}: {error.strerror or error}",
                hint="is another process using that port?",
            ) from None

    def process_request(self, request: socket | tuple[bytes, socket], client_address: object) -> None:
        if not self._room.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._room.release()
            raise

    def process_request_thread(self, request: socket | tuple[bytes, socket], client_address: object) -> None:
        # The handler's timeout bounds one wait; this bounds a connection that drips.
        alarm = Timer(LIFE_SECONDS, _hang_up, (request,))
        alarm.daemon = True
        alarm.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            alarm.cancel()
            self._room.release()

    def handle_error(self, request: object, client_address: object) -> None:
        _log.debug("a connection from %s ended badly (%r)", client_address, request, exc_info=True)


def _hang_up(request: socket | tuple[bytes, socket]) -> None:
    if isinstance(request, socket):
        with contextlib.suppress(OSError):
            request.shutdown(SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "fltrust-witness"
    sys_version = ""
    timeout = IDLE_SECONDS
    server: WitnessServer

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if self.path != f"/{ADD_CHECKPOINT}":
            self._answer(Answer(404, b"not found\n"), is_last=True)
        elif not (length.isascii() and length.isdigit()) or self.headers.get("Transfer-Encoding"):
            self._answer(Answer(411, b"a Content-Length is needed\n"), is_last=True)
        elif len(length) > 9 or int(length) > MAX_REQUEST:
            self._answer(Answer(413, f"at most {MAX_REQUEST} bytes\n".encode()), is_last=True)
        else:
            body = self.rfile.read(int(length))
            if len(body) == int(length):
                self._answer(self._ask(body))

    def _ask(self, body: bytes) -> Answer:
        try:
            answer = self.server.witness.add_checkpoint(body)
        except FltrustError as error:  # of our own store: nothing was cosigned
            _log.error("could not record a checkpoint: %s", error)
            return Answer(503, b"the witness cannot record checkpoints now\n")
        if answer.status != 200:
            _log.info("add-checkpoint from %s: %d", self.client_address[0], answer.status)
        return answer

    def _answer(self, answer: Answer, *, is_last: bool = False) -> None:
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        if is_last:  # the body was not read, and must not be taken for the next request
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        self.wfile.write(answer.body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the standard library's
        _log.debug(format, *args)


def serve_until_stopped(server: WitnessServer) -> None:
    """Serve until SIGTERM or SIGINT; connections that are open get their answer. For the main thread."""
    stop = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    serving = Thread(target=server.serve_forever, name="witness", daemon=True)
    serving.start()
    while not stop.wait(timeout=1.0) and serving.is_alive():
        pass
    server.shutdown()
    server.server_close()
