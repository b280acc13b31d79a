"""`shardtool export` of several shards: which is the later one, and what their names can mean."""

from __future__ import annotations

from pathlib import Path

from fixtures import Node, Row
from tests.conftest import Run
from tests.e2e.export_world import export, left_cells
from tests.e2e.proof_world import AT


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
