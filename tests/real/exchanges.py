"""The exchanges of captures/http-*, to be sent again and compared; and who sends them."""

from __future__ import annotations

import http.client
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from tests.needs import CAPTURES, lacking

_CAPTURE = re.compile(
    r">>> REQUEST\n(\S+) (\S+) HTTP/1.1\n.*?\n\n(.*?)\n\n<<< RESPONSE \(curl -i\)\n(.*)",
    re.DOTALL,
)
# It differs each time, and the connection is not the capture's.
_PASSING = {"date", "connection"}


@dataclass(frozen=True)
class Answer:
    """What came back; a status of 0 is a connection that was closed without an answer."""

    status: int
    headers: dict[str, str]
    body: str


@dataclass(frozen=True)
class Exchange:
    """A request that was captured, and the real server's answer."""

    method: str
    target: str
    body: str
    answer: Answer


def exchange(capture: str, name: str) -> Exchange:
    """Return a captured exchange by the beginning of its file's name: ("http-08", "16")."""
    found = sorted((CAPTURES / capture).glob(f"{name}-*.txt"))
    if not found:
        lacking(str(CAPTURES / capture / f"{name}-*.txt"))
    return _parsed(found[0])


def send(url: str, method: str, target: str, body: str = "") -> Answer:
    """Send a request as curl does, and return what comes back."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
    try:
        connection.request(method, target, body.encode() if body or method == "POST" else None)
        came = connection.getresponse()
        content = came.read().decode()
    except (http.client.RemoteDisconnected, ConnectionResetError):
        return Answer(0, {}, "")
    finally:
        connection.close()
    return Answer(came.status, _lasting(came.getheaders()), content)


def send_again(url: str, one: Exchange) -> Answer:
    """Send a captured request and return what comes back."""
    return send(url, one.method, one.target, one.body)


def _parsed(path: Path) -> Exchange:
    found = _CAPTURE.search(path.read_text())
    assert found, path
    method, target, body, answer = found.groups()
    if not answer.strip():
        return Exchange(method, target, body.strip("\n"), Answer(0, {}, ""))
    head, _, content = answer.partition("\n\n")
    first, *lines = head.split("\n")
    headers = _lasting([(name, text) for name, _, text in (one.partition(": ") for one in lines)])
    # The file ends in a newline or two that are not the answer's.
    length = int(headers["content-length"])
    content = content.encode()[:length].decode()
    return Exchange(
        method, target, body.strip("\n"), Answer(int(first.split()[1]), headers, content)
    )


def _lasting(headers: list[tuple[str, str]]) -> dict[str, str]:
    return {name.lower(): text for name, text in headers if name.lower() not in _PASSING}
