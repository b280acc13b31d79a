"""A node with rows, served over a real socket, and who asks it; and a look for leaked passwords."""

from __future__ import annotations

import base64
import contextlib
import socket
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from fixtures import Node, Row
from fixtures.encode import Value
from fixtures.server import Faults
from shardtool.influxdb.answers import Point
from shardtool.influxdb.api import Api

PASSWORD = "corr\u00e9ct-h0rse"
EVER = (-(2**63), 2**63)


@dataclass
class World:
    """A node with rows, served; `api` asks it."""

    api: Api
    faults: Faults
    url: str
    node: Node

    def found(self, series: str, column: str, database: str = "test") -> list[Point]:
        """Return all points of a column, by time and sequence."""
        return sorted(self.api.points(database, series, column, *EVER))


Serve = Callable[..., World]


def row(
    value: Value = 1,
    *,
    series: str = "cpu",
    column: str = "v",
    time_us: int = 1_400_000_000_000_000,
    sequence: int = 10001,
    database: str = "test",
) -> Row:
    """Return a row of which a test says only what it is about."""
    return Row(database, series, column, time_us, sequence, value)


def many(count: int) -> list[Row]:
    """Return rows one second apart."""
    return [row(n, time_us=1_400_000_000_000_000 + n * 1_000_000) for n in range(count)]


class Asked(NamedTuple):
    """A request without its body: the path, and all of its head."""

    path: str
    head: bytes


Answer = Callable[[socket.socket, Asked], None]
"""Says something on a connection to what was asked; returns when it is done with it."""
VERSION = b"X-Influxdb-Version: InfluxDB v0.8.3 (git: x) (leveldb: 1)\r\n"


@contextlib.contextmanager
def listening(answer: Answer) -> Iterator[str]:
    """Serve bytes of one's own while the block runs, and yield the URL."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_accept, args=(server, answer), daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)


def sound(connection: socket.socket, body: bytes, status: str = "200 OK") -> None:
    """Send a whole answer."""
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n".encode()
    connection.sendall(head + VERSION + b"\r\n" + body)


def _accept(server: socket.socket, answer: Answer) -> None:
    with contextlib.suppress(OSError):
        while True:
            connection, _ = server.accept()
            threading.Thread(target=_serve, args=(connection, answer), daemon=True).start()


def _serve(connection: socket.socket, answer: Answer) -> None:
    with contextlib.suppress(OSError), connection:
        while True:
            request = b""
            while b"\r\n\r\n" not in request:
                received = connection.recv(1 << 16)
                if not received:
                    return
                request += received
            answer(connection, Asked(request.split()[1].decode(), request))


@dataclass
class Leaks:
    """Looks for the password in whatever comes out."""

    spellings: tuple[str, ...] = field(
        default=(PASSWORD, "h0rse", base64.b64encode(f"root:{PASSWORD}".encode()).decode())
    )

    def check(self, text: str) -> None:
        assert not any(spelling in text for spelling in self.spellings), text

    def check_error(self, error: BaseException) -> None:
        """Check an error, all that it stands for, and the traceback as Python prints it."""
        self.check("".join(traceback.format_exception(error)))
        seen: list[BaseException] = []
        waiting: list[BaseException | None] = [error]
        while waiting:
            one = waiting.pop()
            if one is not None and one not in seen:
                seen.append(one)
                self.check(f"{one!r} {one} {one.args!r} {getattr(one, '__notes__', '')}")
                request = getattr(one, "_request", None)
                assert request is None, "an error of httpx holds the request, header and all"
                waiting += [one.__cause__, one.__context__]
