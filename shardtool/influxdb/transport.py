"""HTTP's connections, with an end for an exchange as a whole.

httpx's timeouts are each for a single read or write (issue 1450 of encode/httpx is open), so a
server that sends a byte a second, or one 1xx after another, would be listened to for good. Here
each wait on the network takes what is left of the exchange and no more: httpx is given httpcore's
pool on a network backend of our own, both as they document it.
"""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, TypeAlias

import httpcore
import httpx

if TYPE_CHECKING:
    import ssl

_PIECE = 64 << 10

_Option: TypeAlias = (
    tuple[int, int, int] | tuple[int, int, bytes | bytearray] | tuple[int, int, None, int]
)


class Deadline:
    """When the exchange under way has to be over. There is one at a time."""

    def __init__(self) -> None:
        self._at = math.inf

    def begin(self, seconds: float) -> None:
        """Give an exchange that begins now so many seconds."""
        self._at = time.monotonic() + seconds

    def extend(self, seconds: float) -> None:
        """Give it more."""
        self._at += seconds

    @property
    def is_over(self) -> bool:
        """Whether its time has run out."""
        return time.monotonic() >= self._at

    def left(self, timeout: float | None, error: type[httpcore.TimeoutException]) -> float | None:
        """Return how long a wait may take that would be given `timeout` seconds.

        Raises:
            httpcore.TimeoutException: `error`, as no time is left.
        """
        left = self._at - time.monotonic()
        if left <= 0:
            raise error("timed out")
        if left == math.inf:
            return timeout
        return left if timeout is None else min(left, timeout)


class Transport(httpx.BaseTransport):
    """A pool of connections on which nothing waits beyond a deadline.

    What goes wrong is httpcore's exceptions, not httpx's. A host's addresses are looked up by the
    system, whose resolver has limits of its own.
    """

    def __init__(self, verify: ssl.SSLContext | None, deadline: Deadline) -> None:
        """Prepare a pool; `verify` is for https."""
        self._pool = httpcore.ConnectionPool(
            ssl_context=verify, max_connections=1, network_backend=_Backend(deadline)
        )

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request and return the answer, whose body is still to be read."""
        stream = request.stream
        if not isinstance(stream, httpx.SyncByteStream):
            raise TypeError("a request of an asynchronous client")
        answer = self._pool.handle_request(
            httpcore.Request(
                method=request.method,
                url=httpcore.URL(
                    scheme=request.url.raw_scheme,
                    host=request.url.raw_host,
                    port=request.url.port,
                    target=request.url.raw_path,
                ),
                headers=request.headers.raw,
                content=stream,
                extensions=request.extensions,
            )
        )
        return httpx.Response(answer.status, headers=answer.headers, stream=_Body(answer))

    def close(self) -> None:
        """Close the connections."""
        self._pool.close()


class _Body(httpx.SyncByteStream):
    """The body of an answer, as it comes."""

    def __init__(self, answer: httpcore.Response) -> None:
        self._answer = answer

    def __iter__(self) -> Iterator[bytes]:
        return self._answer.iter_stream()

    def close(self) -> None:
        self._answer.close()


class _Backend(httpcore.NetworkBackend):
    """Makes connections within the deadline."""

    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline
        self._system = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[_Option] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect to the first address of a host that takes it, within `timeout` for all."""
        ends = math.inf if timeout is None else time.monotonic() + timeout
        problem: Exception | None = None
        for address in _addresses(host, port):
            left = self._deadline.left(ends - time.monotonic(), httpcore.ConnectTimeout)
            if left is not None and left <= 0:
                break
            try:
                stream = self._system.connect_tcp(
                    address, port, left, local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                problem = error
            else:
                return _Stream(stream, self._deadline)
        raise problem or httpcore.ConnectTimeout("timed out")


def _addresses(host: str, port: int) -> list[str]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise httpcore.ConnectError(str(error)) from None
    return [str(place[0]) for *_, place in found]


class _Stream(httpcore.NetworkStream):
    """A connection whose waits end with the deadline."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: Deadline) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Return what has come."""
        return self._stream.read(max_bytes, self._deadline.left(timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send it all, a piece at a time: each may take as long as is left."""
        for at in range(0, len(buffer), _PIECE):
            left = self._deadline.left(timeout, httpcore.WriteTimeout)
            self._stream.write(buffer[at : at + _PIECE], left)

    def close(self) -> None:
        """Close the connection."""
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        """Go on with TLS; a handshake has a single timeout as a whole."""
        left = self._deadline.left(timeout, httpcore.ConnectTimeout)
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, left), self._deadline)

    def get_extra_info(self, info: str) -> object:
        """Return what is known of the connection."""
        return self._stream.get_extra_info(info)
