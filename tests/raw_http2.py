"""A gRPC call by hand over any socket: for TLS versions and sessions that gRPC's own client cannot do."""

from __future__ import annotations

import socket
import ssl
import struct
import tempfile
from dataclasses import dataclass

from fltrust.client import Credentials
from fltrust.pki import bundle_to_pem

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _SETTINGS, _PING, _GOAWAY = 0, 1, 4, 6, 7
_INITIAL_WINDOW_SIZE = 4
_END_STREAM, _END_HEADERS, _ACK = 1, 4, 1


@dataclass(frozen=True)
class RawAnswer:
    """`headers` are the bytes of all header blocks: gRPC's core writes texts in them plainly."""

    headers: bytes
    data: bytes

    def says(self, text: str) -> bool:
        return text.encode() in self.headers


def client_context(
    credentials: Credentials | None, roots: bytes, *, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
) -> ssl.SSLContext:
    """A context that speaks this TLS version alone and offers HTTP/2."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = context.maximum_version = version
    context.load_verify_locations(cadata=roots.decode())
    context.set_alpn_protocols(["h2"])
    if credentials is not None:
        with tempfile.NamedTemporaryFile() as file:
            file.write(credentials.key_pem + credentials.chain_pem)
            file.flush()
            context.load_cert_chain(file.name)
    return context


def connect(
    address: str, context: ssl.SSLContext, *, name: str, session: ssl.SSLSession | None = None
) -> ssl.SSLSocket:
    host, _, port = address.rpartition(":")
    plain = socket.create_connection((host, int(port)), timeout=10)
    return context.wrap_socket(plain, server_hostname=name, session=session)


def roots_of(credentials: Credentials) -> bytes:
    return bundle_to_pem(credentials.bundle)


def begin(sock: socket.socket, method: str, message: bytes = b"", *, window: int = 65_535) -> None:
    """Send one call on a fresh connection; `window` bytes are all that we take of the answer."""
    headers = {
        ":method": "POST",
        ":scheme": "https",
        ":path": method,
        ":authority": "localhost",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    block = b"".join(_literal(name, value) for name, value in headers.items())
    body = b"\0" + struct.pack(">I", len(message)) + message
    sock.sendall(
        _PREFACE
        + _frame(_SETTINGS, 0, 0, struct.pack(">HI", _INITIAL_WINDOW_SIZE, window))
        + _frame(_HEADERS, _END_HEADERS, 1, block)
        + _frame(_DATA, _END_STREAM, 1, body)
    )


def call(sock: socket.socket, method: str, message: bytes = b"") -> RawAnswer:
    """Make one call on a fresh connection and read until its end."""
    begin(sock, method, message)
    found, data = b"", b""
    while True:
        kind, flags, stream, payload = _read_frame(sock)
        if kind == _SETTINGS and not flags & _ACK:
            sock.sendall(_frame(_SETTINGS, _ACK, 0, b""))
        elif kind == _PING and not flags & _ACK:
            sock.sendall(_frame(_PING, _ACK, 0, payload))
        elif kind == _GOAWAY:
            raise ConnectionError(f"the server went away: {payload!r}")
        elif stream == 1 and kind == _HEADERS:
            found += payload
        elif stream == 1 and kind == _DATA:
            data += payload
        if stream == 1 and flags & _END_STREAM and kind in (_HEADERS, _DATA):
            return RawAnswer(found, data)


def _literal(name: str, value: str) -> bytes:
    def text(of: str) -> bytes:
        return bytes([len(of)]) + of.encode()

    return b"\0" + text(name) + text(value)


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _read_frame(sock: socket.socket) -> tuple[int, int, int, bytes]:
    head = _exactly(sock, 9)
    size = int.from_bytes(head[:3], "big")
    kind, flags, stream = struct.unpack(">BBI", head[3:])
    return kind, flags, stream, _exactly(sock, size)


def _exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = sock.recv(size - len(data))
        if not piece:
            raise ConnectionError("the server closed the connection")
        data += piece
    return data
