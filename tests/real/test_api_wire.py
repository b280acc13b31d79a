"""The API of a live cluster, over a real socket: what goes wrong on the way, who asks, no leaks."""

from __future__ import annotations

import base64
import json
import logging
import os
import shutil
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fixtures import Node
from fixtures.server import Faults, serve
from shardtool.errors import ShardtoolError
from shardtool.influxdb import api as api_module
from shardtool.influxdb.api import Api
from tests.needs import lacking
from tests.real.api_world import PASSWORD, Leaks, Serve, many, row

# -- what goes wrong on the way --


@pytest.mark.parametrize("fault", ["errors", "drops", "cuts"])
def test_what_fails_three_times_is_tried_a_fourth(fault: str, world: Serve) -> None:
    w = world(*many(300))
    setattr(w.faults, fault, 3)
    assert len(w.found("cpu", "v")) == 300


@pytest.mark.parametrize("fault", ["errors", "drops", "cuts"])
def test_what_fails_for_good_is_one_line_that_says_what(fault: str, world: Serve) -> None:
    w = world(*many(300))
    w.faults.only = "/db"
    setattr(w.faults, fault, 4)
    with pytest.raises(ShardtoolError) as error:
        w.found("cpu", "v")
    message = str(error.value)
    assert w.url in message
    assert "expected an answer, found: " in message
    assert "\n" not in message
    assert getattr(w.faults, fault) == 0


def test_nothing_comes_twice_where_an_answer_was_cut_and_asked_for_again(world: Serve) -> None:
    w = world(*many(300))
    w.faults.only, w.faults.cuts = "/db", 2
    assert [point.value for point in w.found("cpu", "v")] == list(range(300))


def test_a_server_that_hangs_is_given_up_once(world: Serve) -> None:
    w = world(row(), read_timeout=0.2)
    w.api.version()
    w.faults.hang = 30
    began = time.monotonic()
    with pytest.raises(ShardtoolError, match=r"nothing for 0\.2 seconds"):
        w.found("cpu", "v")
    assert time.monotonic() - began < 2


def test_a_server_that_is_not_there_is_named(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with (
            Api(url, "root", PASSWORD, first_wait=0.001) as api,
            pytest.raises(ShardtoolError, match=f"{url}/ping: expected an answer, found: "),
        ):
            api.configuration()


def test_a_host_without_an_address_is_an_error_of_one_line() -> None:
    with (
        Api("http://no-such-host.invalid:8086", "root", PASSWORD, first_wait=0.001) as api,
        pytest.raises(ShardtoolError, match="no-such-host") as error,
    ):
        api.configuration()
    assert "\n" not in str(error.value)


def test_waits_between_attempts_grow_and_end(monkeypatch: pytest.MonkeyPatch, world: Serve) -> None:
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    w = world(row(), first_wait=2.0)
    w.faults.errors = 3
    w.api.version()
    assert waits == [2.0, 4.0, 5.0]


@pytest.mark.parametrize(
    ("version", "found"),
    [
        ("InfluxDB v0.7.3 (git: x)", "InfluxDB 0.7.3"),
        ("InfluxDB v0.9.0", "0.9.0"),
        ("", "no InfluxDB"),
    ],
)
def test_another_version_and_another_server_are_refused_before_the_password_is_sent(
    version: str, found: str, world: Serve
) -> None:
    w = world(row())
    w.faults.version = version
    with pytest.raises(ShardtoolError, match=f"expected an InfluxDB 0.8, found .*{found}"):
        w.api.configuration()
    assert all("Authorization" not in request.headers for request in w.faults.seen)


def test_https_to_a_server_that_speaks_http_is_an_error_of_one_line(world: Serve) -> None:
    url = world(row()).url.replace("http:", "https:")
    with (
        Api(url, "root", PASSWORD, first_wait=0.001) as api,
        pytest.raises(ShardtoolError, match="SSL") as error,
    ):
        api.version()
    assert "\n" not in str(error.value)


def test_https_is_spoken_with_a_server_that_the_system_trusts_and_with_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which("openssl") is None:
        lacking("openssl")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    made = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=elsewhere"
    made += f" -addext subjectAltName=IP:127.0.0.1 -keyout {key} -out {certificate}"
    subprocess.run(made.split(), check=True, capture_output=True)
    theirs = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    theirs.load_cert_chain(certificate, key)
    node = Node(tmp_path / "data", version="0.8", databases=["test"])
    with serve(node, tls=theirs) as url:
        with (
            Api(url, "root", "root", first_wait=0.001) as api,
            pytest.raises(ShardtoolError, match="CERTIFICATE_VERIFY_FAILED"),
        ):
            api.version()
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        with Api(url, "root", "root") as api:
            assert api.databases() == {"test"}
            assert api.is_up()
        name = url.replace("127.0.0.1", "localhost")
        with (
            Api(name, "root", "root", first_wait=0.001) as api,
            pytest.raises(ShardtoolError, match="CERTIFICATE_VERIFY_FAILED"),
        ):
            api.version()


def test_a_redirect_to_another_host_is_not_followed(world: Serve) -> None:
    w = world(row())
    elsewhere = Faults()
    with serve(w.node, faults=elsewhere) as other:
        w.faults.only, w.faults.location = "/cluster", other + "/cluster/configuration"
        with pytest.raises(ShardtoolError, match="status 302"):
            w.api.configuration()
    assert elsewhere.seen == []


@pytest.mark.parametrize(
    "body",
    [
        b"nonsense",
        b"\xff\xfe",
        b"{",
        b'{"name":"cpu","columns":["time","sequence_number","v"],"points":[[1,1',
        b"[" * 100_000,
        b"9" * 5000,
        b"[NaN]",
        b"[null]",
        b"[1]",
        b'[{"name":"cpu"}]',
        b'{"name":"cpu","columns":["time","sequence_number","v"],"points":[[1,1]]}',
        b'{"name":"cpu","columns":["time","sequence_number","v"],"points":[["1",1,2]]}',
        b'{"name":"cpu","columns":["time","sequence_number","v"],"points":[[1,1,{}]]}',
        b'{"name":"cpu","columns":["time","sequence_number","v"],"points":[[1,1,1e999]]}',
        b'{"name":"cpu","columns":["time","v"],"points":[[1,1]]}',
        b'{"name":"cpu","columns":5,"points":[[1,1]]}',
    ],
)
def test_nonsense_is_an_error_and_never_no_points(body: bytes, world: Serve) -> None:
    w = world(row())
    w.faults.only, w.faults.body = "/db", body
    with pytest.raises(ShardtoolError, match="expected the JSON") as error:
        w.found("cpu", "v")
    message = str(error.value)
    assert message.isprintable()
    assert len(message) < 400


def test_an_error_that_follows_the_first_points_is_an_error(world: Serve) -> None:
    w = world(row())
    w.faults.late_text = "No servers up to query shard 7"
    with pytest.raises(ShardtoolError, match="No servers up to query shard 7"):
        w.found("cpu", "v")


@pytest.mark.parametrize("body", [b"", b"{}{}", b"nonsense", b"[1,2"])
def test_a_configuration_that_is_no_document_is_an_error(body: bytes, world: Serve) -> None:
    w = world()
    w.faults.only, w.faults.body = "/cluster", body
    with pytest.raises(ShardtoolError, match="expected the JSON"):
        w.api.configuration()


def test_a_configuration_without_end_is_an_error(
    world: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_module, "_CONFIGURATION_BYTES", 1 << 20)
    w = world()
    w.faults.only, w.faults.huge = "/cluster", 1 << 30
    with pytest.raises(ShardtoolError, match="more than 1048576 bytes"):
        w.api.configuration()


def test_what_a_server_says_reaches_no_terminal_unescaped(world: Serve) -> None:
    w = world(row())
    w.faults.only, w.faults.status, w.faults.text = "/db", 400, "\x1b[2J\nboom \u202e" + "x" * 999
    with pytest.raises(ShardtoolError, match="boom") as error:
        w.found("cpu", "v")
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 400


# -- who asks --


def test_a_wrong_password_is_refused_by_the_name_of_the_user(world: Serve) -> None:
    w = world(row())
    with Api(w.url, "paul", "wrong") as api, pytest.raises(ShardtoolError) as error:
        api.configuration()
    assert "refused the user 'paul'" in str(error.value)
    assert "SHARDTOOL_PASSWORD" in str(error.value)


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_is_final(status: int, world: Serve) -> None:
    w = world(row())
    w.faults.only, w.faults.status = "/db", status
    with pytest.raises(ShardtoolError, match="refused the user 'root'"):
        w.found("cpu", "v")
    assert sum(request.target.startswith("/db") for request in w.faults.seen) == 1


def test_the_password_goes_in_a_header_and_nowhere_else(world: Serve) -> None:
    w = world(row())
    w.found("cpu", "v")
    w.api.configuration()
    sent = base64.b64encode(f"root:{PASSWORD}".encode()).decode()
    asked = [request for request in w.faults.seen if request.target != "/ping"]
    assert {request.headers["Authorization"] for request in asked} == {f"Basic {sent}"}
    assert all("u=root" not in one.target and "horse" not in one.target for one in asked)


@pytest.mark.parametrize(
    "fault",
    [
        {"unauthorized": True},
        {"errors": 9, "text": f"you sent {PASSWORD}"},
        {"drops": 9},
        {"cuts": 9},
        {"hang": 5.0},
        {"status": 400, "text": f"bad: {base64.b64encode(f'root:{PASSWORD}'.encode()).decode()}"},
        {"body": f"nonsense {PASSWORD}".encode()},
        {"body": json.dumps({"name": "cpu", "columns": [PASSWORD], "points": [1]}).encode()},
        {"location": f"http://x/{PASSWORD}"},
        {"version": f"InfluxDB v{PASSWORD}", "only": "/nothing"},
    ],
)
def test_the_password_is_in_no_message_no_log_and_no_error_that_led_to_one(
    fault: dict[str, object], world: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    leaks = Leaks()
    w = world(*many(10), read_timeout=0.2)
    for name, value in {"only": "/db", **fault}.items():
        setattr(w.faults, name, value)
    with pytest.raises(ShardtoolError) as error:
        w.found("cpu", "v")
    leaks.check_error(error.value)
    leaks.check(repr(w.api) + str(w.api))
    # What a server says in its headers, httpcore logs by itself, at a level that is never on.
    logged = (record for record in caplog.records if "receive_" not in record.getMessage())
    leaks.check("".join(record.getMessage() for record in logged))


def test_no_proxy_and_no_netrc_of_the_environment_is_used(
    world: Serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login eve password evil\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    assert len(world(row()).found("cpu", "v")) == 1


def test_httpx_is_imported_only_when_the_api_is_used() -> None:
    script = "import sys, shardtool.influxdb.api; sys.exit('httpx' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment)
