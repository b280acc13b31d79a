"""Servers that drip: an exchange ends as a whole, whatever keeps coming, and a slow one is read."""

from __future__ import annotations

import socket
import time

import pytest

from shardtool.errors import ShardtoolError
from shardtool.influxdb.api import Api
from shardtool.influxdb.wire import AnswerLostError
from tests.real.api_world import VERSION, Answer, Asked, Serve, listening, sound

OK = b"HTTP/1.1 200 OK\r\n" + VERSION
Drip = tuple[bytes, bytes]
"""What comes first, and what comes then every 20 ms for good."""
DRIPS: dict[str, Drip] = {
    "headers": (OK + b"X-A: ", b"a"),
    "1xx": (b"", b"HTTP/1.1 102 Processing\r\n\r\n"),
    "many-1xx": (b"", b"HTTP/1.1 102 Processing\r\n\r\n" * 4000),
    "body": (OK + b"Content-Length: 60000\r\n\r\n", b" "),
    "chunks": (OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1;" + b"a" * 500 + b"\r\n \r\n"),
    "trailers": (OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X-A: a\r\n"),
    "status": (b"HTTP/1.1 200 ", b"O"),
}


def drips(drip: Drip, only: str = "") -> Answer:
    """Answer so on paths that begin with `only`, and soundly on others."""

    def answer(connection: socket.socket, asked: Asked) -> None:
        if not asked.path.startswith(only):
            sound(connection, b"{}")
            return
        first, then = drip
        connection.sendall(first)
        while True:
            connection.sendall(then)
            time.sleep(0.02)

    return answer


@pytest.mark.slow
@pytest.mark.parametrize("drip", DRIPS.values(), ids=DRIPS)
@pytest.mark.parametrize("path", ["/ping", "/cluster/configuration", "/db"])
def test_what_drips_ends_with_the_time_of_a_whole_exchange(drip: Drip, path: str) -> None:
    with listening(drips(drip, path)) as url, Api(url, "root", "x", longest=0.5) as api:
        began = time.monotonic()
        ask = {"/ping": api.version, "/db": api.databases}.get(path, api.configuration)
        with pytest.raises(ShardtoolError, match=f"{path}: expected an answer, found: no whole"):
            ask()
        assert time.monotonic() - began < 3


@pytest.mark.parametrize("drip", [DRIPS["headers"], DRIPS["1xx"], DRIPS["body"]])
def test_a_change_whose_answer_drips_is_lost(drip: Drip) -> None:
    with (
        listening(drips(drip, "/cluster")) as url,
        Api(url, "root", "x", longest=0.5) as api,
        pytest.raises(AnswerLostError, match=r"no whole answer within 0\.5 seconds"),
    ):
        api.start_migration("0s")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "up"), [(n, n in ("body", "chunks", "trailers")) for n in DRIPS])
def test_whether_it_is_up_is_known_within_two_seconds_and_without_a_body(
    name: str, up: bool
) -> None:
    with listening(drips(DRIPS[name])) as url, Api(url, "root", "x") as api:
        began = time.monotonic()
        assert api.is_up() is up
        assert time.monotonic() - began < 5  # the machine may stand still for a while


@pytest.mark.slow
def test_a_server_that_reads_nothing_ends_it_too() -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:  # its backlog takes connections
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        with Api(url, "root", "x", longest=0.3) as api:
            with pytest.raises(ShardtoolError, match="no whole answer within"):
                api.version()
            assert not api.is_up()


def test_tls_that_is_never_spoken_ends_it_too() -> None:
    with listening(drips((b"", b"\x16"))) as url:
        began = time.monotonic()
        with (
            Api(url.replace("http", "https"), "root", "x", longest=0.3, first_wait=0.01) as api,
            pytest.raises(ShardtoolError, match="expected an answer"),
        ):
            api.version()
        assert time.monotonic() - began < 5


def test_a_long_answer_that_keeps_coming_earns_its_time() -> None:
    body = b'{"MetaStore":{}}' + b" " * (600 << 10)

    def slowly(connection: socket.socket, asked: Asked) -> None:
        if asked.path == "/ping":
            sound(connection, b"{}")
            return
        head = OK + b"Content-Length: %d\r\n\r\n" % len(body)
        connection.sendall(head)
        for at in range(0, len(body), 1 << 16):
            connection.sendall(body[at : at + (1 << 16)])
            time.sleep(0.1)

    with listening(slowly) as url, Api(url, "root", "x", longest=0.2) as api:
        assert api.configuration() == {"MetaStore": {}}


def test_the_time_of_one_exchange_is_not_taken_from_the_next(world: Serve) -> None:
    w = world(longest=1)
    for _ in range(6):
        w.api.databases()
        time.sleep(0.2)


@pytest.mark.parametrize("where", ["http://xn--a/", "http://\xff/", "http://[::1/"])
def test_a_redirect_to_a_place_that_is_none_is_an_error_of_one_line(where: str) -> None:
    def elsewhere(connection: socket.socket, asked: Asked) -> None:
        head = b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: " + where.encode("latin-1")
        connection.sendall(head + b"\r\n" + VERSION + b"\r\n")

    with (
        listening(elsewhere) as url,
        Api(url, "root", "x", first_wait=0.001) as api,
        pytest.raises(ShardtoolError) as error,
    ):
        api.databases()
    assert str(error.value).isprintable()
