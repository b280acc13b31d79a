"""Snapshots in a bucket: taken, listed, verified, restored and forgotten by the real command."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import bagit
import pytest

from tests.e2e.s3_world import LAST, S3World
from tests.real.snapshot_world import make_node, state


@pytest.fixture
def awkward(s3: S3World) -> S3World:
    """A world whose node has every name that a bag can carry and a URL can not."""
    for name in (
        "a b",
        "a#b",
        "a?b&c=d",
        "a+b",
        "ünï ß",
        "~a",
        "{a}[b]",
        "a*b^`|\\<>\"'",
        "e\u0301",
    ):
        (s3.node / "wal" / name).write_bytes(name.encode() * 100)
    (s3.node / "wal" / "deep" / "日本").mkdir(parents=True)
    (s3.node / "wal" / "deep" / "日本" / "x").write_bytes(b"")
    (s3.node / "wal" / "hollow").mkdir()
    return s3


def test_a_snapshot_goes_there_and_comes_back_as_it_was(awkward: S3World, tmp_path: Path) -> None:
    before = state(awkward.node)

    name = awkward.backed_up()
    done = awkward.run("restore", name, "--store", awkward.url, "--to", tmp_path / "back")

    assert done.returncode == 0, done.stderr
    assert state(tmp_path / "back") == before
    assert awkward.is_clean()


def test_restore_puts_raft_and_wal_in_place(s3: S3World) -> None:
    before = state(s3.node)
    s3.backed_up()
    (s3.node / "raft" / "log").write_bytes(b"lost\n")

    done = s3.run("--data", s3.node, "restore", "--store", s3.url, "--yes", "--json")

    assert done.returncode == 0, done.stderr
    assert state(s3.node) == before
    found = json.loads(done.stdout)
    assert found["snapshot"]["path"] == f"{s3.url}/{found['snapshot']['id']}"


@pytest.mark.slow
def test_the_latest_of_another_node_is_not_restored_without_its_id(s3: S3World) -> None:
    mine = s3.backed_up()
    other = make_node(s3.home / "other")
    done = s3.run("--data", other, "backup", "--to", s3.url, "--json")
    theirs = json.loads(done.stdout)["snapshot"]["id"]
    restore = ("--data", s3.node, "restore", "--yes", "--store", s3.url)

    for words in ((), ("latest",)):
        done = s3.run(*restore, *words)
        assert done.returncode == 1
        assert f"found {theirs}, which is of " in done.stderr.splitlines()[-1]
        assert done.stderr.endswith(f"the newest of this node is {mine}: name the ID\n")
    assert not list(s3.node.glob("*.before-restore-*"))

    assert s3.run(*restore, theirs).returncode == 0  # what was said is done


def test_after_a_plain_download_other_tools_are_satisfied(awkward: S3World, tmp_path: Path) -> None:
    name = awkward.backed_up()

    bag = awkward.download(name, tmp_path / "bag")

    for manifest in ("manifest-sha256.txt", LAST):
        subprocess.run(["sha256sum", "--strict", "--quiet", "-c", manifest], cwd=bag, check=True)
    bagit.Bag(str(bag)).validate()


def test_the_document_has_the_url(s3: S3World) -> None:
    done = s3.backup("--json")

    snapshot = json.loads(done.stdout)["snapshot"]
    assert snapshot["path"] == f"{s3.url}/{snapshot['id']}"
    assert snapshot["files"] == 5
    assert len(snapshot["sha256"]) == 64


def test_the_store_may_be_named_by_the_environment(s3: S3World) -> None:
    s3.env["SHARDTOOL_SNAPSHOTS"] = s3.url

    assert s3.run("--data", s3.node, "backup").returncode == 0
    done = s3.run("snapshots", "verify", "latest")

    assert done.returncode == 0, done.stderr
    assert f"1 snapshot verified in {s3.url}, all good" in done.stdout


def test_what_backup_tells_is_what_comes_next(s3: S3World) -> None:
    done = s3.backup()

    name = s3.ids()[0]
    assert f"snapshot {name}: 5 files (2.2M), verified, in {s3.url}/{name}" in done.stdout
    assert f"shardtool restore {name} --data {s3.node} --store {s3.url}" in done.stdout
    assert f"aws s3 sync {s3.url}/{name}" in done.stdout
    assert "same file system" not in done.stderr


def test_s3_itself_has_checked_what_arrived(s3: S3World) -> None:
    s3.backed_up()

    sent = [r for r in s3.proxy.seen if r.method == "PUT"]
    assert len(sent) == 10
    assert all("x-amz-checksum-sha256" in r.headers for r in sent)


def test_the_tag_manifest_goes_last(s3: S3World) -> None:
    s3.backed_up()

    sent = [r.path for r in s3.proxy.seen if r.method == "PUT"]
    assert sent[0].endswith("/bagit.txt")
    assert sent[-1].endswith(f"/{LAST}")


def test_every_object_is_read_back_before(s3: S3World) -> None:
    s3.backed_up()

    steps = [(r.method, r.path.split("?")[0]) for r in s3.proxy.seen]
    last = next(i for i, (method, path) in enumerate(steps) if path.endswith(LAST))
    read = {path for method, path in steps[:last] if method == "GET"}
    assert {path for method, path in steps[:last] if method == "PUT"} <= read


def test_a_damaged_object_is_found(s3: S3World) -> None:
    name = s3.backed_up()
    key = f"influx/a/{name}/data/wal/log.1"
    content = s3.get(key)
    s3.put(key, content[:-1] + b"!")

    done = s3.run("snapshots", "verify", "--store", s3.url)

    assert done.returncode == 3
    assert "data/wal/log.1: its SHA-256 is" in done.stdout
    refused = s3.run("restore", "--store", s3.url, "--to", s3.home / "back")
    assert refused.returncode == 1
    assert "expected a good snapshot, found data/wal/log.1" in refused.stderr
    assert not (s3.home / "back").exists()
    assert s3.is_clean()


@pytest.mark.slow
@pytest.mark.parametrize("what", ["missing", "longer", "extra"])
def test_what_is_not_as_the_manifest_says_is_found(s3: S3World, what: str) -> None:
    name = s3.backed_up()
    key = f"influx/a/{name}/data/raft/log"
    if what == "missing":
        s3.delete(key)
    elif what == "longer":
        s3.put(key, s3.get(key) + b"x")
    else:
        s3.put(f"{key}/below", b"x")

    done = s3.run("snapshots", "verify", "--store", s3.url)

    assert done.returncode == 3
    told = {
        "missing": "data/raft/log: missing",
        "longer": "data/raft/log: has 12 bytes, expected 11",
        "extra": "data/raft/log/below: extra: a file that no manifest names",
    }
    assert told[what] in done.stdout


def test_forget_removes_all_objects_of_what_no_rule_keeps(s3: S3World) -> None:
    first = s3.backed_up()
    second = s3.backed_up()

    found = s3.document("forget", "--keep-last", "1")

    assert found["removed"] == [first]
    assert found["verified"] == second
    assert found["freed_bytes"] > 2_300_000
    assert all(f"/{second}/" in key for key in s3.all_keys())
    deletes = [r for r in s3.proxy.seen if r.method in ("DELETE", "POST")]
    assert LAST.encode() in deletes[0].body


@pytest.mark.slow
def test_a_dry_run_removes_nothing(s3: S3World) -> None:
    s3.backed_up()
    s3.backed_up()
    before = s3.all_keys()

    done = s3.run("forget", "--keep-last", "1", "--dry-run", "--store", s3.url)

    assert "would remove 1 snapshot" in done.stdout
    assert s3.all_keys() == before


@pytest.mark.slow
def test_forget_keeps_the_last_good_one(s3: S3World) -> None:
    first, second = s3.backed_up(), s3.backed_up()
    s3.put(f"influx/a/{second}/data/raft/log", b"a raft bog\n")

    found = s3.document("forget", "--keep-last", "1")

    assert found["removed"] == []
    assert {one["id"] for one in found["keep"]} == {first, second}


@pytest.mark.slow
def test_one_nodes_rules_remove_nothing_of_another_node(s3: S3World) -> None:
    other = make_node(s3.home / "other")
    mine = s3.backed_up()
    for _ in range(2):
        assert s3.run("--data", other, "backup", "--to", s3.url).returncode == 0

    done = s3.run("--data", s3.node, "forget", "--keep-last", 1, "--store", s3.url)

    assert done.returncode == 0
    assert "2 nodes, the rules count for each of them:" in done.stdout
    assert "removed 1 snapshot" in done.stdout
    assert mine in s3.ids()
    assert len(s3.ids()) == 2


def test_an_unfinished_backup_is_no_snapshot(s3: S3World) -> None:
    name = s3.backed_up()
    s3.delete(f"influx/a/{name}/{LAST}")

    found = s3.document("snapshots")

    assert found["snapshots"] == []
    assert [one["name"] for one in found["others"]] == [name]
    assert s3.run("restore", "--store", s3.url, "--to", s3.home / "x").returncode == 1


def test_what_another_host_may_be_writing_is_left_alone(s3: S3World) -> None:
    young = s3.backed_up()
    s3.delete(f"influx/a/{young}/{LAST}")
    before = s3.all_keys()

    s3.backed_up()

    assert set(before) <= set(s3.all_keys())


@pytest.mark.slow
def test_two_backups_within_a_second_get_two_ids(s3: S3World) -> None:
    other = make_node(s3.home / "other")
    jobs = [
        s3.start("--data", node, "backup", "--to", s3.url) for node in (s3.node, other, s3.node)
    ]
    codes = [(job.wait(60), *job.communicate()) for job in jobs]

    good = sum(code == 0 for code, *_ in codes)
    assert good >= 2, codes  # the same node's second may find the first at work: busy
    assert len(s3.ids()) == good
    assert s3.run("snapshots", "verify", "--store", s3.url).returncode == 0


def test_check_finds_the_snapshot_there(s3: S3World) -> None:
    s3.backed_up()
    s3.env["SHARDTOOL_SNAPSHOTS"] = s3.url

    done = s3.run("--data", s3.node, "check", "--json")

    found = {one["id"]: one for one in json.loads(done.stdout)["findings"]}
    assert found["snapshot"]["message"].startswith(f"{s3.url}/")
    assert "verified to the last byte" in found["snapshot"]["message"]


def test_without_the_extra_one_line_says_how_to_get_it(s3: S3World) -> None:
    hidden = s3.home / "hidden" / "obstore"
    hidden.mkdir(parents=True)
    (hidden / "__init__.py").write_text("raise ImportError")
    path = os.pathsep.join([str(hidden.parent), s3.environment()["PYTHONPATH"]])
    s3.env["PYTHONPATH"] = path

    running = s3.start("--data", s3.node, "backup", "--to", s3.url)
    _, told = running.communicate(timeout=60)

    assert running.returncode == 2
    assert told == (
        "shardtool: snapshots in s3:// need obstore, which is not installed: "
        "pip install 'shardtool[s3]'\n"
    )
