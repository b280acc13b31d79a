"""How to reach an S3 server and as whom: the environment, then ~/.aws's files.

obstore itself reads AWS_* variables and the roles of machines, containers and web identities;
here is what it does not read: the shared files, AWS_PROFILE, AWS_CA_BUNDLE. Nothing of a
secret's value is ever in a message.
"""

from __future__ import annotations

import configparser
import json
import re
import shlex
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from shardtool import __version__
from shardtool.errors import ShardtoolError, reason_of
from shardtool.snapshots.remote.failures import NAME_CREDENTIALS

if TYPE_CHECKING:
    from obstore.store import ClientConfig, S3Config, S3Credential

_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
_REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")
_KEYS: Mapping[str, Literal["access_key_id", "secret_access_key", "session_token"]] = {
    "aws_access_key_id": "access_key_id",
    "aws_secret_access_key": "secret_access_key",
    "aws_session_token": "session_token",
}
# What lends credentials to a whole machine or container; obstore asks there.
_ROLES = (
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)
# A profile's ways to credentials that only AWS's own tools go.
_OTHER_WAYS = ("role_arn", "sso_session", "sso_start_url", "credential_source", "login_session")
_HEADER_VALUE = re.compile(r"[\x21-\x7e]+", re.ASCII)
_MOST_BYTES = 1 << 20
_PROCESS_SECONDS = 60


@dataclass(frozen=True)
class Settings:
    """What obstore is told; printing it shows no secret.

    Args:
        config: of the server, and keys where a file had them.
        client: of the connection.
        provider: returns credentials that expire, where a profile's command makes them.
    """

    config: S3Config = field(repr=False)
    client: ClientConfig = field(repr=False)
    provider: Callable[[], S3Credential] | None = None


def find_settings(environment: Mapping[str, str]) -> Settings:
    """Given the environment, return what obstore is told beyond what it reads there itself.

    Raises:
        ShardtoolError: a setting can't be used, or it is certain that there are no credentials.
    """
    profile = _profile(environment)
    config: S3Config = {}
    if not _first(environment, ("AWS_CHECKSUM_ALGORITHM",)):
        # S3 compares it with what arrived, part by part, and keeps it with the object.
        config["checksum_algorithm"] = "SHA256"
    region = _first(environment, _REGIONS) or profile.get("region", "")
    if region:
        if not re.fullmatch(r"[A-Za-z0-9-]{1,40}", region, re.ASCII):
            raise ShardtoolError(
                "AWS_REGION: expected a region's name as us-east-1, found something else"
            )
        config["region"] = region
    endpoint = _first(environment, _ENDPOINTS) or profile.get("endpoint_url", "")
    if endpoint:
        config["endpoint"] = _checked_endpoint(endpoint)
    client: ClientConfig = {"user_agent": f"shardtool/{__version__}"}
    # Whoever writes http:// into the endpoint has allowed it; nothing else leads there.
    if endpoint.lower().startswith("http://"):
        client["allow_http"] = True
    if bundle := environment.get("AWS_CA_BUNDLE"):
        client["root_certificate"] = _content(Path(bundle), "AWS_CA_BUNDLE")
    return Settings(config, client, _credentials(environment, profile, config))


def _first(environment: Mapping[str, str], names: tuple[str, ...]) -> str:
    return next((environment[name] for name in names if environment.get(name)), "")


def _checked_endpoint(endpoint: str) -> str:
    try:
        parts = urlsplit(endpoint)
        sound = (
            _HEADER_VALUE.fullmatch(endpoint) is not None
            and parts.scheme in ("http", "https")
            and bool(parts.hostname)
            and parts.port != 0
            and not (parts.username or parts.password or parts.query or parts.fragment)
        )
    except ValueError:
        sound = False
    if not sound:
        raise ShardtoolError(
            "AWS_ENDPOINT_URL: expected https://HOST or https://HOST:PORT, found something else"
        )
    return endpoint.rstrip("/")


def _credentials(
    environment: Mapping[str, str], profile: Mapping[str, str], config: S3Config
) -> Callable[[], S3Credential] | None:
    """Put the profile's keys into `config` where the environment has none.

    Raises:
        ShardtoolError: there are half a pair, none, or some that only AWS's tools can get.
    """
    named = [environment.get(name.upper(), "") for name in _KEYS]
    skipped = environment.get("AWS_SKIP_SIGNATURE", "").lower() in ("1", "true", "yes", "on")
    if skipped:
        return None
    if any(named[:2]):
        _check_keys(dict(zip(_KEYS, named, strict=True)), "the environment")
        return None
    keys = {name: profile[name] for name in _KEYS if profile.get(name)}
    if "aws_access_key_id" in keys or "aws_secret_access_key" in keys:
        _check_keys(keys, "the profile")
        for name, key in _KEYS.items():
            if name in keys:
                config[key] = keys[name]
        return None
    if command := profile.get("credential_process"):
        return _Asked(command, _from_process(command))
    if any(environment.get(name) for name in _ROLES):
        return None
    if way := next((way for way in _OTHER_WAYS if profile.get(way)), None):
        raise ShardtoolError(
            f"the AWS profile: expected keys or credential_process, found {way}, which only "
            'AWS\'s own tools follow; run: eval "$(aws configure export-credentials --format env)"'
        )
    if environment.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true":
        raise ShardtoolError(f"found no credentials for s3://; {NAME_CREDENTIALS}")
    return None


def _check_keys(keys: Mapping[str, str], where: str) -> None:
    for name in ("aws_access_key_id", "aws_secret_access_key"):
        if not keys.get(name):
            raise ShardtoolError(
                f"{where}: expected both keys, found no {name}; {NAME_CREDENTIALS}"
            )
    for name, key in keys.items():
        if key and not _HEADER_VALUE.fullmatch(key):
            raise ShardtoolError(
                f"{where}: expected a key of printable characters in {name}, found others"
            )


def _profile(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the profile's settings of both files, those of the credentials file first.

    Raises:
        ShardtoolError: AWS_PROFILE names none, or a file can't be read.
    """
    named = _first(environment, ("AWS_PROFILE", "AWS_DEFAULT_PROFILE"))
    name = named or "default"
    home = Path(environment.get("HOME") or "/nonexistent", ".aws")
    files = {
        _named(environment, "AWS_CONFIG_FILE", home / "config"): (
            f"profile {name}",
            *(("default",) if name == "default" else ()),
        ),
        _named(environment, "AWS_SHARED_CREDENTIALS_FILE", home / "credentials"): (name,),
    }
    found: dict[str, str] = {}
    known = False
    for file, sections in files.items():
        parser = _parsed(file)
        for section in sections:
            if parser.has_section(section):
                known = True
                found |= {key: value.strip() for key, value in parser.items(section) if value}
    if named and not known:
        raise ShardtoolError(
            f"AWS_PROFILE: expected a profile of {' or '.join(map(str, files))}, "
            f"found none named {named!r}"
        )
    return found


def _named(environment: Mapping[str, str], variable: str, default: Path) -> Path:
    name = environment.get(variable)
    if not name:
        return default
    try:
        return Path(name).expanduser()
    except RuntimeError:
        raise ShardtoolError(
            f"{variable}: expected a file, found {name!r}, and no home of that user"
        ) from None


def _parsed(file: Path) -> configparser.RawConfigParser:
    # No section lends its keys to others here, and a % is a %.
    parser = configparser.RawConfigParser(
        default_section="\0", strict=False, allow_no_value=True, empty_lines_in_values=False
    )
    try:
        parser.read_string(_content(file, "an AWS file", may_miss=True).decode())
    except (configparser.Error, UnicodeDecodeError, AttributeError):
        # Their text repeats the line, which may be a key. The last of them is what Python 3.11
        # makes of an indented line behind a name without a value.
        raise ShardtoolError(
            f"{file}: expected [sections] of 'name = value', found something else"
        ) from None
    return parser


def _content(file: Path, what: str, *, may_miss: bool = False) -> bytes:
    try:
        with file.open("rb") as stream:
            return stream.read(_MOST_BYTES)
    except OSError as error:
        if may_miss and isinstance(error, FileNotFoundError | NotADirectoryError):
            return b""
        raise ShardtoolError(
            f"{file}: expected to read it ({what}), found: {reason_of(error)}"
        ) from None


class _Asked:
    """What a credential_process told; it is asked again when that expires."""

    def __init__(self, command: str, told: S3Credential) -> None:
        self._command = command
        self._told: S3Credential | None = told

    def __call__(self) -> S3Credential:
        told, self._told = self._told, None
        return told or _from_process(self._command)


def _from_process(command: str) -> S3Credential:
    """Run a profile's credential_process, which its owner wrote, and return what it tells.

    Raises:
        ShardtoolError: it fails or tells something else.
    """
    try:
        done = subprocess.run(
            shlex.split(command),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PROCESS_SECONDS,
            check=True,
        )
        told: dict[str, Any] = json.loads(done.stdout)
        keys = {
            "aws_access_key_id": told["AccessKeyId"],
            "aws_secret_access_key": told["SecretAccessKey"],
            "aws_session_token": told.get("SessionToken") or "",
        }
        expires = told.get("Expiration")
        until = datetime.fromisoformat(expires) if expires else None
        _check_keys(keys, "credential_process")
    except (OSError, ValueError, KeyError, TypeError, subprocess.SubprocessError):
        # Neither the command nor what it said is repeated: both may hold secrets.
        raise ShardtoolError(
            "the AWS profile's credential_process: expected credentials as JSON, found that it "
            "fails or tells something else; run it by hand"
        ) from None
    if until is not None and until.tzinfo is None:
        until = until.replace(tzinfo=UTC)
    return {
        "access_key_id": keys["aws_access_key_id"],
        "secret_access_key": keys["aws_secret_access_key"],
        "token": keys["aws_session_token"] or None,
        "expires_at": until,
    }
