"""The HTTP interface of a live InfluxDB 0.8 cluster: its catalogue, and the points it has.

Only GET is sent here, so whatever fails on the way may be tried again. The password goes to the
server in a header and nowhere else: no URL, message, log or exception holds it. What comes back is
hostile: bounded in size, checked in shape. FORMATS.md (HTTP) and captures/http-08 say what the
server answers; facts beyond them are named where they are used.
"""

from __future__ import annotations

import json
import math
import re
import sys
import time
from base64 import b64encode
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self
from urllib.parse import quote, urlsplit

from shardtool.errors import ShardtoolError, UsageError, reason_of
from shardtool.influxdb.query import (
    EARLIEST_US,
    LATEST_US,
    CannotAskError,
    Value,
    check_encodable,
    same,
    select,
)

if TYPE_CHECKING:
    import httpx

__all__ = ["Api", "CannotAskError", "Credentials", "Point", "base_url", "credentials", "same"]

PASSWORD, PASSWORD_FILE = "SHARDTOOL_PASSWORD", "SHARDTOOL_PASSWORD_FILE"
_LONGEST_PASSWORD = 4096

_ATTEMPTS = 4
_LONGEST_WAIT = 5.0

_CONFIGURATION_BYTES = 512 << 20
_ANSWER_BYTES = 16 << 20
"""The longest answer to one query; a window of time that has more is cut in two."""
_SMALLEST_WINDOW_BYTES = 256 << 20
"""The longest answer for a single microsecond, which can't be cut."""
_TEXT_BYTES = 64 << 10
_FIRST_WINDOW_US = 86_400_000_000
_URL_CHARACTERS = 65_000
"""httpx sends URLs of up to 65,536 characters (Go's net/http would take 1 MB)."""

_VERSION = re.compile(r"InfluxDB v(\S+)")
# 400 texts that mean: nothing there. 0.8.3 says the first also where no shard covers the time
# asked for (issue 1004, fixed in 0.8.4); later versions name the series or the field.
_NOTHING_THERE = re.compile(
    r"(Couldn't look ?up columns|Couldn't find series: |Field .* doesn't exist in series )", re.S
)
_NO_JSON = "json: unsupported value"  # encoding/json: NaN and infinities have no JSON


class Point(NamedTuple):
    """A point's identity and the value of one column: time in microseconds, sequence, value."""

    time_us: int
    sequence: int
    value: Value


class Credentials(NamedTuple):
    """A user and a password; printing it shows no password."""

    user: str
    password: str

    def __repr__(self) -> str:
        """Return the user alone."""
        return f"Credentials(user={self.user!r}, password=...)"


class _Answer(NamedTuple):
    status: int
    version: str
    body: bytes | None
    """None where it is longer than allowed."""


class _BrokenAnswerError(Exception):
    """An answer came, but it is not what the server says to this request."""


def credentials(user_option: str | None, environment: Mapping[str, str]) -> Credentials:
    """Return whom to log in as, and the password, asked for on the terminal at the last.

    Args: `user_option`: what --user says, root without it. `environment`: os.environ; the password
    is in SHARDTOOL_PASSWORD, or in the file that SHARDTOOL_PASSWORD_FILE names.
    Raises: UsageError where there is no password, or one that can't be sent.
    """
    user = user_option or "root"
    if given := environment.get(PASSWORD):
        password = given
    elif path := environment.get(PASSWORD_FILE):
        password = _password_in(Path(path))
    elif sys.stdin is not None and sys.stdin.isatty():
        password = _ask_for_password(user)
    else:
        raise UsageError(
            f"no password for the user {user!r}: set {PASSWORD}, or {PASSWORD_FILE} to a file "
            "that holds it, or run this on a terminal to be asked"
        )
    # getUsernameAndPassword (api/http/api.go) takes what is not exactly two parts for an error.
    if ":" in user or ":" in password:
        raise UsageError(
            "the user's name or password holds a colon, which InfluxDB 0.8 can't read from an "
            "Authorization header: give that user another, or make a user for this"
        )
    return Credentials(user, password)


def _password_in(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(_LONGEST_PASSWORD + 1)
    except OSError as error:
        raise UsageError(
            f"{path}: expected the password ({PASSWORD_FILE}), found: {reason_of(error)}"
        ) from None
    try:
        password = content.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        password = ""
    if not password or len(content) > _LONGEST_PASSWORD or "\n" in password:
        # None of the content: it may be a password all the same.
        raise UsageError(
            f"{path}: expected one line of UTF-8, the password ({PASSWORD_FILE}), found "
            f"{'nothing' if not content else 'something else'}: write it there"
        )
    return password


def _ask_for_password(user: str) -> str:
    from getpass import getpass

    try:
        return getpass(f"Password of the InfluxDB user {user}: ")
    except EOFError:
        raise UsageError(f"no password for the user {user!r}: the input ended") from None


def base_url(text: str) -> str:
    """Return a server's base URL without a slash at its end.

    Example: 'http://db1:8086/' gives 'http://db1:8086'.
    Raises: UsageError where it is none; what may be a password in it is not shown.
    """
    expected = "expected http://HOST:PORT or https://HOST:PORT"
    if "@" in text or "?" in text or "#" in text:
        raise UsageError(
            f"the URL of the API holds a user, a query or a fragment, {expected}: say --user, and "
            f"set {PASSWORD}"
        )
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable or not text.isprintable() or " " in text or "\\" in text:
        raise UsageError(f"{text!a} is no URL of an API: {expected}")
    return text.rstrip("/")


class Api:
    """A live cluster, through one of its servers. Use it in a with statement.

    The server asked passes a query on to whoever owns the shards (cluster/shard.go).
    """

    def __init__(
        self,
        url: str,
        user: str,
        password: str,
        *,
        connect_timeout: float = 5.0,
        read_timeout: float = 60.0,
        first_wait: float = 0.25,
    ) -> None:
        """Prepare to ask the server at `url`; nothing is sent yet.

        Timeouts are in seconds. What fails is tried again after `first_wait` seconds, then twice
        as many, three times at most. Raises UsageError on a `url` that is none.
        """
        # Imported on first use: status and prune must not wait for it.
        import ssl

        import httpx

        self.url = base_url(url)
        self.user = user
        self._secrets = _spellings(user, password)
        self._auth = httpx.BasicAuth(user, password)
        self._read_timeout = read_timeout
        self._first_wait = first_wait
        self._version: str | None = None
        self._client = httpx.Client(
            timeout=httpx.Timeout(read_timeout, connect=connect_timeout),
            # The system's authorities and no others; http has none, and loading them takes time.
            verify=ssl.create_default_context() if self.url.startswith("https:") else False,
            # No proxy gets the password, and no .netrc replaces it.
            trust_env=False,
            follow_redirects=False,
            headers={"User-Agent": "shardtool", "Accept-Encoding": "identity"},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        """Return the URL and the user."""
        return f"<Api {self.url} as {self.user}>"

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    # -- what can be asked --

    def version(self) -> str:
        """Return the server's version, such as '0.8.3' (the X-Influxdb-Version header of /ping).

        It is asked without a password, and before any request with one.
        Raises: ShardtoolError where it is not reachable, or not an InfluxDB 0.8.
        """
        if self._version is None:
            answer = self._get("/ping", limit=_TEXT_BYTES, login=False)
            found = _VERSION.search(answer.version)
            if not found or not found[1].startswith("0.8."):
                what = f"InfluxDB {found[1]}" if found else f"no InfluxDB (status {answer.status})"
                raise ShardtoolError(
                    f"{self.url}/ping: expected an InfluxDB 0.8, found {self._shown(what)}: "
                    "check the URL, and that the cluster has been upgraded"
                )
            self._version = found[1]
        return self._version

    def configuration(self) -> object:
        """Return all that raft knows: /cluster/configuration, parsed.

        Raises: ShardtoolError where the server, or the user's rights, or the answer are not so.
        """
        path = "/cluster/configuration"
        answer = self._get(path, limit=_CONFIGURATION_BYTES)
        if answer.status != 200 or answer.body is None:
            raise self._unexpected(path, answer, "the configuration")
        try:
            return _parse(answer.body)
        except _BrokenAnswerError as error:
            problem = str(error)
        raise self._broken(path, problem)

    def points(
        self, database: str, series: str, column: str, start_us: int, end_us: int
    ) -> Iterator[Point]:
        """Yield the points of a column with start_us <= time < end_us, one window after another.

        In a window they come as the shards do, so in no order that counts. A point without the
        column is left out (the server says null), and so is what lies further from 1970 than 292
        years, which the server can't be asked for. A series or column that isn't there has no
        points. Memory holds one window's answer, which is bounded.

        Raises: CannotAskError where no query can ask for the column; ShardtoolError where the
        server is not reachable, refuses the user, or answers nonsense.
        """
        path = self._series_path(database)
        check_encodable(series, column)
        start, end = max(start_us, EARLIEST_US), min(end_us, LATEST_US)
        width = _FIRST_WINDOW_US
        while start < end:
            until = min(start + width, end)
            limit = _ANSWER_BYTES if until - start > 1 else _SMALLEST_WINDOW_BYTES
            body = self._window(path, select(series, column, start, until), limit)
            if body is None:
                width = (until - start) // 2
                continue
            problem = ""
            try:
                for document in _documents(body):
                    yield from _points_in(document, series, column, start, until)
            except _BrokenAnswerError as error:
                problem = str(error)
            if problem:  # not in the handler: what a server says may hold the password
                raise self._broken(path, problem)
            start = until
            if len(body) < limit // 8:
                width *= 8

    def _window(self, path: str, query: str, limit: int) -> bytes | None:
        """Return the answer to a query, None where it is too long and its window can be cut."""
        # time_precision=u: times in microseconds; chunked: a document per batch of points, one
        # after another (ChunkWriter in api/http/api.go), so the server doesn't collect them all.
        parameters = f"time_precision=u&chunked=true&q={quote(query, safe='')}"
        if len(self.url) + len(path) + len(parameters) > _URL_CHARACTERS:
            raise CannotAskError(f"{self.url}: a name is too long for a URL: no query asks for it")
        answer = self._get(path, parameters, limit=limit)
        if answer.status == 200:
            if answer.body is None and limit == _SMALLEST_WINDOW_BYTES:
                raise CannotAskError(
                    f"{self.url}{path}: the answer for a single microsecond is longer "
                    f"than {limit} bytes: too much to ask for"
                )
            return answer.body
        text = (answer.body or b"").decode(errors="replace")
        if answer.status == 400 and _NOTHING_THERE.match(text):
            return b""
        if text.startswith(_NO_JSON):
            raise CannotAskError(
                f"{self.url}{path}: the column holds a NaN or an infinite number, "
                "which the server can't print"
            )
        raise self._unexpected(path, answer, "the points")

    def _series_path(self, database: str) -> str:
        """Return the path of a database's series.

        Raises: CannotAskError for a name that no path can hold. The server splits the path at
        slashes after decoding it (the pat library), so %2F doesn't help.
        """
        check_encodable(database)
        if not database or "/" in database:
            raise CannotAskError(
                f"the database {database!a} has no URL: its name is empty or holds a slash"
            )
        # The dots too: a path of .. would lead elsewhere.
        return f"/db/{quote(database, safe='').replace('.', '%2E')}/series"

    # -- on the wire --

    def _get(self, path: str, parameters: str = "", *, limit: int, login: bool = True) -> _Answer:
        """Send a GET, several times where the connection or the server fails (5xx)."""
        if login:
            self.version()
        url = f"{self.url}{path}?{parameters}" if parameters else self.url + path
        problem = ""
        for attempt in range(_ATTEMPTS):
            if attempt:
                time.sleep(min(self._first_wait * 2 ** (attempt - 1), _LONGEST_WAIT))
            answer, problem, final = self._attempt(url, limit, login=login)
            if final:
                break
            if answer and answer.status < 500:
                if login and answer.status in (401, 403):
                    raise self._refused(path, answer)
                return answer
            if answer:
                problem = self._found(answer)
        raise ShardtoolError(
            f"{self.url}{path}: expected an answer, found: {problem}: check that the server runs "
            "and that the URL is its API's"
        )

    def _attempt(self, url: str, limit: int, *, login: bool) -> tuple[_Answer | None, str, bool]:
        """Send a GET once. Return the answer, or what went wrong and whether that is final.

        No error of httpx leaves this function, not even as a context: they hold the request.
        """
        import httpx

        try:
            auth = self._auth if login else None
            with self._client.stream("GET", url, auth=auth) as response:
                body = _read(response, limit if response.status_code == 200 else _TEXT_BYTES)
                version = response.headers.get("X-Influxdb-Version", "")
                return _Answer(response.status_code, version, body), "", False
        except httpx.ReadTimeout:
            return None, f"nothing for {self._read_timeout:g} seconds", True
        except (httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
            return None, self._shown(str(error)), True
        except httpx.HTTPError as error:
            return None, self._shown(str(error) or type(error).__name__), False

    # -- what it says when it goes wrong --

    def _refused(self, path: str, answer: _Answer) -> ShardtoolError:
        return ShardtoolError(
            f"{self.url}{path}: the server refused the user {self.user!r} (status "
            f"{answer.status}): it takes a cluster administrator and the right password, see "
            f"--user and {PASSWORD}"
        )

    def _unexpected(self, path: str, answer: _Answer, wanted: str) -> ShardtoolError:
        too_long = f"more than {_CONFIGURATION_BYTES} bytes"
        found = self._found(answer) if answer.body is not None else too_long
        return ShardtoolError(
            f"{self.url}{path}: expected {wanted}, found {found}: see the server's log"
        )

    def _broken(self, path: str, problem: str) -> ShardtoolError:
        return ShardtoolError(
            f"{self.url}{path}: expected the JSON of InfluxDB 0.8, found {self._shown(problem)}: "
            "see the server's log, or try again"
        )

    def _found(self, answer: _Answer) -> str:
        text = (answer.body or b"").decode(errors="replace")
        return f"status {answer.status} '{self._shown(text)}'"

    def _shown(self, text: str) -> str:
        """Return text of a server as a message may show it: one line, short, without a secret."""
        for secret in self._secrets:
            text = text.replace(secret, "...")
        line = "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))
        return line if len(line) <= 160 else line[:157] + "..."


def _spellings(user: str, password: str) -> tuple[str, ...]:
    """Return how a password may come back from a server: as it was sent, plain, and escaped."""
    sent = b64encode(f"{user}:{password}".encode()).decode()
    if not password:
        return (sent,)
    return sent, password, quote(password, safe=""), json.dumps(password)[1:-1]


def _read(response: httpx.Response, limit: int) -> bytes | None:
    """Return a body, None where it is longer than `limit`; no more than that is read."""
    body = bytearray()
    for chunk in response.iter_raw():
        body += chunk
        if len(body) > limit:
            return None
    return bytes(body)


# -- JSON --


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


def _integer(text: str) -> int | float:
    """Return a number without point: exact, and -0 as the double that it is (int has no -0)."""
    return -0.0 if text == "-0" else int(text)


_PLAIN = json.JSONDecoder(parse_constant=_no_constant)
# A function call per number is slow, so only where there is a -0.
_WITH_MINUS_ZERO = json.JSONDecoder(parse_constant=_no_constant, parse_int=_integer)
_MINUS_ZERO = re.compile(r"-0[],}\s]")


def _documents(body: bytes) -> Iterator[Any]:
    """Yield the JSON documents of an answer, which follow each other with nothing in between.

    Raises: _BrokenAnswerError where something else stands there. That is how an error looks which
    comes when the first points are out already: its text follows the last document.
    """
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise _BrokenAnswerError("bytes that are no UTF-8") from None
    decoder = _WITH_MINUS_ZERO if _MINUS_ZERO.search(text) else _PLAIN
    at = 0
    while at < len(text):
        if text[at].isspace():
            at += 1
            continue
        try:
            document, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            raise _BrokenAnswerError(f"'{text[at : at + 500]}'") from None
        # Without chunked=true, and from a server that doesn't know it: all of them in an array.
        yield from document if isinstance(document, list) else (document,)


def _parse(body: bytes) -> object:
    documents = list(_documents(body))
    if len(documents) != 1:
        raise _BrokenAnswerError(f"{len(documents)} JSON documents")
    return documents[0]


def _points_in(
    document: Any, series: str, column: str, start_us: int, end_us: int
) -> Iterator[Point]:
    """Yield a column's points in a document {"name", "columns", "points"}, null left out."""
    try:
        name, columns, points = document["name"], document["columns"], document["points"]
        if name != series or not points:
            return
        if columns[:2] != ["time", "sequence_number"]:
            raise _BrokenAnswerError("columns that don't begin with time and sequence_number")
        if column not in columns[2:]:
            return
        place = columns.index(column, 2)
        for point in points:
            time_us, sequence, value = point[0], point[1], point[place]
            if value is None:
                continue
            if type(time_us) is not int or type(sequence) is not int or not _is_value(value):
                raise _BrokenAnswerError("a point that is not time, sequence_number and values")
            if start_us <= time_us < end_us:
                yield Point(time_us, sequence, value)
    except (TypeError, KeyError, IndexError, AttributeError):
        raise _BrokenAnswerError("a series without name, columns and points") from None


def _is_value(value: object) -> bool:
    return isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))
