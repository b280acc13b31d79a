"""Whom to log in as, with which password, on which URL. A password is never shown or logged."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from shardtool.errors import UsageError, reason_of
from shardtool.words import is_utf8

PASSWORD, PASSWORD_FILE = "SHARDTOOL_PASSWORD", "SHARDTOOL_PASSWORD_FILE"
_LONGEST_PASSWORD = 4096


class Credentials(NamedTuple):
    """A user and a password; printing it shows no password."""

    user: str
    password: str

    def __repr__(self) -> str:
        """Return the user alone."""
        return f"Credentials(user={self.user!r}, password=...)"


def credentials(
    user_option: str | None, environment: Mapping[str, str], *, password_file: str | None = None
) -> Credentials:
    """Return whom to log in as, and the password, asked for on the terminal at the last.

    Args:
        user_option: what --user says, root without it.
        environment: os.environ; the password is in SHARDTOOL_PASSWORD, or in the file that
            SHARDTOOL_PASSWORD_FILE names.
        password_file: what --password-file says; it goes before the environment.

    Raises:
        UsageError: there is no password, or one that can't be sent.
    """
    user = user_option or "root"
    if password_file is not None:
        password = _password_in(Path(password_file), "--password-file")
    elif given := environment.get(PASSWORD):
        password = given
    elif path := environment.get(PASSWORD_FILE):
        password = _password_in(Path(path), PASSWORD_FILE)
    elif sys.stdin is not None and sys.stdin.isatty():
        password = _ask_for_password(user)
    else:
        raise UsageError(
            f"no password for the user {user!r}: set {PASSWORD}, or {PASSWORD_FILE} to a file "
            "that holds it, or run this on a terminal to be asked"
        )
    if not (is_utf8(user) and is_utf8(password)):
        raise UsageError(
            "the user's name or password is no UTF-8, so it can't be sent: check the terminal's "
            f"encoding, --user and {PASSWORD}"
        )
    # getUsernameAndPassword (api/http/api.go) takes what is not exactly two parts for an error.
    if ":" in user or ":" in password:
        raise UsageError(
            "the user's name or password holds a colon, which InfluxDB 0.8 can't read from an "
            "Authorization header: give that user another, or make a user for this"
        )
    return Credentials(user, password)


def _password_in(path: Path, named_by: str) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(_LONGEST_PASSWORD + 1)
    except (OSError, ValueError) as error:
        reason = reason_of(error) if isinstance(error, OSError) else "no file's name"
        raise UsageError(f"{path}: expected the password ({named_by}), found: {reason}") from None
    try:
        password = content.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        password = ""
    if not password or len(content) > _LONGEST_PASSWORD or "\n" in password:
        # None of the content: it may be a password all the same.
        raise UsageError(
            f"{path}: expected one line of UTF-8, the password ({named_by}), found "
            f"{'nothing' if not content else 'something else'}: write it there"
        )
    return password


def _ask_for_password(user: str) -> str:
    from getpass import getpass

    try:
        return getpass(f"Password of the InfluxDB user {user}: ")
    except EOFError:
        raise UsageError(f"no password for the user {user!r}: the input ended") from None
    except UnicodeDecodeError:  # it holds what was typed
        raise UsageError("the password that was typed is no UTF-8: it can't be sent") from None


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
    printable = text.isprintable() and " " not in text and "\\" not in text
    if not (usable and printable and _has_host(text)):
        raise UsageError(f"{text!a} is no URL of an API: {expected}")
    return text.rstrip("/")


def _has_host(url: str) -> bool:
    """Return whether the host of a URL is one that can be asked for: sound labels, all short."""
    import httpx

    try:
        parts = httpx.URL(url)
        # Both are what happens on the way to an address, and fail in ways of their own there.
        return bool(parts.host) and bool(parts.raw_host.decode("ascii").encode("idna"))
    except (httpx.InvalidURL, UnicodeError):
        return False
