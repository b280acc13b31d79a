"""The tests' own server answers as the real one did, and what it is told is on disk."""

from __future__ import annotations

import json
import shutil
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fixtures import Node, Row, raft
from fixtures.cluster import Catalogue
from fixtures.durations import PanicError, go_duration, space_duration
from fixtures.placing import compiled, takes
from fixtures.server import VERSION, Faults, Pace, serve
from tests.needs import lacking
from tests.real.exchanges import Answer, exchange, send, send_again

Capture = Callable[[str], Path]

AS_ROOT = "u=root&p=root"
SLOW = Pace(seconds_per_shard=0.02)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    """A node of 0.8 with a database and no spaces of its own."""
    return Node(tmp_path / "data", version="0.8", databases=["test"], spaces=())


@pytest.fixture
def url(node: Node) -> Iterator[str]:
    """The node, served."""
    with serve(node) as served:
        yield served


def post(url: str, path: str, document: object = None, query: str = "") -> Answer:
    """POST as root."""
    body = "" if document is None else json.dumps(document)
    return send(url, "POST", f"{path}?{AS_ROOT}{query}", body)


def spaces(url: str) -> list[Any]:
    """Return what GET /cluster/shard_spaces says."""
    found: list[Any] = json.loads(send(url, "GET", f"/cluster/shard_spaces?{AS_ROOT}").body)
    return found


def catalogue(node: Node | Path) -> Catalogue:
    """Return what the raft log on disk leads to."""
    path = node.path if isinstance(node, Node) else node
    return Catalogue.replay((path / "raft/log").read_bytes())


def without_order(answer: Answer) -> Answer:
    """Return an answer whose list may come in any order: Go prints maps so."""
    document = sorted(json.loads(answer.body), key=json.dumps)
    return Answer(answer.status, answer.headers, json.dumps(document))


# -- captured exchanges ---------------------------------------------------------------------------


def test_each_exchange_before_the_migration_gets_the_answer_of_0_8_3(capture: Capture) -> None:
    data = capture("original-07")
    names = [*range(4, 9), *range(11, 30), 34, 35, 36]
    with serve(data) as url:
        for one in (exchange("http-08", f"{number:02}") for number in (1, *names)):
            assert send_again(url, one) == one.answer, one.target
        listed = exchange("http-08", "30")
        assert without_order(send_again(url, listed)) == without_order(listed.answer)


def test_a_second_migration_is_403_while_one_runs_and_202_after_it(capture: Capture) -> None:
    data = capture("original-07")
    (data / "db/shard_db_v2").mkdir()
    started, again, after = (exchange("http-08", number) for number in ("37", "38", "39"))
    with serve(data, pace=SLOW) as url:
        assert send_again(url, started) == started.answer
        assert send_again(url, again) == again.answer
        deadline = time.monotonic() + 30
        while len(list(data.glob("db/shard_db/*/MIGRATED"))) < 27:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        time.sleep(0.1)
        assert send_again(url, after) == after.answer
    assert "Already migrated 00001. Skipping" in (data / "influxdb.log").read_text()


def test_bad_spaces_get_the_answers_of_0_8_3_and_an_unknown_one_kills_it(url: str) -> None:
    for number in range(1, 18):
        one = exchange("http-08-badspace", f"{number:02}")
        assert send_again(url, one) == one.answer, f"{number}: {one.target}"
    with pytest.raises(ConnectionRefusedError):
        send(url, "GET", "/ping")


@pytest.mark.parametrize("number", ["01", "11", "12", "13", "14"])
def test_0_7_is_answered_for_as_0_7_3_did(number: str, capture: Capture) -> None:
    one = exchange("http-07", number)
    with serve(capture("original-07"), version="0.7") as url:
        assert send_again(url, one) == one.answer


def test_0_7_knows_neither_the_migration_nor_its_configuration(capture: Capture) -> None:
    nothing = exchange("http-07", "14").answer
    with serve(capture("original-07"), version="0.7.3") as url:
        for method, path in (
            ("POST", "/cluster/migrate_data"),
            ("POST", "/cluster/shard_spaces/test"),
            ("GET", "/cluster/configuration"),
        ):
            assert send(url, method, f"{path}?{AS_ROOT}") == nothing


def test_0_8_4_has_spaces_and_no_migration(node: Node) -> None:
    with serve(node, version="0.8.4") as url:
        assert spaces(url) == []
        assert post(url, "/cluster/migrate_data").status == 404
        header = send(url, "GET", "/ping").headers["x-influxdb-version"]
    assert header == VERSION.replace("0.8.3", "0.8.4")


def test_other_paths_are_404_and_other_methods_405(url: str) -> None:
    assert send(url, "GET", f"/cluster/nosuch?{AS_ROOT}").status == 404
    assert send(url, "GET", f"/cluster/shard_spaces/test?{AS_ROOT}").status == 405
    answer = send(url, "PUT", f"/cluster/shard_spaces/test/x?{AS_ROOT}")
    assert (answer.status, answer.headers["allow"]) == (405, "DELETE, OPTIONS, POST")


# -- spaces ---------------------------------------------------------------------------------------


def test_spaces_accumulate_newest_first_and_are_in_raft(node: Node, url: str) -> None:
    for name, regex in (("all", "/.*/"), ("cpu", "/^cpu/i")):
        document = {"name": name, "regex": regex, "shardDuration": "7d", "retentionPolicy": "inf"}
        assert post(url, "/cluster/shard_spaces/test", document).status == 200
    assert [space["name"] for space in spaces(url)] == ["cpu", "all"]
    assert catalogue(node).spaces["test"] == spaces(url)
    entries = raft.read_log((node.raft / "log").read_bytes())
    assert [entry.index for entry in entries] == list(range(1, len(entries) + 1))
    assert [(entry.name, entry.term) for entry in entries[-2:]] == [("add_shard_space", 1)] * 2


def test_an_update_changes_a_space_where_it_stands(url: str) -> None:
    for name in ("a", "b"):
        post(url, "/cluster/shard_spaces/test", {"name": name, "regex": f"/^{name}/"})
    changed = {"regex": "/^aa/", "shardDuration": "30d"}
    assert post(url, "/cluster/shard_spaces/test/a", changed).status == 200
    assert [(one["name"], one["regex"]) for one in spaces(url)] == [("b", "/^b/"), ("a", "/^aa/")]
    refused = post(url, "/cluster/shard_spaces/test/a", {"regex": "/(/"})
    assert (refused.status, spaces(url)[1]["regex"]) == (500, "/^aa/")


def test_a_dropped_space_takes_its_shards_along(tmp_path: Path) -> None:
    node = Node(tmp_path / "data", version="0.8")
    node.write_new([Row("test", name, "v", 1_400_000_000_000_000, 1, 1) for name in ("cpu", "Mem")])
    with serve(node) as url:
        answer = send(url, "DELETE", f"/cluster/shard_spaces/test/short_term?{AS_ROOT}")
        assert answer.status == 200
        assert [one["name"] for one in spaces(url) if one["database"] == "test"] == ["long_term"]
    (left,) = catalogue(node).real_shards()
    assert left.space == "long_term"
    assert [path.name for path in node.shard_db_v2.iterdir()] == [f"{left.id:05}"]


def test_a_space_without_a_password_is_not_made(node: Node, url: str) -> None:
    answer = send(url, "POST", "/cluster/shard_spaces/test", '{"name":"x","regex":"/x/"}')
    assert answer.status == 401
    assert catalogue(node).spaces == {}


def test_every_member_of_a_cluster_gets_the_command(tmp_path: Path) -> None:
    nodes = [
        Node(
            tmp_path / str(n), version="0.8", databases=["test"], spaces=(), servers=2, server_id=n
        )
        for n in (1, 2)
    ]
    with serve(*nodes) as url:
        post(url, "/cluster/shard_spaces/test", {"name": "x", "regex": "/x/"})
    assert [len(catalogue(node).spaces["test"]) for node in nodes] == [1, 1]


# -- misbehaving ----------------------------------------------------------------------------------


def test_a_lost_answer_is_of_a_request_that_was_done(node: Node) -> None:
    faults = Faults(lost=1, method="POST")
    with serve(node, faults=faults) as url:
        assert send(url, "GET", "/ping").status == 200
        answer = post(url, "/cluster/shard_spaces/test", {"name": "x", "regex": "/x/"})
        assert answer.status == 0
        assert [one["name"] for one in spaces(url)] == ["x"]
    assert [request.method for request in faults.seen] == ["GET", "POST", "GET"]
    assert json.loads(faults.seen[1].body)["name"] == "x"


def test_a_dropped_request_is_not_done(node: Node) -> None:
    with serve(node, faults=Faults(drops=1, method="POST")) as url:
        answer = post(url, "/cluster/shard_spaces/test", {"name": "x", "regex": "/x/"})
        assert (answer.status, spaces(url)) == (0, [])


def test_a_server_speaks_https_where_it_is_given_a_certificate(node: Node, tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        lacking("openssl")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    made = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost"
    made += f" -addext subjectAltName=IP:127.0.0.1 -keyout {key} -out {certificate}"
    subprocess.run(made.split(), check=True, capture_output=True)
    theirs = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    theirs.load_cert_chain(certificate, key)
    ours = ssl.create_default_context(cafile=str(certificate))
    with serve(node, tls=theirs) as url:
        assert url.startswith("https://")
        with urllib.request.urlopen(f"{url}/ping", context=ours) as answer:
            assert answer.headers["X-Influxdb-Version"] == VERSION


# -- what it reads --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pause", "status"),
    [
        *((text, 202) for text in ("0s", "100us", "300ms", "1s", "2m", "0", "1h2m3.5s", "")),
        *((text, 400) for text in ("100u", "soon", "1", ".s", "1s2")),
    ],
)
def test_a_pause_is_what_go_parses(pause: str, status: int, url: str) -> None:
    assert post(url, "/cluster/migrate_data", query=f"&pause={pause}").status == status


def test_durations_are_read_as_each_of_both_parsers_reads_them() -> None:
    assert space_duration("7 parsecs") == space_duration("7s") == 7_000_000
    assert space_duration("168h") == space_duration("1w") == space_duration(" 7d")
    assert (space_duration("5ms"), space_duration("5u"), space_duration("10x")) == (5000, 5, 10)
    assert (go_duration("300ms"), go_duration("2m"), go_duration("-1s")) == (0.3, 120, -1)
    with pytest.raises(PanicError):
        space_duration("7")


def test_regexes_are_re2s_with_or_without_slashes() -> None:
    assert takes("/^CPU/i", "cpu_load")
    assert not takes("/^CPU/", "cpu_load")
    assert takes("u_l", "cpu_load")
    assert takes("/\\pL/", "\u00fc")
    for regex in ("/", "/i"):
        with pytest.raises(PanicError):
            compiled(regex)
    for regex in ("/(?=x)/", "/(a)\\1/"):  # Python's, not Go's
        with pytest.raises(ValueError, match="error parsing regexp: invalid"):
            compiled(regex)
