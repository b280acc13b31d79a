"""The HTTP interface of a live InfluxDB cluster: its catalogue, its points, its spaces, its
migration.

What may be asked twice is tried again where it fails; a request that changes something is sent
once. What comes back is hostile: bounded in size, checked in shape. FORMATS.md (HTTP) and
captures/http-08 say what the server answers; facts beyond them are named where they are used.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Self, TypeVar
from urllib.parse import quote

from shardtool.errors import ShardtoolError
from shardtool.influxdb.answers import (
    BrokenAnswerError,
    Point,
    configuration_in,
    databases_in,
    documents,
    points_in,
    servers_in,
    spaces_in,
    version_in,
)
from shardtool.influxdb.catalogue import Catalogue, CatalogueError, from_configuration
from shardtool.influxdb.model import ClusterServer, Space
from shardtool.influxdb.query import (
    EARLIEST_US,
    LATEST_US,
    CannotAskError,
    check_encodable,
    select,
)
from shardtool.influxdb.spaces import problems
from shardtool.influxdb.wire import Answer, FailingError, Request, Wire

T = TypeVar("T")

_CONFIGURATION_BYTES = 64 << 20
"""The longest /cluster/configuration; one of 200,000 columns is some 20 MB at the most."""
_LIST_BYTES = 16 << 20
_ANSWER_BYTES = 16 << 20
"""The longest answer to one query; a window of time that has more is cut in two."""
_SMALLEST_WINDOW_BYTES = 64 << 20
"""The longest answer for a single microsecond, which can't be cut."""
_FIRST_WINDOW_US = 86_400_000_000
_URL_CHARACTERS = 65_000
"""httpx sends URLs of up to 65,536 characters (Go's net/http would take 1 MB)."""
_UP_SECONDS = 2.0

# 400 texts that mean: nothing there. 0.8.3 says the first also where no shard covers the time
# asked for (issue 1004, fixed in 0.8.4); later versions name the series or the field.
_NOTHING_THERE = re.compile(
    r"(Couldn't look ?up columns|Couldn't find series: |Field .* doesn't exist in series )", re.S
)
_AT_ONCE = 20.0  # seconds, for all attempts of a request together
_NO_JSON = "json: unsupported value"  # encoding/json: NaN and infinities have no JSON
_PING = Request("GET", "/ping", login=False)
_IS_UP = _PING._replace(limit=0)
_PATIENCE = 2.0
"""For what the server may have to look up for long before it says a word."""


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
        longest: float = 60.0,
        first_wait: float = 0.25,
    ) -> None:
        """Prepare to ask the server at `url`; nothing is sent yet.

        Timeouts are in seconds. `read_timeout` is the longest silence, `longest` what a whole
        exchange may take: twice as long where the server may have much to do, and a second more
        for each 64 KiB that have come. What fails is tried again after `first_wait` seconds, then
        twice as many, three times at most. Raises UsageError on a `url` that is none.
        """
        self._wire = Wire(
            url,
            user,
            password,
            connect_timeout=connect_timeout,
            read_timeout=read_timeout,
            longest=longest,
            first_wait=first_wait,
        )
        self.url, self.user = self._wire.url, user
        self._version: str | None = None

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
        self._wire.close()

    # -- what can be asked --

    def version(self) -> str:
        """Return the version of a server that must be an InfluxDB 0.8, such as '0.8.3'.

        Raises:
            ShardtoolError: it is not reachable, or something else.
        """
        version = self.server_version()
        if not version.startswith("0.8."):
            raise self._no_08(f"InfluxDB {version}")
        return version

    def server_version(self) -> str:
        """Return what X-Influxdb-Version says on /ping: '0.8.3', '0.7.3', '0.9.0'.

        It is asked without a password, before any request with one, and once.

        Raises:
            ShardtoolError: the server is not reachable, or no InfluxDB.
        """
        if self._version is None:
            answer = self._wire.repeated(_PING)
            version = version_in(answer.version)
            if version is None:
                raise self._no_08(f"no InfluxDB (status {answer.status})")
            self._version = self._wire.shown(version)
        return self._version

    def is_up(self) -> bool:
        """Return whether an InfluxDB answers within two seconds; one /ping, without a password."""
        answer = self._wire.answers(_IS_UP, _UP_SECONDS)
        return answer is not None and version_in(answer.version) is not None

    def configuration(self) -> Mapping[str, object]:
        """Return all that raft knows: /cluster/configuration, its JSON taken apart.

        Raises:
            ShardtoolError: the server, the user's rights or the answer are not so.
        """
        self.version()
        request = Request(
            "GET", "/cluster/configuration", limit=_CONFIGURATION_BYTES, patience=_PATIENCE
        )
        return self._read(request, "the configuration", configuration_in)

    def catalogue(self) -> Catalogue:
        """Return what the configuration says; see from_configuration.

        Raises:
            CatalogueError: it says nothing of the kind.
            ShardtoolError: the server, the user's rights or the answer are not so.
        """
        document = self.configuration()
        try:
            return from_configuration(document)
        except CatalogueError as error:
            problem = self._wire.shown(str(error))
        # Not in the handler: what a server says may hold the password.
        raise CatalogueError(f"{self.url}{problem}")

    def databases(self) -> frozenset[str]:
        """Return the names of the databases, of 0.7 too (GET /db). Raises ShardtoolError."""
        self.server_version()
        return self._read(Request("GET", "/db", limit=_LIST_BYTES), "the databases", databases_in)

    def servers(self) -> tuple[ClusterServer, ...]:
        """Return the servers, of 0.7 too (GET /cluster/servers). Raises ShardtoolError."""
        self.server_version()
        request = Request("GET", "/cluster/servers", limit=_LIST_BYTES)
        return self._read(request, "the servers", servers_in)

    def spaces(self) -> Mapping[str, tuple[Space, ...]]:
        """Return per database its shard spaces as a series asks them, the newest first.

        A database that has none is not in it.

        Raises:
            ShardtoolError: the server, the user's rights or the answer are not so.
        """
        self.version()
        request = Request("GET", "/cluster/shard_spaces", limit=_LIST_BYTES)
        return self._read(request, "the shard spaces", spaces_in)

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
                for document in documents(body):
                    yield from points_in(document, series, column, start, until)
            except BrokenAnswerError as error:
                problem = str(error)
            if problem:  # not in the handler: what a server says may hold the password
                raise self._wire.broken(Request("GET", path), problem)
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
        self.version()
        request = Request("GET", path, parameters, limit=limit, patience=_PATIENCE)
        answer = self._as_admin(request, self._wire.repeated(request))
        if answer.status == 200:
            if answer.body is None and limit == _SMALLEST_WINDOW_BYTES:
                raise CannotAskError(
                    f"{self.url}{path}: the answer for a single microsecond is longer "
                    f"than {limit} bytes: too much to ask for"
                )
            return answer.body
        if answer.status == 400 and _NOTHING_THERE.match(answer.text):
            return b""
        if answer.text.startswith(_NO_JSON):
            raise CannotAskError(
                f"{self.url}{path}: the column holds a NaN or an infinite number, "
                "which the server can't print"
            )
        raise self._wire.unexpected(request, answer, "the points")

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
        return f"/db/{_in_path(database)}/series"

    # -- what can be changed --

    def create_space(self, space: Space) -> None:
        """Make a shard space; it is asked before those that its database has. Sent once.

        Raises:
            AnswerLostError: no answer came, so it may be there or not.
            ShardtoolError: it must not be sent, or the server did not make it.
        """
        path = f"/cluster/shard_spaces/{_in_path(space.database)}"
        self._send_space(path, space, f"the space {space.name!r} to be made")

    def update_space(self, space: Space) -> None:
        """Change the space of that name, which keeps its place and its shards. Sent once.

        Raises:
            AnswerLostError: no answer came, so it may be changed or not.
            ShardtoolError: it must not be sent, or the server did not change it.
        """
        path = f"/cluster/shard_spaces/{_in_path(space.database)}/{_in_path(space.name)}"
        self._send_space(path, space, f"the space {space.name!r} to be changed")

    def remove_space(self, database: str, name: str) -> None:
        """Remove a shard space and all of its shards. Sent once, if the server has it.

        One that it doesn't have would kill it (captures/http-08-badspace/17-drop-unknown.txt).

        Raises:
            AnswerLostError: no answer came, so it may be gone or not.
            ShardtoolError: there is none, or the server did not remove it.
        """
        if all(space.name != name for space in self.spaces().get(database, ())):
            raise ShardtoolError(
                f"{self.url}: expected a shard space {name!r} of the database {database!r} to "
                "remove, found none; nothing was sent"
            )
        if not name or "/" in name or not database or "/" in database:
            raise ShardtoolError(
                f"{self.url}: the shard space {name!r} of the database {database!r} has no URL"
            )
        path = f"/cluster/shard_spaces/{_in_path(database)}/{_in_path(name)}"
        self._send(Request("DELETE", path), f"the space {name!r} to be removed")

    def start_migration(self, pause: str) -> bool:
        """Start the migration in the background; return False where another runs already.

        It is sent again where the connection fails: the server refuses a second one, so a refusal
        that follows a lost answer says that ours has started.

        Args:
            pause: how long it rests after each 10,000 points, as Go writes it: '100ms', '0s'.

        Raises:
            AnswerLostError: no answer of the server's own came, so it may have started or not.
            ShardtoolError: the server can't migrate, or can't read the pause, or refuses.
        """
        self.version()
        request = Request("POST", "/cluster/migrate_data", f"pause={quote(pause, safe='')}")
        answer, was_lost = self._wire.insisted(request)
        if answer.status == 202:
            return True
        if answer.status == 403 and answer.text.strip() == "{}":
            return was_lost
        if was_lost or answer.status >= 500:  # a proxy's, or that of a request which panicked
            raise self._wire.lost(request, self._wire.found(answer))
        self._as_admin(request, answer)
        if answer.status == 404:
            advice = "only 0.8.0 to 0.8.3 migrate: install one of them"
            raise self._wire.unexpected(request, answer, "a server that can migrate", advice)
        if answer.status == 400:
            advice = "a pause is a Go duration, such as 100ms"
            raise self._wire.unexpected(request, answer, f"{pause!r} to be a pause", advice)
        raise self._wire.unexpected(request, answer, "the migration to start (202)")

    def create_database(self, name: str) -> None:
        """Make a database; one that is there already is as good (captures/http-07/03 and 05).

        Raises:
            ShardtoolError: the server did not make it.
        """
        self.version()
        request = Request("POST", "/db", body=json.dumps({"name": name}).encode("ascii"))
        answer = self._as_admin(request, self._wire.repeated(request))
        if answer.status not in (200, 201, 409):
            raise self._wire.unexpected(request, answer, f"the database {name!r} to be made")

    def write_points(self, database: str, body: bytes) -> str:
        """Write points, times in us; return why the server refused them, or nothing.

        It is sent again where the connection or the server fails: the same points twice are the
        same points.

        Args:
            database: which; it has to be there.
            body: JSON, as `POST /db/DB/series` takes it.

        Raises:
            ShardtoolError: the server is not reachable, or refuses the user.
        """
        self.version()
        path, began = self._series_path(database), time.monotonic()
        request = Request("POST", path, "time_precision=u", body=body, patience=_PATIENCE)
        try:
            answer = self._wire.repeated(request)
        except FailingError:
            raise  # it answered: no value is to blame for that
        except ShardtoolError:
            # A request that the server panics at ends without an answer, each time and at once,
            # while others are answered: then something in it is to blame.
            if time.monotonic() - began < _AT_ONCE and self.is_up():
                return "it is up, but gave no answer to this"
            raise
        self._as_admin(request, answer)
        if answer.status == 200:
            return ""
        if answer.status in (400, 413):
            return self._wire.shown(answer.text) or f"status {answer.status}"
        raise self._wire.unexpected(request, answer, "the points to be written")

    # -- on the wire --

    def _read(self, request: Request, wanted: str, take: Callable[[bytes], T]) -> T:
        """Ask for `wanted`, as often as it takes, and return what `take` makes of the body."""
        answer = self._as_admin(request, self._wire.repeated(request))
        if answer.status == 404:
            advice = "check the URL and the version"
            raise self._wire.unexpected(request, answer, wanted, advice)
        if answer.status != 200 or answer.body is None:
            raise self._wire.unexpected(request, answer, wanted)
        try:
            return take(answer.body)
        except BrokenAnswerError as error:
            problem = str(error)
        # Not in the handler: what a server says may hold the password.
        raise self._wire.broken(request, problem)

    def _send_space(self, path: str, space: Space, wanted: str) -> None:
        """Send a space, unless no server must be sent it."""
        wrong = problems(space)
        if wrong:
            raise ShardtoolError(f"{self.url}: {space.name!a} must not be sent: {'; '.join(wrong)}")
        # The guide's own keys; the database is in the path.
        body = {
            "name": space.name,
            "retentionPolicy": space.retention,
            "shardDuration": space.shard_duration,
            "regex": space.regex,
            "replicationFactor": space.replication,
            "split": space.split,
        }
        self._send(Request("POST", path, body=json.dumps(body).encode("ascii")), wanted)

    def _send(self, request: Request, wanted: str) -> None:
        """Send a change once; only 200 means that it was made."""
        self.version()
        answer = self._as_admin(request, self._wire.once(request))
        if answer.status != 200:
            raise self._wire.unexpected(request, answer, wanted)

    def _as_admin(self, request: Request, answer: Answer) -> Answer:
        if answer.status in (401, 403):
            raise self._wire.refused(request, answer)
        return answer

    def _no_08(self, found: str) -> ShardtoolError:
        return ShardtoolError(
            f"{self.url}/ping: expected an InfluxDB 0.8, found {self._wire.shown(found)}: "
            "check the URL, and that the cluster has been upgraded"
        )


def _in_path(name: str) -> str:
    """Return a name as a part of a path. The dots too: a path of .. would lead elsewhere."""
    return quote(name, safe="", errors="surrogatepass").replace(".", "%2E")
