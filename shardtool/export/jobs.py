"""Which shards of a node are to be read, and which can't be."""

from __future__ import annotations

from collections.abc import Iterable

from shardtool.datadir.inventory import Inventory, OldShard, by_age
from shardtool.datadir.layout import Layout
from shardtool.errors import ShardtoolError
from shardtool.export.work import Job, Outcome
from shardtool.influxdb.catalogue import Catalogue
from shardtool.proof.evidence import is_readable, local_shards

ALL = "all"


class Jobs:
    """The shards to read, in the order in which they are read: the later ones last, and new ones
    behind old ones."""

    def __init__(self, layout: Layout, inventory: Inventory) -> None:
        """Begin with none."""
        self.readable: list[Job] = []
        self.others: list[Outcome] = []
        self._layout = layout
        self._inventory = inventory

    def add_old(self, only: frozenset[str] | None) -> None:
        """Add the old shards of these names; None for all."""
        for shard in sorted(self._inventory.old or (), key=lambda shard: by_age(shard.name)):
            if only is not None and shard.name not in only:
                continue
            path = self._layout.old_shards / shard.name
            job = Job(path, "leveldb", is_new=False, size=shard.tree.apparent_bytes)
            if is_readable(shard):
                self.readable.append(job)
            else:
                word, why = _trouble_with(shard)
                self.others.append(Outcome(job, word=word, detail=f"{path}: {why}"))

    def add_new(self, named: Iterable[str], catalogue: Catalogue) -> None:
        """Add new shards by number; ALL stands for each that raft knows and is on this node.

        Raises:
            ShardtoolError: one of them is not there.
        """
        local = local_shards(self._layout, self._inventory)
        sizes = {one.name: one.tree.apparent_bytes for one in self._inventory.new or ()}
        for name in sorted(self._names(named, catalogue, frozenset(local)), key=by_age):
            shard = local[name]
            job = Job(shard.path, shard.engine, is_new=True, size=sizes[name])
            if shard.in_use:
                detail = f"{shard.path}: a server has it open, and it is an lmdb; stop it first"
                self.others.append(Outcome(job, word="in-use", detail=detail))
            elif shard.error:
                detail = f"{shard.path}: can't be read: {shard.error}"
                self.others.append(Outcome(job, word="engine-unreadable", detail=detail))
            else:
                self.readable.append(job)

    def _names(self, named: Iterable[str], catalogue: Catalogue, there: frozenset[str]) -> set[str]:
        found: set[str] = set()
        for text in named:
            if text == ALL:
                found |= {f"{shard.id:05d}" for shard in catalogue.shards} & there
                continue
            name = text.zfill(5) if text.isascii() and text.isdigit() else text
            if name not in there:
                raise ShardtoolError(
                    f"{self._layout.new_shards / name}: expected a new shard of that number, "
                    "found none; see shardtool status"
                )
            found.add(name)
        return found


def _trouble_with(shard: OldShard) -> tuple[str, str]:
    """Return a reason's word and words for an entry of shard_db that can't be read."""
    if shard.kind != "directory":
        return "not-a-shard", f"expected a directory, found a {shard.kind}"
    if shard.error:
        return "engine-unreadable", f"can't be read: {shard.error}"
    if not shard.has_database:
        return "not-a-shard", "expected a LevelDB, found none (no CURRENT)"
    if shard.mounts:
        return "mount-point", f"something is mounted there: {', '.join(shard.mounts)}"
    return "locked", "another process has it open; stop it, or wait"
