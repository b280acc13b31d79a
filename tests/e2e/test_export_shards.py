"""`shardtool export` of several shards: which is the later one, and what their names can mean."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fixtures import Node, Row
from tests.conftest import Run
from tests.e2e.export_world import export, left_cells
from tests.e2e.proof_world import AT

pytestmark = pytest.mark.preloaded


@pytest.mark.slow
def test_of_two_contents_that_of_the_shard_with_the_larger_number_goes_out(
    shardtool: Run, tmp_path: Path
) -> None:
    node = Node(tmp_path / "data")
    for number, value in ((99_999, 1.5), (100_000, 2.5)):
        node.old_shard(number, rows=[Row("test", "cpu", "v", AT, 1, value)])
    file = tmp_path / "out.lp"
    document = export(shardtool, node.path, "--to", file, code=3)
    assert [shard["id"] for shard in document["shards"]] == ["99999", "100000"]
    assert "cpu v=2.5 " in file.read_text()
    assert [value for _, (_, value) in left_cells(tmp_path / "out.lp.left")] == ["1.5"]


@pytest.mark.parametrize("words", [(), ("--json",), ("--quiet",)])
def test_a_column_that_two_series_can_claim_goes_out_and_is_told(
    words: tuple[str, ...], shardtool: Run, tmp_path: Path
) -> None:
    node = Node(tmp_path / "data")
    node.old_shard(1, rows=[Row("test", "a", "b~c", AT, 1, 1), Row("test", "a~b", "d", AT, 2, 2)])
    file = tmp_path / "out.lp"
    done = shardtool("--data", node.path, *words, "export", "--to", file)
    assert done.returncode == 3
    assert "test~a~b c: " in done.stderr
    assert done.stderr.count("two series can be meant") == 2
    assert len(file.read_text().splitlines()) == 4
    if words == ("--json",):
        found = json.loads(done.stdout)["ambiguous"]
        assert found == [{"database": "test", "series": "a~b", "column": c} for c in "cd"]


def test_a_series_is_called_as_rescue_calls_it_in_the_file_and_by_the_filters(
    shardtool: Run, tmp_path: Path
) -> None:
    """`a` has a column that `a~b` can't claim, and so it is there; what both can is `a~b`'s. The
    new storage knows a column `b~c` of `a`, too: that alone is no reason to call it so."""
    node = Node(tmp_path / "data", version="0.8")
    node.old_shard(1, rows=[Row("test", "a", "x", AT, 1, 1), Row("test", "a~b", "c", AT, 2, 2)])
    node.write_new([Row("test", "a", "b~c", AT + 5, 1, 3)])
    for pattern, values in (("^a$", ["a x=1i"]), ("^a~b$", ["a~b c=2i"])):
        file = tmp_path / "out.lp"
        words = ("--series", pattern, "--database", "test", "--to", file, "--force")
        document = export(shardtool, node.path, *words)
        lines = file.read_text().splitlines()[2:]
        assert [line.rsplit(" ", 1)[0] for line in lines] == values
        assert document["ambiguous"] == []


def test_of_many_columns_that_two_series_can_claim_a_few_are_told(
    shardtool: Run, tmp_path: Path
) -> None:
    node = Node(tmp_path / "data")
    rows = [Row("test", "a", f"b~{n}", AT, 1, 1) for n in range(20)]
    node.old_shard(1, rows=[*rows, Row("test", "a~b", "d", AT, 2, 2)])
    done = shardtool("--data", node.path, "export", "--to", tmp_path / "out.lp")
    assert done.returncode == 3
    assert done.stderr.count("two series can be meant") == 8
    assert "... and 13 columns more" in done.stderr
