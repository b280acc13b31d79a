"""`shardtool report` as it is installed: what it tells of a node and of a cluster, and what of
neither it changes."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from fixtures import Node
from tests.conftest import COMMAND, Listing, Run
from tests.e2e.proof_world import PROVEN_NAMES, Capture, document, lose_one_value, new_of, one_line
from tests.e2e.report_world import cluster, hostile, look, several_verdicts
from tests.needs import needs_root
from tests.preloaded import run_preloaded

List = Callable[[Path], Listing]


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Node:
    """A node with a shard of each kind; no test changes it."""
    return several_verdicts(tmp_path_factory.mktemp("several") / "data", run_preloaded)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """What report --json printed on the nodes of a cluster; no test changes it."""
    return cluster(tmp_path_factory.mktemp("cluster"), run_preloaded)


# -- a node --


@pytest.mark.slow
def test_the_capture_is_told_as_verify_and_prune_tell_it(capture: Capture, shardtool: Run) -> None:
    data = capture("migrated-08")
    shardtool("--data", data, "verify")
    done = shardtool("--data", data, "report", "--json")
    found = document(done)
    (node,) = found["nodes"]
    totals = found["cluster"]["totals"]
    assert (done.returncode, done.stderr) == (3, "")
    assert found["schema"] == "shardtool/report/1"
    assert (totals["old_shards"], totals["proven_everywhere"]) == (27, 13)
    assert (totals["values"], totals["lost"], totals["losing_shards"]) == (20536, 440, 14)
    assert sum(node["losses"]["by_cause"].values()) == node["losses"]["values"] == 440
    assert [
        one["id"] for one in sorted(node["plan"]["delete"], key=lambda one: str(one["id"]))
    ] == (PROVEN_NAMES)
    planned = document(shardtool("--data", data, "prune", "--dry-run", "--no-verify", "--json"))
    for key in ("delete", "keep", "finish", "reclaimable_bytes"):
        assert node["plan"][key] == planned[key]
    assert node["plan"]["reclaimable_bytes"] == totals["reclaimable_bytes"]


@pytest.mark.slow
def test_old_and_new_shards_are_as_status_has_them(several: Node, shardtool: Run) -> None:
    data = several.path
    status = document(shardtool("--data", data, "status", "--json"))
    (node,) = look(shardtool, data)["nodes"]
    for told, known in zip(node["old_shards"], status["old_shards"], strict=True):
        assert told.items() >= known.items()
    for key in ("new_shards", "trash", "stage", "next", "unseen_processes"):
        assert node[key] == status[key]
    assert node["filesystem"].keys() == status["filesystem"].keys()


def test_each_verdict_proof_and_deletion_is_in_the_document(several: Node, shardtool: Run) -> None:
    data = several.path
    (node,) = look(shardtool, data)["nodes"]
    shards = {one["id"][-1]: one for one in node["old_shards"]}
    assert {n: s["verdict"] for n, s in shards.items()} == {
        "1": "proven", "2": "incomplete", "3": "incomplete", "4": "marked", "5": "suspect",
        "6": "unmigrated", "7": "suspect",
    }  # fmt: skip
    assert (shards["1"]["proof"]["holds"], shards["1"]["proof"]["rests_on"] != []) == (True, True)
    assert shards["4"]["proof"] is None
    assert shards["1"]["range"]["start"] < shards["2"]["range"]["start"]
    receipt = (data / "db/.shardtool/proofs/00001.json").read_bytes()
    assert shards["1"]["proof"]["receipt_sha256"] == sha256(receipt).hexdigest()
    (gone,) = node["gone"]
    assert (gone["id"], gone["evidence"], gone["missing"]) == ("00008", "proof", 0)
    (accepted,) = node["accepted"]
    assert (accepted["shard"], accepted["missing"], accepted["holds"]) == ("00003", 5, True)
    assert len(node["snapshots"]["snapshots"]) == 1
    assert node["history"]["events"][-1]["event"] == "deleted"
    assert any("5 values of 1 shard" in line for line in node["attention"])


def test_a_proof_that_holds_no_more_says_why(proven: Node, shardtool: Run) -> None:
    shardtool("--data", proven.path, "verify")
    lose_one_value(new_of(proven, 2).path)
    os.utime(proven.shard_db / "00001/CURRENT")
    (node,) = look(shardtool, proven.path)["nodes"]
    proofs = {one["id"]: one["proof"] for one in node["old_shards"]}
    assert {name: (one["holds"], one["why_not"]) for name, one in proofs.items()} == {
        "00001": (False, "old-side-changed"),
        "00002": (False, "new-side-changed"),
    }
    assert node["losses"]["values"] == 0


@pytest.mark.slow
def test_nothing_is_changed_and_no_lock_taken(
    tmp_path: Path,
    several: Node,
    shardtool: Run,
    listing: List,
    hold: Callable[[Path, str], int],
) -> None:
    hold(several.db, "flock")  # as another shardtool does
    before = listing(several.path)
    for words in (["--json"], [], ["-q"], ["--html", tmp_path / "page.html"]):
        assert shardtool("--data", several.path, "report", *words).returncode == 3
    assert listing(several.path) == before


def test_where_all_is_well_the_exit_code_is_0(proven: Node, shardtool: Run) -> None:
    shardtool("--data", proven.path, "verify")
    done = shardtool("--data", proven.path, "report")
    assert (done.returncode, done.stderr) == (0, "")
    assert "2 old shards, all are proven" in done.stdout
    assert "not as it should be" not in done.stdout


@pytest.mark.slow
def test_it_is_one_screen_and_quiet_a_line(capture: Capture, shardtool: Run) -> None:
    data = capture("migrated-08")
    shardtool("--data", data, "verify")
    path, *lines = shardtool("--data", data, "report").stdout.splitlines()
    assert path.endswith(str(data))  # which is as long as it is
    assert len(lines) <= 30
    assert max(map(len, lines)) <= 80
    assert shardtool("--data", data, "report", "-q").stdout == (
        "13 of 27 old shards are proven; 440 values of 14 shards exist nowhere else.\n"
    )


@pytest.mark.slow
def test_a_mail_of_it_begins_with_what_is_wrong_and_is_empty_where_nothing_is(
    several: Node, proven: Node, shardtool: Run
) -> None:
    text = shardtool("--data", several.path, "report", "-qq").stdout
    assert text.index("nobody accepted that") < text.index("OLD SHARDS")
    assert text.count("nobody accepted that") == 1
    shardtool("--data", proven.path, "verify")
    done = shardtool("--data", proven.path, "report", "-qq")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_snapshots_in_a_bucket_are_named_and_not_asked_for(proven: Node, shardtool: Run) -> None:
    done = shardtool("--data", proven.path, "report", "--store", "s3://bucket/influxdb")
    assert "snapshots: in s3://bucket/influxdb, which was not asked" in done.stdout


def test_an_empty_node_and_one_of_07_have_reports(tmp_path: Path, shardtool: Run) -> None:
    (tmp_path / "empty/db").mkdir(parents=True)
    done = shardtool("--data", tmp_path / "empty", "report")
    assert (done.returncode, done.stderr) == (0, "")
    assert "There are no old shards here." in done.stdout
    node = Node(tmp_path / "data")
    node.old_shard(1, points=5)
    done = shardtool("--data", node.path, "report")
    assert (done.returncode, done.stderr) == (0, "")
    assert "not migrated yet" in done.stdout


def test_a_raft_that_can_t_be_read_is_told_and_hides_no_shard(proven: Node, shardtool: Run) -> None:
    shardtool("--data", proven.path, "verify")
    (proven.raft / "log").write_bytes(b"ruins")
    done = shardtool("--data", proven.path, "report", "--json")
    (node,) = document(done)["nodes"]
    assert done.returncode == 3
    assert [one["verdict"] for one in node["old_shards"]] == ["marked", "marked"]
    assert [one["proof"]["why_not"] for one in node["old_shards"]] == ["catalogue-unreadable"] * 2
    assert any(str(proven.raft) in line for line in node["attention"])


@needs_root
def test_a_damaged_snapshot_journal_or_trash_is_not_as_it_should_be(
    proven: Node, shardtool: Run
) -> None:
    shardtool("--data", proven.path, "verify")
    shardtool("--data", proven.path, "backup")
    (snapshot,) = (proven.path / "snapshots").iterdir()
    (snapshot / "shardtool.json").write_text("{}")
    (proven.db / ".shardtool/trash/stray").mkdir(parents=True)
    with (proven.db / ".shardtool/journal").open("a") as journal:
        journal.write("torn")
    done = shardtool("--data", proven.path, "report")
    assert done.returncode == 3
    for words in (f"snapshot {snapshot.name}: damaged", "trash: stray", "1 line can't be read"):
        assert words in done.stdout.replace("\n", " ")


def test_hostile_names_are_escaped_on_the_screen(tmp_path: Path, shardtool: Run) -> None:
    done = shardtool("--data", hostile(tmp_path / "data", shardtool).path, "report")
    assert "Traceback" not in done.stderr
    for text in (done.stdout, done.stderr):
        assert all(line.isprintable() for line in text.splitlines())
    assert "<script>" in done.stdout


# -- a cluster --


@pytest.mark.slow
def test_a_cluster_is_merged(files: list[Path], shardtool: Run) -> None:
    done = shardtool("report", *files, "--json")
    found = document(done)
    view = found["cluster"]
    assert [node["made"]["host"] for node in found["nodes"]] == ["db1", "db2", "db3"]
    assert {one["id"]: one["proven_everywhere"] for one in view["shards"]} == {
        "00001": True, "00002": True, "00003": False,
    }  # fmt: skip
    first = view["shards"][0]["copies"]
    assert [copy["verdict"] for copy in first] == ["gone", "proven", "proven"]
    assert [node["is_behind"] for node in view["nodes"]] == [False, False, True]
    assert all(node["reclaimable_bytes"] >= 0 for node in view["nodes"])
    assert [source["sha256"] for source in found["sources"]] == [
        sha256(file.read_bytes()).hexdigest() for file in files
    ]
    text = shardtool("report", *files).stdout
    assert "2 of 3 old shards are proven everywhere" in text
    assert "unmigrated on db3; proven on db1, db2" in text


@pytest.mark.slow
def test_files_stdin_and_pipes_merge_alike(
    tmp_path: Path, files: list[Path], shardtool: Run
) -> None:
    by_file = document(shardtool("report", *files, "--json"))["cluster"]
    joined = b"".join(file.read_bytes() for file in files)
    done = subprocess.run(
        [*COMMAND, "report", "-", "--json"], input=joined, capture_output=True, check=False
    )
    assert json.loads(done.stdout)["cluster"] == by_file
    one, two, three = files
    words = f"exec {' '.join(COMMAND)} report <(cat {one} {two}) {three} --json"
    done = subprocess.run(["bash", "-c", words], capture_output=True, check=False)
    assert json.loads(done.stdout)["cluster"] == by_file
    merged = tmp_path / "merged.json"
    merged.write_bytes(done.stdout)
    assert document(shardtool("report", merged, merged, one, "--json"))["cluster"] == by_file


def test_a_server_without_a_report_and_a_report_twice_are_told(
    files: list[Path], shardtool: Run
) -> None:
    one, two, _ = files
    done = shardtool("report", one, two, one)
    assert done.returncode == 3
    assert "no report of server 3 of the cluster" in done.stdout
    assert "db1" in done.stderr
    assert "2 reports, the newest of them counts" in done.stderr


def test_names_in_a_file_are_escaped_on_the_screen(files: list[Path], shardtool: Run) -> None:
    forged = json.loads(files[0].read_text())
    forged["nodes"][0]["old_shards"][0] |= {"id": "\x1b[31m" + "x" * 999, "verdict": "marked"}
    files[0].write_text(json.dumps(forged))
    done = shardtool("report", *files)
    assert "\\x1b[31mxxx" in done.stdout
    assert "\x1b" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) < 200


def test_a_store_is_not_asked_for_with_files(files: list[Path], shardtool: Run) -> None:
    line = one_line(shardtool("report", *files, "--store", "s3://key:s3cr3t@bucket/a"), 2)
    assert "s3cr3t" not in line


@pytest.mark.preloaded
@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b"[" * 99_999, b'{"schema": "\x1b[2J"}'])
def test_what_is_no_report_is_one_line_and_code_1(
    content: bytes, tmp_path: Path, shardtool: Run
) -> None:
    (tmp_path / "x\x1b[31m.json").write_bytes(content)
    line = one_line(shardtool("report", tmp_path / "x\x1b[31m.json"), 1)
    assert "expected what shardtool report --json prints" in line
    assert line.isprintable()


@pytest.mark.slow
def test_a_document_of_another_command_says_what_to_do(
    tmp_path: Path, proven: Node, shardtool: Run
) -> None:
    for command in ("status", "verify"):
        file = tmp_path / "x.json"
        file.write_text(shardtool("--data", proven.path, command, "--json").stdout)
        line = one_line(shardtool("report", file), 1)
        assert f"shardtool/{command}/1, which does not say of which node it is" in line


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path, shardtool: Run) -> None:
    assert "No such file" in one_line(shardtool("report", tmp_path / "no.json"), 1)
    assert "Is a directory" in one_line(shardtool("report", tmp_path), 1)


@pytest.mark.preloaded
@pytest.mark.parametrize(
    "words", [["--force"], ["--html", "-", "--json"], ["-", "-"], ["--html", ""]]
)
def test_words_that_contradict_each_other_are_wrong_usage(
    words: list[str], proven: Node, shardtool: Run
) -> None:
    one_line(shardtool("--data", proven.path, "report", *words), 2)


# -- the page as a file --


def test_a_page_is_written_whole_with_the_mode_that_the_umask_says(
    tmp_path: Path, proven: Node, shardtool: Run
) -> None:
    page = tmp_path / "page.html"
    done = shardtool("--data", proven.path, "report", "--html", page, umask=0o027)
    assert stat.S_IMODE(page.stat().st_mode) == 0o640
    assert sha256(page.read_bytes()).hexdigest() in done.stderr
    assert os.listdir(tmp_path).count("page.html") == 1
    assert not [name for name in os.listdir(tmp_path) if "part" in name]


@pytest.mark.slow
def test_an_older_page_is_replaced_and_any_other_file_only_by_force(
    tmp_path: Path, proven: Node, shardtool: Run
) -> None:
    page, other = tmp_path / "page.html", tmp_path / "other.html"
    for _ in range(2):
        assert "page: " in shardtool("--data", proven.path, "report", "--html", page).stderr
    other.write_text("<!DOCTYPE html>\n<p>not ours")
    line = one_line(shardtool("--data", proven.path, "report", "--html", other, "-q"), 2)
    assert "--force" in line
    assert other.read_text().endswith("not ours")
    shardtool("--data", proven.path, "report", "--html", other, "--force")
    assert "shardtool report" in other.read_text()


def test_a_page_on_stdout_is_the_page_alone(proven: Node, shardtool: Run) -> None:
    done = shardtool("--data", proven.path, "report", "--html", "-")
    assert done.stdout.startswith("<!DOCTYPE html>\n")
    assert done.stdout.endswith("</html>\n")
    assert done.stderr == ""


@pytest.mark.slow
@pytest.mark.parametrize("place", ["db", "db/shard_db", "raft", "wal", "db/.shardtool"])
def test_no_page_is_written_among_influxdbs_own_files(
    place: str, proven: Node, shardtool: Run
) -> None:
    page = proven.path / place / "page.html"
    page.parent.mkdir(exist_ok=True)
    line = one_line(shardtool("--data", proven.path, "report", "--html", page), 2)
    assert "which is InfluxDB's" in line
    file = proven.path / "x.json"
    file.write_text(shardtool("--data", proven.path, "report", "--json").stdout)
    line = one_line(shardtool("--data", proven.path, "report", file, "--html", page), 2)
    assert "which is InfluxDB's" in line
    assert not page.exists()


@pytest.mark.slow
def test_a_page_that_can_t_be_written_is_one_line(
    tmp_path: Path, proven: Node, shardtool: Run
) -> None:
    line = one_line(
        shardtool("--data", proven.path, "report", "--html", tmp_path / "no/page.html"), 1
    )
    assert "No such file or directory" in line
    assert "No space left" in one_line(
        shardtool("--data", proven.path, "report", "--html", "/dev/full", "-q"), 1
    )
