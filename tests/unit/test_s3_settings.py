"""What obstore is told of a server and of who asks: all of it, and nothing that can't be meant."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from shardtool import __version__
from shardtool.errors import ShardtoolError
from shardtool.snapshots.remote import settings as module
from shardtool.snapshots.remote.failures import NAME_CREDENTIALS
from shardtool.snapshots.remote.settings import Settings
from tests.unit.settings_world import settings, write

KEYS = "aws_access_key_id=A\naws_secret_access_key=B\n"


def refused(home: Path, **environment: str) -> str:
    with pytest.raises(ShardtoolError) as error:
        settings(home, **environment)
    return str(error.value)


# -- the server --


def test_a_checksum_is_sent_unless_another_one_is_named(home: Path) -> None:
    assert settings(home).config == {"checksum_algorithm": "SHA256"}
    assert settings(home, AWS_CHECKSUM_ALGORITHM="CRC32").config == {}


def test_the_server_is_told_who_asks(home: Path) -> None:
    assert settings(home).client == {"user_agent": f"shardtool/{__version__}"}


def test_a_ca_of_ones_own_is_handed_on(home: Path, tmp_path: Path) -> None:
    (tmp_path / "ca").write_bytes(b"a certificate")
    found = settings(home, AWS_CA_BUNDLE=str(tmp_path / "ca"))
    assert found.client["root_certificate"] == b"a certificate"
    assert refused(home, AWS_CA_BUNDLE=str(tmp_path / "none")) == (
        f"{tmp_path / 'none'}: expected to read it (AWS_CA_BUNDLE), found: "
        "No such file or directory"
    )


@pytest.mark.parametrize(
    "endpoint",
    [
        "https://host:0",
        "https://user@host",
        "https://:password@host",
        "https://user:password@host",
        "https://host?query",
        "https://host#fragment",
        "https://host?query#fragment",
        "https://",
    ],
)
def test_an_endpoint_is_a_scheme_a_host_and_a_port(endpoint: str, home: Path) -> None:
    assert refused(home, AWS_ENDPOINT_URL=endpoint) == (
        "AWS_ENDPOINT_URL: expected https://HOST or https://HOST:PORT, found something else"
    )


@pytest.mark.parametrize(
    ("endpoint", "told"),
    [
        ("https://host:1", "https://host:1"),
        ("https://host/", "https://host"),
        ("https://hostX", "https://hostX"),
    ],
)
def test_an_endpoint_is_told_without_its_last_slash(endpoint: str, told: str, home: Path) -> None:
    assert settings(home, AWS_ENDPOINT_URL=endpoint).config["endpoint"] == told


# -- who asks --


@pytest.mark.parametrize("word", ["1", "true", "yes", "on", "TRUE"])
def test_who_asks_without_a_signature_needs_no_keys(word: str, home: Path) -> None:
    write(home, "credentials", "[default]\naws_access_key_id=A\n")
    found = settings(home, AWS_SKIP_SIGNATURE=word, AWS_ACCESS_KEY_ID="half")
    assert found.config == {"checksum_algorithm": "SHA256"}
    assert found.provider is None


def test_a_token_alone_is_nobodys_credentials(home: Path) -> None:
    write(home, "credentials", f"[default]\n{KEYS}")
    assert settings(home, AWS_SESSION_TOKEN="T").config["access_key_id"] == "A"


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ("aws_access_key_id", "aws_secret_access_key"),
        ("aws_secret_access_key", "aws_access_key_id"),
    ],
)
def test_half_a_pair_in_a_profile_is_told(given: str, missing: str, home: Path) -> None:
    write(home, "credentials", f"[default]\n{given} = A\n")
    assert refused(home) == (
        f"the profile: expected both keys, found no {missing}; {NAME_CREDENTIALS}"
    )


@pytest.mark.parametrize(
    "role",
    [
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    ],
)
def test_a_role_of_the_machine_goes_before_what_can_not_be_followed(role: str, home: Path) -> None:
    write(home, "config", "[default]\nrole_arn = arn:aws:iam::1:role/a\n")
    found = settings(home, **{role: "/a", "AWS_EC2_METADATA_DISABLED": "true"})
    assert found.provider is None


# -- the files --


def test_a_profile_may_be_named_by_the_older_variable(home: Path) -> None:
    write(home, "credentials", f"[far]\n{KEYS}")
    assert settings(home, AWS_DEFAULT_PROFILE="far").config["access_key_id"] == "A"


def test_of_another_profile_the_default_is_no_part(home: Path) -> None:
    write(home, "config", "[default]\nregion = eu-west-1\n[profile far]\noutput = json\n")
    assert "region" not in settings(home, AWS_PROFILE="far").config
    assert "found none named 'near'" in refused(home, AWS_PROFILE="near")


def test_a_section_lends_its_keys_to_no_other(home: Path) -> None:
    write(home, "config", "[DEFAULT]\nregion = eu-west-1\n[default]\noutput = json\n")
    assert "region" not in settings(home).config


def test_what_is_there_twice_is_what_it_is_at_last(home: Path) -> None:
    write(home, "config", "[default]\nregion = a\n[other]\n[default]\nregion = b\nregion = c\n")
    assert settings(home).config["region"] == "c"


def test_a_name_without_a_value_is_nothing(home: Path) -> None:
    write(home, "config", "[default]\noutput\nregion = a\n")
    assert settings(home).config["region"] == "a"


def test_an_empty_line_ends_a_value(home: Path) -> None:
    write(home, "config", "[default]\nregion = a\n\n  output = json\n")
    assert settings(home).config["region"] == "a"


# -- a profile's command --


def telling(home: Path, document: dict[str, Any], more: str = "") -> Settings:
    """Find the settings where a profile's command tells `document`."""
    write(home, "told", json.dumps(document))
    script = home / "tell"
    script.write_text(f"#!/bin/sh\ncat {home}/.aws/told\n{more}\n")
    script.chmod(0o755)
    write(home, "config", f"[default]\ncredential_process = {script}\n")
    return settings(home)


@pytest.mark.parametrize(
    ("more", "token", "until"),
    [
        ({}, None, None),
        ({"SessionToken": "T"}, "T", None),
        (
            {"Expiration": "2026-11-26T21:00:00+01:00"},
            None,
            datetime(2026, 11, 26, 20, tzinfo=UTC),
        ),
        ({"Expiration": "2026-11-26T21:00:00"}, None, datetime(2026, 11, 26, 21, tzinfo=UTC)),
    ],
    ids=["keys", "a token", "an hour of a zone", "an hour"],
)
def test_what_a_command_tells_is_handed_on(
    more: dict[str, str], token: str | None, until: datetime | None, home: Path
) -> None:
    provider = telling(home, {"AccessKeyId": "A", "SecretAccessKey": "B", **more}).provider
    assert provider is not None
    assert provider() == {
        "access_key_id": "A",
        "secret_access_key": "B",
        "token": token,
        "expires_at": until,
    }


def test_a_command_that_fails_is_not_believed(home: Path) -> None:
    with pytest.raises(ShardtoolError, match="fails or tells something else; run it by hand"):
        telling(home, {"AccessKeyId": "A", "SecretAccessKey": "B"}, "exit 1")


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        (
            {"AccessKeyId": "A", "SecretAccessKey": ""},
            "credential_process: expected both keys, found no aws_secret_access_key; "
            + NAME_CREDENTIALS,
        ),
        (
            {"AccessKeyId": "A", "SecretAccessKey": "B\n"},
            "credential_process: expected a key of printable characters in "
            "aws_secret_access_key, found others",
        ),
    ],
    ids=["half", "a line break"],
)
def test_keys_that_are_none_are_told(keys: dict[str, str], line: str, home: Path) -> None:
    with pytest.raises(ShardtoolError) as error:
        telling(home, keys)
    assert str(error.value) == line


@contextlib.contextmanager
def as_stdin(path: Path) -> Iterator[None]:
    """Have something as stdin that is not /dev/null, which pytest puts there."""
    before, other = os.dup(0), os.open(path, os.O_RDONLY)
    os.dup2(other, 0)
    try:
        yield
    finally:
        os.dup2(before, 0)
        os.close(before)
        os.close(other)


def test_a_command_is_waited_for_a_while_and_has_no_terminal(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = {"AccessKeyId": "A", "SecretAccessKey": "B"}
    run = subprocess.run
    asked: list[dict[str, Any]] = []

    def noted(command: list[str], **options: Any) -> subprocess.CompletedProcess[bytes]:
        asked.append(options)
        return run(command, **options)

    monkeypatch.setattr(subprocess, "run", noted)
    with as_stdin(home / ".aws"):
        telling(home, keys, f"readlink /proc/self/fd/0 > {home}/stdin")
    assert (home / "stdin").read_text() == "/dev/null\n"
    assert [options["timeout"] for options in asked] == [60]


def test_a_command_that_does_not_end_is_told(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PROCESS_SECONDS", 0.1)
    with pytest.raises(ShardtoolError, match="run it by hand"):
        telling(home, {"AccessKeyId": "A", "SecretAccessKey": "B"}, "exec sleep 1")
