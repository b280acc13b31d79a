"""What the client changes on a server over a real socket: spaces and the migration; and lists."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fixtures import Node
from fixtures.answers import Faults
from fixtures.server import Pace, serve
from shardtool.errors import ShardtoolError
from shardtool.influxdb.answers import version_in
from shardtool.influxdb.api import Api
from shardtool.influxdb.model import ClusterServer, Space
from shardtool.influxdb.wire import AnswerLostError
from tests.needs import CAPTURES, lacking
from tests.real.api_world import PASSWORD, Leaks, Serve, row

CPU = Space("cpu", "test", "/^cpu/", "inf", "30d", 1, 1)


def changes(faults: Faults) -> list[tuple[str, str]]:
    """Return what a server was asked to change."""
    return [(one.method, one.target) for one in faults.seen if one.method != "GET"]


def exchange(name: str) -> str:
    """Return a captured exchange with a real server."""
    path = CAPTURES / name
    if not path.is_file():
        lacking(str(path))
    return path.read_text()


# -- versions --


@pytest.mark.parametrize(
    ("header", "version"),
    [
        ("InfluxDB v0.8.3 (git: fbf9a47405) (leveldb: 1.23)", "0.8.3"),
        ("InfluxDB v0.7.3 (git: 216a3eb21d) (leveldb: 1.23)", "0.7.3"),
        ("InfluxDB v0.8.0-rc.4", "0.8.0-rc.4"),
        ("0.9.6.1", "0.9.6.1"),
        ("v2.7.1", "2.7.1"),
        *(("", None), ("nginx", None), ("InfluxDB v", None), ("InfluxDB v" + "9" * 41, None)),
        *(("0.9\x1b[2J", None), ("InfluxDB v0.8.3\x1b[2J", None), ("InfluxDB v\u0660.8", None)),
    ],
)
def test_a_version_is_what_the_header_names(header: str, version: str | None) -> None:
    assert version_in(header) == version


@pytest.mark.parametrize("version", ["0.7.3", "0.8.3", "0.8.9"])
def test_any_influxdb_tells_its_version(version: str, tmp_path: Path) -> None:
    node = Node(tmp_path / "data")
    with serve(node, version=version) as url, Api(url, "root", "root") as api:
        assert api.server_version() == version
        assert api.is_up()


def test_only_an_08_has_a_version_here(world: Serve) -> None:
    w = world()
    w.faults.version = "0.9.6.1"
    assert w.api.server_version() == "0.9.6.1"
    with pytest.raises(
        ShardtoolError, match=r"expected an InfluxDB 0\.8, found InfluxDB 0\.9\.6\.1"
    ):
        w.api.version()
    with pytest.raises(ShardtoolError, match=r"found InfluxDB 0\.9\.6\.1"):
        w.api.create_space(CPU)
    assert changes(w.faults) == []


def test_a_web_server_that_is_no_influxdb_is_told_and_gets_no_password(world: Serve) -> None:
    w = world()
    w.faults.version = ""
    for ask in (w.api.server_version, w.api.databases, w.api.servers, w.api.spaces):
        with pytest.raises(ShardtoolError, match="found no InfluxDB"):
            ask()
    assert not w.api.is_up()
    assert all("Authorization" not in request.headers for request in w.faults.seen)


def test_a_server_that_is_gone_or_fails_or_hangs_is_not_up(world: Serve) -> None:
    w = world()
    assert w.api.is_up()
    assert "Authorization" not in w.faults.seen[0].headers
    w.faults.drops = 1
    assert not w.api.is_up()
    w.faults.hang = 30
    began = time.monotonic()
    assert not w.api.is_up()
    assert time.monotonic() - began < 10
    with Api("http://127.0.0.1:1", "root", "x") as nobody:
        assert not nobody.is_up()


# -- lists --


def test_databases_and_servers_are_listed_by_08_and_07(tmp_path: Path) -> None:
    node = Node(tmp_path / "data", version="0.8", databases=["test", "with space"])
    with serve(node) as url, Api(url, "root", "root") as api:
        assert api.databases() == {"test", "with space"}
        (server,) = api.servers()
    assert server == ClusterServer(1, server.raft_name, True, "Potential", server.address)
    assert server.raft_name
    with serve(node, version="0.7") as url, Api(url, "root", "root") as api:
        assert api.databases() == {"test", "with space"}
        assert api.servers() == (ClusterServer(1, "", False, "", server.address),)


def test_a_cluster_lists_its_servers_by_their_numbers(tmp_path: Path) -> None:
    nodes = [
        Node(tmp_path / str(number), version="0.8", databases=["test"], servers=2, server_id=number)
        for number in (1, 2)
    ]
    with serve(*nodes) as url, Api(url, "root", "root") as api:
        assert [(one.id, one.is_leader) for one in api.servers()] == [(1, True), (2, False)]


def test_spaces_come_per_database_the_newest_first(capture: Callable[[str], Path]) -> None:
    with serve(capture("migrated-08")) as url, Api(url, "root", "root") as api:
        found = api.spaces()
    assert {name: [space.name for space in several] for name, several in found.items()} == {
        "test": ["long_term", "short_term"],
        "metrics": ["long_term", "short_term"],
    }
    assert found["test"][0] == Space("long_term", "test", "/^[A-Z].*/", "inf", "30d", 1, 1)


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{}", b"nonsense", b"[1]", b"[null]", b"[[]]", b'[{"name":1}]', b'[{"id":-1}]'),
        *(b"[{}]", b"[{}", b"\xff", b'[{"database":[]}]', b"<html>", b"[", b"]"),
    ],
)
@pytest.mark.parametrize("path", ["/cluster/shard_spaces", "/cluster/servers", "/db"])
def test_nonsense_is_an_error_and_never_an_empty_list(body: bytes, path: str, world: Serve) -> None:
    w = world()
    w.faults.only, w.faults.body = path, body
    ask = {"/db": w.api.databases, "/cluster/servers": w.api.servers}.get(path, w.api.spaces)
    with pytest.raises(ShardtoolError, match="expected the JSON") as error:
        ask()
    assert "\n" not in str(error.value)


def test_a_list_of_a_gigabyte_is_not_read(world: Serve) -> None:
    w = world()
    w.faults.only, w.faults.huge = "/cluster", 1 << 30
    with pytest.raises(ShardtoolError, match="more than 16777216 bytes"):
        w.api.spaces()


def test_a_07_has_no_spaces_and_says_so(tmp_path: Path) -> None:
    node = Node(tmp_path / "data", databases=["test"])
    with serve(node, version="0.7") as url, Api(url, "root", "root") as api:
        for ask in (api.spaces, lambda: api.create_space(CPU), lambda: api.start_migration("0s")):
            with pytest.raises(ShardtoolError, match=r"an InfluxDB 0\.8, found InfluxDB 0\.7\.3"):
                ask()


# -- spaces --


def test_a_space_is_made_changed_and_removed(world: Serve) -> None:
    w = world()
    w.api.create_space(CPU)
    assert w.api.spaces()["test"][0] == CPU
    changed = replace(CPU, retention="365d")
    w.api.update_space(changed)
    assert w.api.spaces()["test"][0] == changed
    w.api.remove_space("test", "cpu")
    assert [space.name for space in w.api.spaces()["test"]] == ["long_term", "short_term"]
    assert changes(w.faults) == [
        ("POST", "/cluster/shard_spaces/test"),
        ("POST", "/cluster/shard_spaces/test/cpu"),
        ("DELETE", "/cluster/shard_spaces/test/cpu"),
    ]


def test_the_body_is_the_one_that_a_real_server_took(world: Serve) -> None:
    text = exchange("http-08/17-space-test-long_term.txt")
    sent = next(line for line in text.splitlines() if line.startswith('{"name"'))
    w = world(database="other")
    w.api.create_space(Space("mine", "other", "/^[A-Z].*/", "inf", "30d", 1, 1))
    (request,) = (one for one in w.faults.seen if one.method == "POST")
    assert json.loads(request.body) == {**json.loads(sent), "name": "mine"}
    assert list(json.loads(request.body)) == list(json.loads(sent))
    assert request.headers["Content-Type"] == "application/json"


@pytest.mark.parametrize("name", ["with space", "\u00fcnic\u00f6de", "..", "a?b#c", "a+b", "%2F"])
def test_a_space_of_any_sound_name_is_made_changed_and_removed(name: str, world: Serve) -> None:
    w = world(database=name)
    space = replace(CPU, name=name, database=name, regex='/^\u00fc"\\\\/')
    w.api.create_space(space)
    w.api.update_space(replace(space, split=2))
    assert w.api.spaces()[name][0] == replace(space, split=2)
    w.api.remove_space(name, name)
    assert all(one.name != name for one in w.api.spaces()[name])


@pytest.mark.parametrize(
    "change",
    [
        {"shard_duration": "7"},
        {"shard_duration": "7 parsecs"},
        {"regex": "/"},
        {"regex": "/([/"},
        {"name": ""},
        {"name": "a/b"},
        {"name": ".\x00"},
        {"database": "a/b"},
        {"database": ""},
        {"retention": "forever"},
        {"split": 0},
        {"regex": "/\udcff/"},
        {"name": "\udcff"},
    ],
)
def test_what_a_server_must_not_be_sent_is_not_sent(change: dict[str, str], world: Serve) -> None:
    w = world()
    space = Space(**{**CPU.__dict__, **change})
    for send in (w.api.create_space, w.api.update_space):
        with pytest.raises(ShardtoolError, match="must not be sent"):
            send(space)
    assert changes(w.faults) == []


def test_an_unknown_space_is_not_removed_for_that_would_kill_the_server(world: Serve) -> None:
    w = world()
    for database, name in (("test", "nosuch"), ("nope", "short_term"), ("test", "")):
        with pytest.raises(ShardtoolError, match="nothing was sent"):
            w.api.remove_space(database, name)
    assert changes(w.faults) == []
    assert w.api.is_up()


def test_what_the_server_says_to_a_space_that_it_refuses_is_told(world: Serve) -> None:
    w = world()
    w.api.create_space(CPU)
    with pytest.raises(ShardtoolError, match="status 400 'Shard space cpu exists for db test'"):
        w.api.create_space(CPU)
    with pytest.raises(ShardtoolError, match="Database 'nope' doesn't exist"):
        w.api.create_space(replace(CPU, database="nope"))
    with pytest.raises(ShardtoolError, match="status 406 'Can't update a shard space that"):
        w.api.update_space(replace(CPU, name="nosuch"))


@pytest.mark.parametrize("fault", ["drops", "errors", "cuts", "lost"])
def test_a_change_is_sent_once_whatever_becomes_of_it(fault: str, world: Serve) -> None:
    w = world()
    w.faults.method = "POST"
    setattr(w.faults, fault, 1)
    if fault == "cuts":  # an empty body can't be cut
        w.api.create_space(CPU)
    else:
        expected = ShardtoolError if fault == "errors" else AnswerLostError
        with pytest.raises(expected) as error:
            w.api.create_space(CPU)
        assert isinstance(error.value, AnswerLostError) is (fault != "errors")
    assert changes(w.faults) == [("POST", "/cluster/shard_spaces/test")]


def test_an_answer_that_was_lost_is_told_as_such_and_can_be_read_back(world: Serve) -> None:
    w = world()
    w.faults.method, w.faults.lost = "POST", 1
    with pytest.raises(AnswerLostError, match=r"sent a POST .* it may have been done or not"):
        w.api.create_space(CPU)
    assert w.api.spaces()["test"][0] == CPU


def test_a_server_that_hangs_on_a_change_is_given_up_once(world: Serve) -> None:
    w = world(read_timeout=0.2)
    w.faults.method, w.faults.hang = "POST", 30
    with pytest.raises(AnswerLostError, match=r"nothing for 0\.2 seconds"):
        w.api.create_space(CPU)
    assert len(changes(w.faults)) == 1


def test_a_server_that_is_not_there_was_sent_nothing(world: Serve, tmp_path: Path) -> None:
    other = Node(tmp_path / "other", version="0.8", databases=["test"])
    with serve(other) as url, Api(url, "root", "root", first_wait=0.001) as api:
        assert api.version() == "0.8.3"
        api.close()
    with Api(url, "root", "root", first_wait=0.001) as api:
        api._version = "0.8.3"
        with pytest.raises(ShardtoolError, match="check that the server runs") as error:
            api.create_space(CPU)
    assert not isinstance(error.value, AnswerLostError)


def test_a_change_is_not_redirected(world: Serve) -> None:
    w = world()
    elsewhere = Faults()
    with serve(w.node, password=PASSWORD, faults=elsewhere) as other:
        w.faults.method, w.faults.location = "POST", other + "/cluster/shard_spaces/test"
        with pytest.raises(ShardtoolError, match="status 302"):
            w.api.create_space(CPU)
    assert elsewhere.seen == []


def test_a_wrong_password_is_refused_by_the_name_of_the_user(world: Serve) -> None:
    w = world()
    with Api(w.url, "paul", "wrong") as api:
        for ask in (api.spaces, lambda: api.create_space(CPU), lambda: api.start_migration("0s")):
            with pytest.raises(ShardtoolError, match="refused the user 'paul'"):
                ask()


# -- the migration --


@pytest.mark.parametrize("pause", ["0s", "100us", "300ms", "1s", "2m"])
def test_a_migration_starts_and_a_second_one_is_told(pause: str, world: Serve) -> None:
    w = world()
    assert w.api.start_migration(pause)
    assert changes(w.faults) == [("POST", f"/cluster/migrate_data?pause={pause}")]


def test_a_second_migration_is_told(tmp_path: Path) -> None:
    node = Node(tmp_path / "data", version="0.8")
    node.old_shard(1, points=10)
    pace = Pace(seconds_per_shard=30)
    with serve(node, pace=pace) as url, Api(url, "root", "root", first_wait=0.001) as api:
        assert api.start_migration("0s")
        assert not api.start_migration("0s")


@pytest.mark.parametrize("pause", ["soon", "100u", "", "a&b=c", "1 s", "-"])
def test_a_pause_that_the_server_cannot_read_is_told(pause: str, world: Serve) -> None:
    w = world()
    if not pause:  # the server takes its default then
        assert w.api.start_migration(pause)
        return
    with pytest.raises(ShardtoolError, match="to be a pause, found status 400"):
        w.api.start_migration(pause)


def test_a_version_that_cannot_migrate_is_told(tmp_path: Path) -> None:
    node = Node(tmp_path / "data", version="0.8", databases=["test"])
    with (
        serve(node, version="0.8.8") as url,
        Api(url, "root", "root") as api,
        pytest.raises(ShardtoolError, match=r"only 0\.8\.0 to 0\.8\.3 migrate"),
    ):
        api.start_migration("0s")


def test_a_start_whose_answer_was_lost_is_repeated_and_was_ours(tmp_path: Path) -> None:
    node, faults = Node(tmp_path / "data", version="0.8"), Faults()
    node.old_shard(1, points=10)
    with (
        serve(node, faults=faults, pace=Pace(seconds_per_shard=30)) as url,
        Api(url, "root", "root", first_wait=0.001) as api,
    ):
        faults.method, faults.lost = "POST", 1
        assert api.start_migration("0s")
    assert len(changes(faults)) == 2


@pytest.mark.parametrize(
    ("fault", "found"),
    [
        ({"hang": 30.0}, "nothing for 0.3 seconds"),
        ({"drops": 9}, "disconnected"),
        ({"lost": 1, "status": 404, "text": "gone"}, "status 404 'gone'"),
        ({"status": 502, "text": "a proxy"}, "status 502 'a proxy'"),
    ],
)
def test_a_start_without_an_answer_of_the_server_may_have_been_done(
    fault: dict[str, object], found: str, world: Serve
) -> None:
    w = world(read_timeout=0.3)
    w.api.version()
    for name, value in {"method": "POST", **fault}.items():
        setattr(w.faults, name, value)
    with pytest.raises(AnswerLostError, match="it may have been done or not") as error:
        w.api.start_migration("0s")
    assert found in str(error.value)


def test_a_start_that_no_server_got_was_not_done() -> None:
    with Api("http://127.0.0.1:1", "root", "root", first_wait=0.001) as api:
        api._version = "0.8.3"
        with pytest.raises(ShardtoolError, match="check that the server runs") as error:
            api.start_migration("0s")
    assert not isinstance(error.value, AnswerLostError)


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ({"status": 403, "text": "not you"}, "refused the user 'root' .status 403"),
        ({"status": 401, "text": "{}"}, "refused the user 'root' .status 401"),
        ({"status": 500, "text": "boom"}, "status 500 'boom': it may have been done or not"),
        ({"status": 200, "text": ""}, "expected the migration to start .202., found status 200"),
        ({"drops": 9}, "expected an answer"),
    ],
)
def test_what_is_no_start_is_an_error(
    fault: dict[str, object], expected: str, world: Serve
) -> None:
    w = world()
    for name, value in {"only": "/cluster/migrate_data", **fault}.items():
        setattr(w.faults, name, value)
    with pytest.raises(ShardtoolError, match=expected):
        w.api.start_migration("0s")


# -- the password --


@pytest.mark.parametrize(
    "fault",
    [
        {"unauthorized": True},
        {"errors": 9, "text": f"you sent {PASSWORD}"},
        {"drops": 9},
        {"lost": 9},
        {"hang": 5.0},
        {"status": 400, "text": f"bad: {PASSWORD}"},
        {"location": f"http://x/{PASSWORD}"},
    ],
)
def test_the_password_is_in_no_message_no_log_and_no_error_that_led_to_one(
    fault: dict[str, object], world: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    w = world(row(), read_timeout=0.2)
    for name, value in {"method": "POST", **fault}.items():
        setattr(w.faults, name, value)
    for ask in (lambda: w.api.create_space(CPU), lambda: w.api.start_migration("0s")):
        with pytest.raises(ShardtoolError) as error:
            ask()
        Leaks().check_error(error.value)
    logged = (record for record in caplog.records if "receive_" not in record.getMessage())
    Leaks().check("".join(record.getMessage() for record in logged))
