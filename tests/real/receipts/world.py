"""What the tests of receipts share: a receipt, and a node with proofs."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fixtures import Node
from shardtool.datadir.inventory import take_inventory
from shardtool.datadir.layout import Layout, find_layout
from shardtool.proof.columns import Name
from shardtool.proof.evidence import Proofs, local_shards, prove_shards
from shardtool.proof.prove import Finding, Loss
from shardtool.proof.receipts import NewSide, Receipt, Receipts, _checksum
from shardtool.proof.run import Setting
from shardtool.proof.source import RaftCatalogue, catalogue_of

WHEN = datetime(2026, 11, 26, 12, tzinfo=UTC)


FINDING = Finding(
    values=100,
    missing=3,
    different=1,
    asked=0,
    losses=(
        Loss(Name("db", "s~\udcff", "c"), 50, 3, 0, "future", -5, 1 << 62),
        Loss(Name("db", "s", 'c"'), 50, 0, 1, "unknown", 0, 0),
    ),
    elsewhere=False,
    unasked=False,
    digest="a" * 64,
    losses_digest="b" * 64,
    old_state="c" * 64,
    new_states={"00009": "d" * 64},
    ids="1-2,9",
    basis="e" * 64,
)


RECEIPT = Receipt("00007", WHEN, FINDING)


class Quiet:
    def progress(self, *told: object) -> None:
        pass

    def listed(self, shard: str, piece: bytes) -> None:
        pass


class World:
    """A node with a proven shard 00007, of which one value is lost, and its receipt."""

    def __init__(self, path: Path) -> None:
        self.node = Node(path / "data", version="0.8", phantoms=False)
        self.node.old_shard(7, points=400, storage="tables")
        self.node.migrate(7, lose=1, storage="tables")
        self.layout = find_layout(str(self.node.path), None, {})
        self.receipts = Receipts(self.layout)
        self.old = self.node.old[7].path
        self.new = [shard.path for shard in self.node.new.values()]

    def prove(self) -> Receipt:
        """Prove the shard and write its receipt."""
        inventory = take_inventory(self.layout)
        proofs = Proofs()
        of = Setting(catalogue_of(self.layout, None), local_shards(self.layout, inventory))
        list(prove_shards(inventory.old or (), self.layout, of, proofs, Quiet()))
        self.receipts.write(proofs.receipts["00007"])
        return proofs.receipts["00007"]

    def holds(self) -> bool:
        return (
            self.receipts.holding("00007", NewSide(self.layout, RaftCatalogue(self.layout.raft)))
            is not None
        )


def signed(found: Any) -> bytes:
    """Return a receipt's document as a file whose checksum is right, whatever is in it."""
    if isinstance(found, dict):
        rest = {name: value for name, value in found.items() if name != "sha256"}
        found = rest | {"sha256": _checksum(rest)}
    return json.dumps(found).encode()


def planted(layout: Layout, content: bytes) -> Receipts:
    """Put content where a receipt of 00007 would be."""
    receipts = Receipts(layout)
    receipts.directory.mkdir(parents=True, exist_ok=True)
    (receipts.directory / "00007.json").write_bytes(content)
    return receipts


def document(layout: Layout) -> dict[str, Any]:
    """Return a sound receipt's JSON."""
    Receipts(layout).write(RECEIPT)
    found: dict[str, Any] = json.loads((Receipts(layout).directory / "00007.json").read_bytes())
    return found
