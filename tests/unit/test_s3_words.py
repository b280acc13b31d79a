"""What an S3 store is called, how it is reached, and what its failures are called."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from shardtool.errors import ShardtoolError, UsageError
from shardtool.snapshots.address import Address, place_of, problem_with_key
from shardtool.snapshots.remote.failures import failure_of
from tests.unit.settings_world import settings, write

SECRET = "s3cr3t/of+the=test"


# -- the URL --


def test_a_url_is_a_bucket_and_a_prefix() -> None:
    assert place_of("s3://bucket/a/b/") == Address("bucket", "a/b")
    assert str(Address("bucket", "a/b") / "c") == "s3://bucket/a/b/c"
    assert str(place_of("s3://bucket")) == str(place_of("s3://bucket/")) == "s3://bucket"
    assert str(Address("bucket", "") / "c") == "s3://bucket/c"
    assert str(place_of("s3://bucket/X/")) == "s3://bucket/X"


def test_everything_else_is_a_directory() -> None:
    assert place_of("s3:/a") == Path("s3:/a").absolute()


@pytest.mark.parametrize(
    "url",
    [
        "s3://",
        "s3:///a",
        "s3://ab",
        "s3://-bucket/a",
        "s3://bucket/a//b",
        "s3://bucket/../b",
        "s3://bucket/a?X-Amz-Signature=1",
        "s3://bucket/a#b",
        "s3://bucket/a\x1b[31m",
        "s3://bucket/" + "a" * 513,
        "s3://bucket:9000/a",
        "gs://bucket/a",
        "https://bucket/a",
    ],
)
def test_a_url_that_can_not_be_meant_is_refused(url: str) -> None:
    with pytest.raises(UsageError) as error:
        place_of(url)
    assert "Signature" not in str(error.value)


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("s3://buc", Address("buc", "")),
        ("s3://" + "b" * 255, Address("b" * 255, "")),
        ("s3://My_old.bucket-1/a.b/..c", Address("My_old.bucket-1", "a.b/..c")),
        ("s3://bucket/a b@c:d", Address("bucket", "a b@c:d")),
        ("s3://bucket/" + "a" * 512, Address("bucket", "a" * 512)),
        ("s3://bucket/" + "é" * 256, Address("bucket", "é" * 256)),
    ],
    ids=["3 letters", "255 letters", "an old one's", "signs", "512 bytes", "512 bytes of letters"],
)
def test_a_url_may_be_as_long_and_as_odd_as_s3_has_it(url: str, place: Address) -> None:
    assert place_of(url) == place


NO_BUCKET = (
    "the snapshot store's URL is s3://BUCKET/PREFIX, found no bucket's name in it "
    "(3 to 255 letters, digits, dots and dashes)"
)
A_USER = (
    "the snapshot store's URL is s3://BUCKET/PREFIX, found a user or a port in it; "
    "credentials and AWS_ENDPOINT_URL come from the environment or ~/.aws"
)
A_SCHEME = "a snapshot store is a directory or s3://BUCKET/PREFIX, found "
NO_PREFIX = "s3://bucket/...: expected a prefix of plain names, found "
OPTIONS = NO_PREFIX + "a '?' or '#' in it; options go into the environment"
DOTS = NO_PREFIX + "an empty part, '.' or '..'"


@pytest.mark.parametrize(
    ("url", "line"),
    [
        ("gs://bucket/a", A_SCHEME + "gs://"),
        ("S3://bucket/a", A_SCHEME + "S3://"),
        ("s3:///a", NO_BUCKET),
        ("s3://" + "b" * 256, NO_BUCKET),
        ("s3://bucket-/a", NO_BUCKET),
        ("s3://büro/a", NO_BUCKET),
        ("s3://bucket?a", NO_BUCKET),
        ("s3://user@bucket/a", A_USER),
        ("s3://bucket:9000/a", A_USER),
        ("s3://bucket/a?b", OPTIONS),
        ("s3://bucket/a#b", OPTIONS),
        ("s3://bucket/a//b", DOTS),
        ("s3://bucket//b", DOTS),
        ("s3://bucket/a//", DOTS),
        ("s3://bucket/./b", DOTS),
        ("s3://bucket/a/.", DOTS),
        ("s3://bucket/a/../b", DOTS),
        ("s3://bucket/a/..", DOTS),
        ("s3://bucket/a\nb", NO_PREFIX + "a character that can't be shown"),
        ("s3://bucket/a\udcff", NO_PREFIX + "a character that can't be shown"),
        ("s3://bucket/" + "a" * 513, NO_PREFIX + "more than 512 bytes"),
        ("s3://bucket/" + "é" * 256 + "a", NO_PREFIX + "more than 512 bytes"),
    ],
)
def test_what_is_wrong_with_a_url_is_told(url: str, line: str) -> None:
    with pytest.raises(UsageError) as error:
        place_of(url)
    assert str(error.value) == line


@pytest.mark.parametrize("user", ["key:s3cr3t@", "s3cr3t@"])
def test_a_password_in_a_url_is_refused_and_not_repeated(user: str) -> None:
    with pytest.raises(UsageError, match="found a user or a port in it") as error:
        place_of(f"s3://{user}bucket/a")
    assert "s3cr3t" not in str(error.value)


@pytest.mark.parametrize("sign", ["\0", "\x1f", "\n", "\x7f", "\ufffe", "\uffff"], ids=ascii)
def test_an_object_has_no_sign_in_its_name_that_a_listing_can_not_carry(sign: str) -> None:
    place = Address("bucket", "a") / f"b{sign}c"
    assert problem_with_key(place) == "a control character in its name"


def test_an_objects_key_has_1024_bytes_at_most_with_what_it_lies_below() -> None:
    longest = Address("bucket", "é") / ("é" * 510 + "a")
    assert problem_with_key(longest) == ""
    assert problem_with_key(Address("bucket", longest.prefix + "a")) == (
        "a key of more than 1,024 bytes"
    )


# -- the settings --


def test_keys_come_from_the_shared_file(home: Path) -> None:
    write(
        home,
        "credentials",
        f"[default]\naws_access_key_id = AKIA\naws_secret_access_key={SECRET}%x\n"
        "[other]\naws_access_key_id = NO\n",
    )
    write(home, "config", "[default]\nregion = eu-west-1\ns3 =\n  max_concurrent_requests = 2\n")

    found = settings(home)

    assert found.config == {
        "checksum_algorithm": "SHA256",
        "region": "eu-west-1",
        "access_key_id": "AKIA",
        "secret_access_key": SECRET + "%x",
    }
    assert SECRET not in repr(found)


def test_a_profile_is_chosen_by_the_environment(home: Path) -> None:
    write(home, "config", "[profile far]\nregion = ap-south-1\nendpoint_url = http://minio:9000/\n")
    write(
        home,
        "credentials",
        "[far]\naws_access_key_id=A\naws_secret_access_key=B\naws_session_token=C\n",
    )

    found = settings(home, AWS_PROFILE="far")

    assert found.config["session_token"] == "C"
    assert found.config["endpoint"] == "http://minio:9000"
    assert found.client["allow_http"] is True


def test_the_environment_goes_before_the_files(home: Path) -> None:
    write(home, "credentials", "[default]\naws_access_key_id=A\naws_secret_access_key=B\n")
    write(home, "config", "[default]\nregion = eu-west-1\nendpoint_url = http://minio\n")

    found = settings(
        home,
        AWS_ACCESS_KEY_ID="X",
        AWS_SECRET_ACCESS_KEY=SECRET,
        AWS_DEFAULT_REGION="us-west-2",
        AWS_ENDPOINT_URL="https://s3.example",
    )

    assert "access_key_id" not in found.config  # obstore reads the environment itself
    assert found.config["region"] == "us-west-2"
    assert found.config["endpoint"] == "https://s3.example"
    assert "allow_http" not in found.client


def test_files_may_lie_elsewhere(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("[default]\naws_access_key_id=A\naws_secret_access_key=B\n")

    assert settings(home, AWS_SHARED_CREDENTIALS_FILE=str(file)).config["access_key_id"] == "A"


def test_a_command_may_tell_credentials(home: Path) -> None:
    told = {
        "Version": 1,
        "AccessKeyId": "A",
        "SecretAccessKey": SECRET,
        "Expiration": "2026-11-26T21:00:00Z",
    }
    write(home, "told.json", json.dumps(told))
    write(home, "config", f"[default]\ncredential_process = cat '{home}/.aws/told.json'\n")

    provider = settings(home).provider

    assert provider is not None
    for _ in range(2):
        assert provider()["secret_access_key"] == SECRET


@pytest.mark.parametrize("command", ["false", "echo no", "echo '{}'", "/nonexistent", "'"])
def test_a_command_that_tells_nothing_is_told(home: Path, command: str) -> None:
    write(home, "config", f"[default]\ncredential_process = {command} {SECRET}\n")

    with pytest.raises(ShardtoolError, match="run it by hand") as error:
        settings(home)
    assert SECRET not in str(error.value)


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({"AWS_ACCESS_KEY_ID": "A"}, "found no aws_secret_access_key"),
        ({"AWS_SECRET_ACCESS_KEY": SECRET}, "found no aws_access_key_id"),
        (
            {"AWS_ACCESS_KEY_ID": "A", "AWS_SECRET_ACCESS_KEY": SECRET + "\n"},
            "printable characters",
        ),
        ({"AWS_PROFILE": "nowhere"}, "found none named 'nowhere'"),
        ({"AWS_ENDPOINT_URL": "nonsense"}, "expected https://HOST"),
        ({"AWS_ENDPOINT_URL": f"https://user:{SECRET}@host"}, "expected https://HOST"),
        ({"AWS_ENDPOINT_URL": "ftp://host"}, "expected https://HOST"),
        ({"AWS_ENDPOINT_URL": "https://host:70000"}, "expected https://HOST"),
        ({"AWS_REGION": "a b"}, "AWS_REGION"),
        ({"AWS_EC2_METADATA_DISABLED": "true"}, "no credentials"),
        ({"AWS_CA_BUNDLE": "/nonexistent"}, "/nonexistent: expected to read it"),
        ({"AWS_CONFIG_FILE": "~nosuchuser/x"}, "AWS_CONFIG_FILE: expected a file, found '~nosuch"),
        ({"AWS_CONFIG_FILE": "/" + "x" * 300}, "expected to read it (an AWS file), found: File na"),
        ({"AWS_SHARED_CREDENTIALS_FILE": "/"}, "/: expected to read it (an AWS file), found: Is a"),
    ],
)
def test_a_setting_that_can_not_be_used_is_told_in_one_line(
    home: Path, environment: dict[str, str], told: str
) -> None:
    with pytest.raises(ShardtoolError) as error:
        settings(home, **environment)
    assert told in str(error.value)
    assert SECRET not in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("way", ["role_arn = arn:aws:iam::1:role/a", "sso_session = a"])
def test_what_only_awss_own_tools_follow_is_told(home: Path, way: str) -> None:
    write(home, "config", f"[default]\n{way}\n")

    with pytest.raises(ShardtoolError, match="aws configure export-credentials"):
        settings(home)


@pytest.mark.parametrize(
    "content",
    [
        b"aws_secret_access_key = s3cr3t\n",
        b"\xff\xfe",
        b"[a",
        b"[default]\naws_secret_access_key\n  s3cr3t\n",  # found by fuzzing
    ],
)
def test_a_file_that_is_none_is_told_without_its_content(home: Path, content: bytes) -> None:
    (home / ".aws" / "credentials").write_bytes(content)

    with pytest.raises(ShardtoolError, match=r"expected \[sections\]") as error:
        settings(home)
    assert "s3cr3t" not in str(error.value)


def test_a_file_that_can_not_be_read_is_told(home: Path) -> None:
    (home / ".aws" / "credentials").mkdir()

    with pytest.raises(ShardtoolError, match="Is a directory"):
        settings(home)


# -- the failures --


@pytest.mark.parametrize(
    ("kind", "text", "what", "transient"),
    [
        ("GenericError", "... PUT http://169.254.169.254/latest/api/token in", "no cred", False),
        ("FileNotFoundError", "404: <Code>NoSuchBucket</Code>", "no such bucket", False),
        ("PermissionDeniedError", "status code: 403 <Code>AccessDenied</Code>", "access", False),
        ("PermissionDeniedError", "403 <Code>SignatureDoesNotMatch</Code>", "the cred", False),
        ("GenericError", "redirect without LOCATION, this", "the bucket is in another", False),
        ("GenericError", "400 <Code>AuthorizationHeaderMalformed</Code>", "the bucket", False),
        ("GenericError", 'message: "Connection refused"', "nobody listens", True),
        ("GenericError", '"dns error"', "no such host", True),
        ("GenericError", "invalid peer certificate: UnknownIssuer", "no TLS", False),
        ("GenericError", "kind: Timeout", "no answer in time", True),
        ("GenericError", "source: BadScheme", "an http:// endpoint", False),
        ("GenericError", "status code: 503 <Code>SlowDown</Code>", "HTTP 503 SlowDown", True),
        ("GenericError", "status code: 400 <Code>Odd</Code>", "HTTP 400 Odd", False),
        ("GenericError", "failed for key a: no (code: AccessDenied)", "access denied", False),
        ("GenericError", "failed for key a: no (code: SlowDown)", "SlowDown", True),
        ("GenericError", "failed for key a: no (code: ObjectLocked)", "ObjectLocked", False),
        ("InvalidPathError", 'path "\x1b[31m"', "an object whose name", False),
        ("GenericError", "?X-Amz-Signature=1", "a failure of obstore", False),
    ],
)
def test_a_failure_is_told_in_words_of_ours(
    kind: str, text: str, what: str, transient: bool
) -> None:
    found = failure_of(kind, text)

    assert found.what.startswith(what)
    assert found.transient is transient
    assert "X-Amz" not in found.what + found.advice
    assert (found.what + found.advice).isprintable()
