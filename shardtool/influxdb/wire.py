"""HTTP to one server: requests sent once or again, answers read within bounds, errors without a
password.

The password goes to the server in a header and nowhere else: no URL, message, log or exception
holds it. Knows nothing of what is asked; influxdb.api does.
"""

from __future__ import annotations

import json
import os
import time
from base64 import b64encode
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

from shardtool.errors import ShardtoolError, UsageError, reason_of
from shardtool.influxdb.credentials import PASSWORD, base_url

if TYPE_CHECKING:
    import ssl

    import httpx

    from shardtool.influxdb.transport import Deadline

_ATTEMPTS = 4
_LONGEST_WAIT = 5.0
_SLOWEST = 64 << 10
"""Bytes of a body that earn an exchange another second: half a megabit is a slow line."""
_TELLING = 3
"""So much of a password, in characters, says something of it."""
TEXT_BYTES = 64 << 10
"""The longest answer that is only text."""


class AnswerLostError(ShardtoolError):
    """A request was sent and no answer came: whether the server did it has to be read back."""


class FailingError(ShardtoolError):
    """Each answer was that the server, or something before it, fails."""


class Request(NamedTuple):
    """What is asked: path and parameters quoted, a body of JSON or none."""

    method: str
    path: str
    parameters: str = ""
    body: bytes | None = None
    limit: int = TEXT_BYTES
    """The longest answer 200, in bytes; 0: no body is read."""
    login: bool = True
    """Send the password."""
    patience: float = 1.0
    """How many times as long as others it may take to be answered."""


class Answer(NamedTuple):
    """What came back, whatever its status."""

    status: int
    version: str
    """The header X-Influxdb-Version, '' where there is none."""
    body: bytes | None
    """None where it is longer than allowed."""

    @property
    def text(self) -> str:
        """The body as text, '' where it is too long."""
        return (self.body or b"").decode(errors="replace")


class _Failure(NamedTuple):
    problem: str
    is_final: bool
    """It would be the same again."""
    was_sent: bool
    """The server may have got it."""


class Wire:
    """The way to one server; what fails on it becomes one line."""

    def __init__(
        self,
        url: str,
        user: str,
        password: str,
        *,
        connect_timeout: float,
        read_timeout: float,
        longest: float,
        first_wait: float,
    ) -> None:
        """Prepare to ask the server at `url`; nothing is sent yet. See Api."""
        # Imported on first use: status and prune must not wait for it.
        import httpx

        from shardtool.influxdb.transport import Deadline, Transport

        self.url = base_url(url)
        self.user = user
        self._secrets = _spellings(user, password)
        self._auth = httpx.BasicAuth(user, password)
        self._read_timeout = read_timeout
        self._longest = longest
        self._deadline = Deadline()
        self._first_wait = first_wait
        self._client = httpx.Client(
            timeout=httpx.Timeout(read_timeout, connect=connect_timeout),
            transport=Transport(_authorities(self.url), self._deadline),
            # No proxy gets the password, and no .netrc replaces it.
            trust_env=False,
            follow_redirects=False,
            headers={"User-Agent": "shardtool", "Accept-Encoding": "identity"},
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def repeated(self, request: Request) -> Answer:
        """Send what may be sent again, until an answer comes, four times at the most.

        An answer of 500 and more is none.

        Raises:
            FailingError: the last one was such an answer.
            ShardtoolError: no answer came.
        """
        problem, kind = "", ShardtoolError
        for found in self._attempts(request):
            if isinstance(found, Answer):
                if found.status < 500:
                    return found
                problem, kind = self.found(found), FailingError
            else:
                problem, kind = found.problem, ShardtoolError
        raise kind(str(self._unanswered(request, problem)))

    def insisted(self, request: Request) -> tuple[Answer, bool]:
        """Send what the server does once however often it is sent; an answer of 500 is one too.

        Returns:
            The answer, and whether it had been sent before and that answer was lost.

        Raises:
            AnswerLostError: it was sent, and no answer came.
            ShardtoolError: it was not sent.
        """
        problem, lost = "", False
        for found in self._attempts(request):
            if isinstance(found, Answer):
                return found, lost
            problem, lost = found.problem, lost or found.was_sent
        raise self.lost(request, problem) if lost else self._unanswered(request, problem)

    def once(self, request: Request) -> Answer:
        """Send what must not be sent again by itself.

        Raises:
            AnswerLostError: it was sent, and no answer came.
            ShardtoolError: it was not sent.
        """
        answer = self._attempt(request)
        if isinstance(answer, Answer):
            return answer
        if not answer.was_sent:
            raise self._unanswered(request, answer.problem)
        raise self.lost(request, answer.problem)

    def answers(self, request: Request, seconds: float) -> Answer | None:
        """Send it once and in a hurry; return None where no answer came."""
        answer = self._attempt(request, seconds)
        return answer if isinstance(answer, Answer) else None

    def _attempts(self, request: Request) -> Iterator[Answer | _Failure]:
        """Send a request again and again while the reader asks for more and it may help."""
        for attempt in range(_ATTEMPTS):
            if attempt:
                time.sleep(min(self._first_wait * 2 ** (attempt - 1), _LONGEST_WAIT))
            found = self._attempt(request)
            yield found
            if isinstance(found, _Failure) and found.is_final:
                return

    def _attempt(self, request: Request, seconds: float | None = None) -> Answer | _Failure:
        """Send a request once, within its time: `seconds`, or what its patience makes of ours.

        No error of httpx leaves this function, not even as a context: they hold the request.
        """
        import httpcore
        import httpx

        longest = self._longest * request.patience if seconds is None else seconds
        self._deadline.begin(longest)
        try:
            return self._exchange(request)
        except (httpcore.ReadTimeout, httpcore.WriteTimeout):
            if self._deadline.is_over:
                return _Failure(f"no whole answer within {longest:g} seconds", True, True)
            return _Failure(f"nothing for {self._read_timeout:g} seconds", True, True)
        except (httpcore.ConnectError, httpcore.ConnectTimeout, httpcore.PoolTimeout) as error:
            return _Failure(self.shown(str(error)), False, False)
        except (httpcore.UnsupportedProtocol, httpx.InvalidURL) as error:
            return _Failure(self.shown(str(error)), True, False)
        except (httpx.HTTPError, httpcore.NetworkError, httpcore.ProtocolError) as error:
            return _Failure(self.shown(str(error) or type(error).__name__), False, True)
        except UnicodeError:  # of the place that it redirects to: nobody goes there
            return _Failure("a header that can't be read", True, True)

    def _exchange(self, request: Request) -> Answer:
        """Send a request and return the answer; errors are httpx's and httpcore's."""
        method, path, parameters, body, limit, login, _ = request
        with self._client.stream(
            method,
            f"{self.url}{path}?{parameters}" if parameters else self.url + path,
            auth=self._auth if login else None,
            content=body,
            headers=None if body is None else {"Content-Type": "application/json"},
        ) as response:
            limit = limit if response.status_code == 200 else min(limit, TEXT_BYTES)
            content = _read(response, limit, self._deadline)
            version = response.headers.get("X-Influxdb-Version", "")
            return Answer(response.status_code, version, content)

    # -- what it says when it goes wrong --

    def _unanswered(self, request: Request, problem: str) -> ShardtoolError:
        return ShardtoolError(
            f"{self.url}{request.path}: expected an answer, found: {problem}: check that the "
            "server runs and that the URL is its API's"
        )

    def lost(self, request: Request, problem: str) -> AnswerLostError:
        """Return the error that says: it was sent, and nobody knows what became of it."""
        return AnswerLostError(
            f"{self.url}{request.path}: sent a {request.method} and expected an answer, found: "
            f"{problem}: it may have been done or not"
        )

    def refused(self, request: Request, answer: Answer) -> ShardtoolError:
        """Return the error that says: not this user, or not with this password."""
        return ShardtoolError(
            f"{self.url}{request.path}: the server refused the user {self.user!r} (status "
            f"{answer.status}): it takes a cluster administrator and the right password, see "
            f"--user and {PASSWORD}"
        )

    def unexpected(
        self, request: Request, answer: Answer, wanted: str, advice: str = "see the server's log"
    ) -> ShardtoolError:
        """Return the error that says what the answer was instead of `wanted`."""
        too_long = f"more than {request.limit if answer.status == 200 else TEXT_BYTES} bytes"
        found = self.found(answer) if answer.body is not None else too_long
        return ShardtoolError(
            f"{self.url}{request.path}: expected {wanted}, found {found}: {advice}"
        )

    def broken(self, request: Request, problem: str) -> ShardtoolError:
        """Return the error that says: an answer, but not InfluxDB's."""
        return ShardtoolError(
            f"{self.url}{request.path}: expected the JSON of InfluxDB 0.8, found "
            f"{self.shown(problem)}: see the server's log, or try again"
        )

    def found(self, answer: Answer) -> str:
        """Return status and text of an answer as a message may show them."""
        return f"status {answer.status} '{self.shown(answer.text)}'"

    def shown(self, text: str) -> str:
        """Return text of a server as a message may show it: one line, short, without a secret."""
        for secret in self._secrets:
            text = _without(secret, text)
        line = "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))
        return line if len(line) <= 160 else line[:157] + "..."


def _spellings(user: str, password: str) -> tuple[str, ...]:
    """Return how a password may come back from a server: as it was sent, plain, and escaped."""
    sent = b64encode(f"{user}:{password}".encode()).decode()
    if not password:
        return (sent,)
    return sent, password, quote(password, safe=""), json.dumps(password)[1:-1]


def _without(secret: str, text: str) -> str:
    """Return a text without a secret, and without the beginning of one at its end: the text may be
    a piece of what the server sent, in quotes."""
    text = text.replace(secret, "...")
    bare = text.rstrip("'")
    for length in range(len(secret) - 1, _TELLING - 1, -1):
        if bare.endswith(secret[:length]):
            return f"{bare[:-length]}...{text[len(bare) :]}"
    return text


def _authorities(url: str) -> ssl.SSLContext | None:
    """Return the system's authorities and no others; http has none, and loading them takes time.

    Raises:
        UsageError: what the environment says of TLS can't be done.
    """
    if not url.startswith("https:"):
        return None
    import ssl

    try:
        return ssl.create_default_context()
    except OSError as error:
        path = os.environ.get("SSLKEYLOGFILE", "")
        raise UsageError(
            f"{path}: expected a file for the keys of TLS (SSLKEYLOGFILE), found: "
            f"{reason_of(error)}"
        ) from None


def _read(response: httpx.Response, limit: int, deadline: Deadline) -> bytes | None:
    """Return a body, None where it is longer than `limit`; no more than that is read.

    What has come earns it more time, so a long answer ends as it should on a slow line, and one
    that drips does not.
    """
    if not limit:
        return None
    body = bytearray()
    for chunk in response.iter_raw():
        body += chunk
        if len(body) > limit:
            return None
        deadline.extend(len(chunk) / _SLOWEST)
    return bytes(body)
