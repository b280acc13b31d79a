"""A bucket that somebody else fills: nothing is written elsewhere, and memory has an end."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from urllib.parse import parse_qs, urlsplit

import pytest

from shardtool.snapshots import bag
from tests.e2e.s3_proxy import Request
from tests.e2e.s3_world import LAST, S3World
from tests.real.snapshot_world import command

MIB = 1 << 20


def reseal(world: S3World, name: str, **contents: bytes) -> None:
    """Write tag files anew, with a tag manifest that fits: as whoever owns the bucket can."""
    prefix = f"influx/a/{name}"
    files = {"metadata": bag.METADATA, "manifest": bag.MANIFEST, "info": bag.INFO}
    for which, content in contents.items():
        world.put(f"{prefix}/{files[which]}", content)
    digests = {
        tag: hashlib.sha256(world.get(f"{prefix}/{tag}")).hexdigest() for tag in bag.TAG_FILES
    }
    world.put(f"{prefix}/{LAST}", bag.manifest(digests))


# A process between: the system counts what the parent had to the child that it made.
MEASURE = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
print(code, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def peak_bytes(world: S3World, *words: object, code: int = 0) -> int:
    """Run shardtool, which must end with `code`; return the most memory that it had."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *command(*words)],
        env=world.environment(),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    ended, kibibytes = map(int, done.stdout.split())
    assert ended == code
    return kibibytes << 10


def endless_listing(world: S3World, name: str) -> Callable[[Request], bytes | None]:
    """Answer a listing of a snapshot with 100,000 objects more, a thousand a page."""

    def answer(request: Request) -> bytes | None:
        query = parse_qs(urlsplit(request.path).query)
        if "list-type" not in query:
            return None
        page = int(query.get("continuation-token", ["0"])[0])
        keys = [f"influx/a/{name}/data/wal/x{page:03}{number:03}" for number in range(1000)]
        if page == 0:
            keys += world.all_keys()
        more = f"<NextContinuationToken>{page + 1}</NextContinuationToken>" if page < 100 else ""
        contents = "".join(
            f"<Contents><Key>{key}</Key><LastModified>2026-11-26T20:00:00.000Z</LastModified>"
            "<ETag>&quot;0&quot;</ETag><Size>7</Size></Contents>"
            for key in keys
        )
        return (
            "<?xml version='1.0' encoding='UTF-8'?><ListBucketResult>"
            f"<IsTruncated>{'true' if more else 'false'}</IsTruncated>{more}{contents}"
            "</ListBucketResult>"
        ).encode()

    return answer


@pytest.mark.slow
@pytest.mark.parametrize("path", ["../../../../escaped", "/escaped", "raft/../../escaped"])
def test_no_path_in_a_manifest_leads_out(s3: S3World, path: str) -> None:
    name = s3.backed_up()
    prefix = f"influx/a/{name}"
    metadata = json.loads(s3.get(f"{prefix}/{bag.METADATA}"))
    for entry in metadata["entries"]:
        if entry["path"] == "raft/log":
            entry["path"] = path
    manifest = s3.get(f"{prefix}/{bag.MANIFEST}").replace(
        b"data/raft/log", b"data/" + path.encode()
    )
    reseal(s3, name, metadata=json.dumps(metadata).encode(), manifest=manifest)

    done = s3.run("restore", name, "--store", s3.url, "--to", s3.home / "a" / "b" / "back")

    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert not list(s3.home.parent.rglob("escaped"))
    assert s3.is_clean()


def test_keys_that_lead_out_are_told(s3: S3World) -> None:
    name = s3.backed_up()
    s3.put(f"influx/a/{name}/data/../../x", b"")

    for words in (("snapshots",), ("restore", "--to", s3.home / "back")):
        done = s3.run(*words, "--store", s3.url)
        assert done.returncode == 1
        assert "found: an object whose name shardtool does not write" in done.stderr
        assert done.stderr.count("\n") == 1


def test_a_key_below_a_file_is_told(s3: S3World) -> None:
    name = s3.backed_up()
    s3.put(f"influx/a/{name}/data/raft/log/x", b"")

    done = s3.run("restore", "--store", s3.url, "--to", s3.home / "back")

    assert done.returncode == 1
    assert "found data/raft/log/x: extra: a file that no manifest names" in done.stderr
    assert s3.is_clean()


def test_names_that_differ_in_case_are_two(s3: S3World) -> None:
    (s3.node / "wal" / "LOG.1").write_bytes(b"another one")
    name = s3.backed_up()

    done = s3.run("restore", name, "--store", s3.url, "--to", s3.home / "back")

    assert done.returncode == 0, done.stderr
    assert (s3.home / "back" / "wal" / "LOG.1").read_bytes() == b"another one"


def test_an_object_that_has_more_than_it_said_is_not_read_on(s3: S3World) -> None:
    name = s3.backed_up()
    s3.proxy.trouble = lambda request: (
        "grow" if request.method == "GET" and request.path.endswith("raft/log") else ""
    )

    done = s3.run("snapshots", "verify", "--store", s3.url)

    assert done.returncode == 3
    assert "data/raft/log: more than 11 bytes where no more were announced" in done.stdout
    refused = s3.run("restore", name, "--store", s3.url, "--to", s3.home / "back")
    assert refused.returncode == 1
    assert s3.is_clean()


def test_metadata_without_end_is_not_read(s3: S3World) -> None:
    name = s3.backed_up()
    s3.put(f"influx/a/{name}/{bag.METADATA}", b"{" + b" " * (33 * MIB))

    done = s3.run("snapshots", "--store", s3.url)

    assert done.returncode == 3
    assert "damaged: more than 33554432 bytes" in done.stdout


def test_names_of_others_are_escaped(s3: S3World) -> None:
    s3.put("influx/a/\x9b31m\u202e", b"")

    done = s3.run("snapshots", "--store", s3.url)

    assert done.returncode == 0
    assert "\x9b" not in done.stdout and "\u202e" not in done.stdout
    assert "no snapshot's name" in done.stdout


def test_markers_of_empty_directories_are_no_snapshots(s3: S3World) -> None:
    s3.backed_up()
    s3.put("influx/a/", b"")

    found = s3.document("snapshots")

    assert len(found["snapshots"]) == 1
    assert found["others"] == []


def test_a_store_may_be_a_whole_bucket(s3: S3World) -> None:
    url = f"s3://{s3.bucket}"

    assert s3.run("--data", s3.node, "backup", "--to", url).returncode == 0
    assert s3.run("snapshots", "verify", "--store", url).returncode == 0
    assert s3.run("restore", "--store", url, "--to", s3.home / "back").returncode == 0


@pytest.mark.slow
def test_a_large_file_takes_no_more_memory(s3: S3World) -> None:
    with (s3.node / "wal" / "log.2").open("wb") as file:
        for _ in range(200):
            file.write(os.urandom(MIB))

    used = {
        "backup": peak_bytes(s3, "--data", s3.node, "backup", "--to", s3.url),
        "verify": peak_bytes(s3, "snapshots", "verify", "--store", s3.url),
        "restore": peak_bytes(s3, "restore", "--store", s3.url, "--to", s3.home / "back"),
    }

    assert max(used.values()) < 160 * MIB, used
    sizes = [r for r in s3.proxy.seen if r.method == "PUT" and "partNumber" in r.path]
    assert len(sizes) == 25


@pytest.mark.slow
def test_a_listing_without_end_takes_no_more_memory(s3: S3World) -> None:
    name = s3.backed_up()
    few = peak_bytes(s3, "snapshots", "--store", s3.url)
    s3.proxy.canned = endless_listing(s3, name)

    listed = peak_bytes(s3, "snapshots", "--store", s3.url)
    verified = peak_bytes(s3, "snapshots", "verify", "--quiet", "--store", s3.url, code=3)

    assert listed < few + 20 * MIB
    assert verified < few + 120 * MIB
