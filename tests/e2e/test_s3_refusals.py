"""What a setting, a server or a name has wrong: one line that says what to do."""

from __future__ import annotations

import os
import re
import ssl

import pytest
import trustme

from tests.conftest import Mount
from tests.e2e.s3_proxy import Request, proxied
from tests.e2e.s3_world import S3World


@pytest.mark.parametrize(
    ("env", "told"),
    [
        ({"AWS_ENDPOINT_URL": "nonsense"}, "AWS_ENDPOINT_URL: expected https://HOST"),
        ({"AWS_PROFILE": "nobody"}, "found none named 'nobody'"),
        (
            {"AWS_ACCESS_KEY_ID": "", "AWS_EC2_METADATA_DISABLED": "true"},
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        ),
        ({"AWS_CA_BUNDLE": "/nonexistent.pem"}, "/nonexistent.pem: expected to read it"),
        ({"TMPDIR": "/nonexistent"}, "/nonexistent: expected to make a directory in it"),
        ({"AWS_SERVER_SIDE_ENCRYPTION": "rot13"}, "expected AWS_* settings that obstore"),
    ],
)
def test_a_setting_that_is_wrong_is_one_line(s3: S3World, env: dict[str, str], told: str) -> None:
    s3.env.update(env)

    done = s3.backup()

    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert told in done.stderr
    assert s3.is_clean()


def test_a_bucket_that_is_not_there_is_one_line(s3: S3World) -> None:
    done = s3.run("--data", s3.node, "backup", "--to", "s3://no-such-bucket/a")

    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "s3://no-such-bucket/a: expected to write" in done.stderr
    assert "found: no such bucket; create it" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("trouble", "told"),
    [
        ("403 AccessDenied", "access denied (AccessDenied); give the user s3:ListBucket"),
        ("403 SignatureDoesNotMatch", "the credentials are refused (SignatureDoesNotMatch)"),
        ("301 PermanentRedirect", "the bucket is in another region; set AWS_REGION"),
        ("400 AuthorizationHeaderMalformed", "the bucket is in another region; set AWS_REGION"),
    ],
)
def test_what_the_server_refuses_is_one_line(s3: S3World, trouble: str, told: str) -> None:
    s3.proxy.trouble = lambda request: trouble

    for done in (
        s3.run("snapshots", "--store", s3.url),
        s3.run("restore", "--store", s3.url, "--to", s3.home / "x"),
        s3.run("forget", "--keep-last", "1", "--store", s3.url),
    ):
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
        assert told in done.stderr


def test_a_tls_endpoint_that_is_none_is_one_line(s3: S3World) -> None:
    s3.env["AWS_ENDPOINT_URL"] = s3.proxy.url.replace("http:", "https:")

    done = s3.run("snapshots", "--store", s3.url)

    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "check AWS_ENDPOINT_URL" in done.stderr


@pytest.mark.slow
def test_a_certificate_is_checked_and_may_be_of_a_private_authority(
    s3: S3World, s3_server: str
) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    bundle = s3.home / "ca.pem"
    authority.cert_pem.write_to_path(str(bundle))

    with proxied(s3_server, context) as proxy:
        s3.env["AWS_ENDPOINT_URL"] = proxy.url
        refused = s3.backup()
        s3.env["AWS_CA_BUNDLE"] = str(bundle)
        taken = s3.backup()

    assert refused.returncode == 1
    assert "its certificate is not trusted; check AWS_ENDPOINT_URL, or set" in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert taken.returncode == 0, taken.stderr


def test_a_user_who_may_not_delete_can_back_up(s3: S3World) -> None:
    s3.proxy.trouble = lambda request: (
        "403 AccessDenied" if request.method in ("DELETE", "POST") else ""
    )

    done = s3.backup()

    assert done.returncode == 0, done.stderr
    assert "could not be removed" not in done.stderr


def test_keys_of_the_shared_files_are_used(s3: S3World) -> None:
    aws = s3.home / ".aws"
    aws.mkdir()
    (aws / "credentials").write_text(
        "[backups]\naws_access_key_id = FROMFILE\naws_secret_access_key = x\n"
    )
    s3.env.update(AWS_PROFILE="backups", AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY="")

    s3.backed_up()

    assert all("Credential=FROMFILE/" in r.headers["authorization"] for r in s3.proxy.seen)


def test_no_control_character_gets_into_a_key(s3: S3World) -> None:
    (s3.node / "wal" / "a\tb").write_bytes(b"x")

    done = s3.backup()

    assert done.returncode == 1
    assert "wal/a\\x09b: expected a name that a bucket can have" in done.stderr
    assert s3.all_keys() == []


def test_full_room_for_staging_is_one_line(s3: S3World, mount: Mount) -> None:
    small = s3.home / "small"
    small.mkdir()
    mount(small, size="1m")
    s3.env["TMPDIR"] = str(small)

    done = s3.backup()

    assert done.returncode == 1
    assert "free some, or set TMPDIR to another directory" in done.stderr
    assert os.listdir(small) == []
    assert s3.all_keys() == []


@pytest.mark.slow
def test_what_may_not_be_deleted_is_told_and_is_not_said_to_be_gone(s3: S3World) -> None:
    old, new = s3.backed_up(), s3.backed_up()

    def refuse(request: Request) -> bytes | None:
        if request.method != "POST":
            return None
        keys = re.findall("<Key>([^<]*)</Key>", request.body.decode())
        errors = "".join(
            f"<Error><Key>{key}</Key><Code>AccessDenied</Code><Message>no</Message></Error>"
            for key in keys
        )
        return f"<?xml version='1.0'?><DeleteResult>{errors}</DeleteResult>".encode()

    s3.proxy.canned = refuse
    done = s3.run("forget", "--keep-last", "1", "--store", s3.url)

    assert done.returncode == 3
    assert f"{old}: could not be removed: access denied (AccessDenied)" in done.stderr
    assert done.stdout.endswith("removed 0 snapshots, freed 0B\n")
    assert s3.ids() == [old, new]
