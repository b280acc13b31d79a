"""An HTTP proxy in front of a real S3 server, that does to a request what a bad line would."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

# Set by the connection itself, so not handed on.
_HOP_BY_HOP = {"connection", "transfer-encoding", "content-length", "keep-alive"}


@dataclass(frozen=True)
class Request:
    """One request.

    Args:
        number: from 1 on.
        method: GET, PUT ...
        path: with the query.
        headers: by their names in lower case.
        body: what was sent, where it was read; of large ones the beginning.
    """

    number: int
    method: str
    path: str
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


Trouble = Callable[[Request], str]
"""What to do to a request:

'' nothing; 'refuse' close without reading on; 'lose' do it and close without an answer; 'cut'
close in the middle of the answer; 'half' close in the middle of what is sent; 'flip' change a
byte of the answer; 'grow' answer with more than was asked for; 'hang' never answer; three
digits: answer with that status and do nothing, with a code after a space: '403 AccessDenied'.
"""


def none(request: Request) -> str:
    """Do nothing to any request."""
    del request
    return ""


@dataclass
class Proxy:
    """A running proxy.

    Args:
        url: where it listens.
        trouble: what it does; to be set by a test at any time.
        canned: returns the XML that it answers with instead of the server, or None.
        seen: all requests so far.
    """

    url: str
    trouble: Trouble = none
    canned: Callable[[Request], bytes | None] = lambda request: None
    seen: list[Request] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    released: threading.Event = field(default_factory=threading.Event)

    def note(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Request:
        """Count a request."""
        with self.lock:
            request = Request(len(self.seen) + 1, method, path, headers, body)
            self.seen.append(request)
        return request


@contextlib.contextmanager
def proxied(server: str, tls: ssl.SSLContext | None = None) -> Iterator[Proxy]:
    """Run a proxy in front of `server`, a URL, while the block runs.

    Args:
        server: what it asks.
        tls: speak TLS, with the certificate in it.
    """
    listening = _Server(("127.0.0.1", 0), _Handler)
    if tls is not None:
        listening.socket = tls.wrap_socket(listening.socket, server_side=True)
    host, port = listening.server_address[:2]
    listening.backend = urlsplit(server).netloc
    listening.proxy = Proxy(f"{'http' if tls is None else 'https'}://{host!s}:{port}")
    thread = threading.Thread(target=listening.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield listening.proxy
    finally:
        listening.proxy.released.set()
        listening.shutdown()
        thread.join()
        listening.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    backend: str
    proxy: Proxy

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a client that was killed is no error here."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def _handle(self) -> None:
        proxy = self.server.proxy
        length = int(self.headers.get("Content-Length", 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        beginning = self.rfile.read(min(length, 4096))
        request = proxy.note(self.command, self.path, headers, beginning)
        trouble = proxy.trouble(request)
        if trouble == "refuse":
            return self._reset()
        if trouble == "half":
            self.rfile.read(max(0, length // 2 - len(beginning)))
            return self._reset()
        body = beginning + self.rfile.read(length - len(beginning))
        if trouble == "hang":
            proxy.released.wait()
            return self._reset()
        if trouble[:3].isdigit():
            return self._refuse(trouble)
        canned = proxy.canned(request)
        if canned is not None:
            return self._answer(200, [("Content-Type", "application/xml")], canned)
        status, answered, content = self._ask(body)
        if trouble == "lose":
            return self._reset()
        if trouble == "flip" and content:
            middle = len(content) // 2
            content = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        if trouble == "grow":
            content += b"x" * (8 << 20)
        return self._answer(status, answered, content, cut=trouble == "cut")

    def _ask(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        with contextlib.closing(
            http.client.HTTPConnection(self.server.backend, timeout=30)
        ) as backend:
            backend.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in _HOP_BY_HOP:
                    backend.putheader(name, value)
            backend.putheader("Content-Length", str(len(body)))
            backend.endheaders(body)
            answer = backend.getresponse()
            return answer.status, answer.getheaders(), answer.read()

    def _answer(
        self, status: int, headers: list[tuple[str, str]], content: bytes, *, cut: bool = False
    ) -> None:
        self.send_response_only(status)
        length = str(len(content))
        if self.command == "HEAD":
            content = b""
        for name, value in headers:
            if name.lower() not in _HOP_BY_HOP:
                self.send_header(name, value)
            elif name.lower() == "content-length" and self.command == "HEAD":
                length = value
        self.send_header("Content-Length", length)
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if cut else content)
        if cut:
            self._reset()

    def _refuse(self, trouble: str) -> None:
        status, _, code = trouble.partition(" ")
        content = (
            f"<?xml version='1.0'?><Error><Code>{code or 'InternalError'}</Code>"
            "<Message>as the test wants it</Message></Error>"
        ).encode()
        self._answer(int(status), [("Content-Type", "application/xml")], content)

    def _reset(self) -> None:
        """Close as a broken line does: the other end gets an error, not an end."""
        self.wfile.flush()
        linger = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.connection.close()
        self.close_connection = True


# The library looks for a method of such a name for each of HTTP.
for _method in ("GET", "PUT", "POST", "DELETE", "HEAD"):
    setattr(_Handler, f"do_{_method}", _Handler._handle)
