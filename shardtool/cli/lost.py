"""What `shardtool export --lost` adds: old shards are compared with the new storage first."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from shardtool.cli.output import Output
from shardtool.cli.proving import Collecting, Reading, new_side
from shardtool.datadir.inventory import Inventory
from shardtool.datadir.layout import Layout
from shardtool.export.lost import Keys, LostValues
from shardtool.export.work import Job, Outcome
from shardtool.proof.evidence import Proofs, prove_shards
from shardtool.proof.prove import Finding
from shardtool.proof.run import Setting
from shardtool.proof.scratch import scratch_directory
from shardtool.words import names, plural


class Seeker:
    """Finds out which values of old shards the new storage lacks.

    No receipt is used, for none has single values; and none is written: export changes nothing.

    Attributes:
        setting: what the shards are compared with.
        values: which values are lost, where that is known.
        findings: of the shards that could be proven, by name.
    """

    def __init__(
        self, setting: Setting, scratch: Path, layout: Layout, inventory: Inventory, out: Output
    ) -> None:
        """Begin with nothing known; `scratch` takes what is found."""
        self.setting = setting
        self.values = LostValues(scratch)
        self.findings: dict[str, Finding] = {}
        self._layout = layout
        self._inventory = inventory
        self._out = out

    def prove(self, jobs: Sequence[Job]) -> Mapping[Path, Outcome]:
        """Prove old shards; return how those ended of which it can't be told what is lost.

        Raises:
            ShardtoolError: it can't be done at all: no room, a server that refuses.
        """
        shards = {shard.name: shard for shard in self._inventory.old or ()}
        chosen = [shards[job.name] for job in jobs]
        proofs = Proofs()
        with contextlib.ExitStack() as stack:
            collecting = Collecting(Keys, self.values.add)
            screen = stack.enter_context(Reading(chosen, self._out, collecting))
            ends = prove_shards(
                chosen, self._layout, self.setting, proofs, screen, lister=collecting.lister
            )
            for name in stack.enter_context(contextlib.closing(ends)):
                screen.ends(name, proofs.evidence[name].values)
        for name, receipt in proofs.receipts.items():
            self.findings[name] = receipt.finding
            self.values.proven(name, receipt.finding.old_state)
        self._warn()
        failures = {job: proofs.evidence[job.name].failure for job in jobs}
        return {
            job.path: Outcome(job, word=failure.word, detail=failure.detail)
            for job, failure in failures.items()
            if failure is not None
        }

    def _warn(self) -> None:
        """Tell of what may not be lost at all: it may be on servers that nobody asked."""
        there = [name for name, finding in sorted(self.findings.items()) if finding.elsewhere]
        if there and self.setting.ask is None:
            self._out.warn(
                f"{plural(len(there), 'shard')} ({names(there)}): lost values may be on other "
                "servers of the cluster; --api URL asks for them"
            )


@contextlib.contextmanager
def opened_seeker(
    args: argparse.Namespace, layout: Layout, inventory: Inventory, out: Output
) -> Iterator[Seeker]:
    """Yield what finds lost values, as --api and its options say.

    Raises:
        CatalogueError: what raft knows can't be read, so that nothing can be looked for.
        ShardtoolError: --api's server can't be asked.
        UsageError: --api's words are wrong, or a password is missing.
    """
    with new_side(args, layout, inventory) as setting, scratch_directory() as scratch:
        yield Seeker(setting, scratch, layout, inventory, out)
