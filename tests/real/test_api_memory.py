"""What answers may be made of: half characters, and documents that would fill the memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from shardtool.errors import ShardtoolError
from shardtool.influxdb import answers
from shardtool.influxdb.answers import BrokenAnswerError, configuration_in, documents, spaces_in
from shardtool.influxdb.errors import CatalogueError
from tests.conftest import REPOSITORY
from tests.real.api_world import PASSWORD, Leaks, Serve, listening, row, sound

MIB = 1 << 20


# -- half characters --


@pytest.mark.parametrize(
    "text",
    [
        r"\ud800",
        r"\uDFFF",
        r"\ud83d\\ude00",
        r"\ud83d\ud83d\ude00",
        r"\ud83d\ude00\ude00",
        r"\\\ud800",
        r"a\ud83dA",
    ],
)
def test_half_a_character_is_refused(text: str) -> None:
    with pytest.raises(BrokenAnswerError, match="half a surrogate pair"):
        list(documents(f'["{text}"]'.encode()))


@pytest.mark.parametrize(
    "text",
    [r"\ud83d\ude00", r"\\ud800", r"C:\\udata\\uD83d", r"\\\\udc00", r"\u00d8", "\U0001f600"],
)
def test_whole_characters_and_backslashes_are_read(text: str) -> None:
    (found,) = documents(f'["{text}"]'.encode())
    assert found == json.loads(f'"{text}"')
    found.encode()


@pytest.mark.parametrize(
    "path", ["/cluster/shard_spaces", "/cluster/configuration", "/cluster/servers", "/db"]
)
def test_a_server_that_sends_half_a_character_gets_one_clear_line(path: str, world: Serve) -> None:
    w = world(row())
    w.faults.only = path
    w.faults.body = b'[{"database":"d","regex":"/\\ud800/","name":"\\udfff","id":1}]'
    if path == "/cluster/configuration":
        w.faults.body = b'{"MetaStore":{"StringsToIds":{"d":{"\\ud800":{"v":1}}}}}'
    ask = {
        "/cluster/shard_spaces": w.api.spaces,
        "/cluster/servers": w.api.servers,
        "/db": w.api.databases,
    }.get(path, w.api.catalogue)
    with pytest.raises(ShardtoolError, match=f"{w.url}{path}: .*half a surrogate pair") as error:
        ask()
    assert "\n" not in str(error.value)


# -- documents that would fill the memory --


def many(piece: str, head: str = '{"MetaStore":[', tail: str = "0]}") -> bytes:
    """Return a document of some 60 MiB."""
    return (head + piece * (60 * MIB // len(piece)) + tail).encode()


@pytest.mark.slow
@pytest.mark.parametrize("piece", ["{},", "[],", '{"":0},', '"ab",', "1e9,", "[[[0]]],"])
def test_what_would_take_too_much_memory_is_not_taken_apart(piece: str) -> None:
    with pytest.raises(BrokenAnswerError, match="more than 512 MiB of memory"):
        configuration_in(many(piece))


def test_an_array_is_no_configuration_and_an_object_no_list() -> None:
    with pytest.raises(BrokenAnswerError, match=r"'\[\{\},"):
        configuration_in(b"[{},{}]")
    with pytest.raises(BrokenAnswerError, match=r"'\{\}'"):
        spaces_in(b"{}")


def test_a_configuration_of_many_columns_is_read() -> None:
    series = {f"servers.web{n:06d}.requests.per_second": {"value": n} for n in range(300_000)}
    body = json.dumps({"MetaStore": {"StringsToIds": {"metrics": series}}}).encode()
    assert len(body) > answers._HARMLESS_BYTES
    assert configuration_in(body)


@pytest.mark.slow
@pytest.mark.parametrize("piece", ["{},", '{"":0},'])
@pytest.mark.parametrize("head", ["[", '{"MetaStore":['])
def test_the_memory_that_a_hostile_configuration_takes_is_bounded(piece: str, head: str) -> None:
    body = many(piece, head, "{}]" if head == "[" else "0]}")

    script = (
        "import sys; from shardtool.influxdb.api import Api\n"
        "from shardtool.errors import ShardtoolError\n"
        "try: Api(sys.argv[1], 'root', 'x').configuration()\n"
        "except ShardtoolError as error: print(error, file=sys.stderr)\n"
        "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"
    )
    with listening(lambda connection, _: sound(connection, body)) as url:
        done = subprocess.run(
            [sys.executable, "-c", script, url],
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
    assert "expected the JSON" in done.stderr
    assert int(done.stdout) << 10 < 400 * MIB


# -- what is no configuration --


@pytest.mark.parametrize(
    "body", [b'{"x":1}', b'{"MetaStore":5}', b'{"MetaStore":{"StringsToIds":[]}}']
)
def test_what_is_no_configuration_names_the_server(body: bytes, world: Serve) -> None:
    w = world()
    w.faults.only, w.faults.body = "/cluster", body
    with pytest.raises(ShardtoolError, match=f"^{w.url}/cluster/configuration: "):
        w.api.catalogue()


def test_what_a_configuration_says_of_the_password_is_not_shown(world: Serve) -> None:
    w = world()
    w.faults.only = "/cluster"
    w.faults.body = json.dumps({"MetaStore": {"StringsToIds": {PASSWORD: PASSWORD}}}).encode()
    with pytest.raises(CatalogueError) as error:
        w.api.catalogue()
    Leaks().check_error(error.value)


def test_a_catalogue_is_what_the_configuration_says(world: Serve) -> None:
    w = world(row())
    assert w.api.catalogue().ids["test"]["cpu"]
