"""What verify, prune and accept share: the way to the new storage, proofs with a progress bar."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from shardtool.cli.api import login_of
from shardtool.cli.output import Output
from shardtool.cli.progress import Progress
from shardtool.datadir.inventory import Inventory, OldShard
from shardtool.datadir.layout import Layout
from shardtool.datadir.verdict import Reason
from shardtool.errors import InterruptedByUserError, ShardtoolError
from shardtool.influxdb.errors import CatalogueError
from shardtool.proof.evidence import Proofs, local_shards, prove_shards
from shardtool.proof.receipts import Receipts
from shardtool.proof.run import Lister, Setting
from shardtool.proof.source import catalogue_of
from shardtool.words import plural

API = (
    "a server of the running cluster, such as http://localhost:8086: takes what raft knows from "
    "it, and asks it for values of shards that live on other servers"
)


def ask_again(proofs: Proofs, args: argparse.Namespace) -> None:
    """Where --api gives a cluster to ask, leave out what a receipt says of shards that lack values
    which other servers may have: it does not know what they would answer."""
    if args.api is not None:
        for name, receipt in list(proofs.receipts.items()):
            if receipt.finding.elsewhere:
                proofs.forget(name)


@contextlib.contextmanager
def new_side(args: argparse.Namespace, layout: Layout, inventory: Inventory) -> Iterator[Setting]:
    """Yield what old shards are compared with.

    Raises:
        CatalogueError: what raft knows can't be read.
        ShardtoolError: --api's server can't be asked.
        UsageError: --api's words are wrong, or a password is missing.
    """
    local = local_shards(layout, inventory)
    if args.api is None:
        yield Setting(catalogue_of(layout, None), local)
        return
    from shardtool.influxdb.api import Api
    from shardtool.proof.asking import ApiAsker

    login = login_of(args, layout, default=False)

    @contextlib.contextmanager
    def ask() -> Iterator[ApiAsker]:
        with Api(login.url, *login.credentials) as api:
            yield ApiAsker(api)

    with Api(login.url, *login.credentials) as api:
        catalogue = catalogue_of(layout, api)
    yield Setting(catalogue, local, ask)


@dataclass(frozen=True)
class Collecting:
    """What becomes of lost values.

    Args:
        lister: collects a shard's while it is proven; see proof.run.prove_all.
        take: takes what it has collected, piece by piece, when the shard is done with.
    """

    lister: Callable[[str], Lister]
    take: Callable[[str, bytes], object]


def printed(shard: str, piece: bytes) -> None:
    """Print a piece of a proof.listing.Listing, which is whole JSON lines."""
    sys.stdout.write(piece.decode("ascii"))


def prove_into(
    proofs: Proofs,
    shards: Sequence[OldShard],
    args: argparse.Namespace,
    layout: Layout,
    inventory: Inventory,
    out: Output,
    *,
    collecting: Collecting | None = None,
) -> None:
    """Prove `shards` as --api and its options say, with a progress bar; write their receipts.

    Args:
        proofs: filled as shards end.
        shards: what to prove; nothing is read where there are none.
        args: the command line, with what cli.api.add_api adds.
        layout: the node.
        inventory: of it.
        out: where to tell.
        collecting: takes the lost values; None: nobody does.

    Raises:
        ShardtoolError: it can't be done at all.
        InterruptedByUserError: ctrl-C; what is done has its receipts.
    """
    if not shards:
        return
    receipts, problems = Receipts(layout), []
    done = 0
    try:
        with contextlib.ExitStack() as stack:
            setting = stack.enter_context(new_side(args, layout, inventory))
            screen = stack.enter_context(Reading(shards, out, collecting))
            lister = None if collecting is None else collecting.lister
            ends = prove_shards(shards, layout, setting, proofs, screen, lister=lister)
            for name in stack.enter_context(contextlib.closing(ends)):
                done += 1
                screen.ends(name, proofs.evidence[name].values)
                if name in proofs.receipts:
                    try:
                        receipts.write(proofs.receipts[name])
                    except ShardtoolError as error:
                        problems.append(str(error))
    except CatalogueError as error:
        for shard in shards:
            proofs.fail(shard.name, Reason("catalogue-unreadable", str(error)))
    except KeyboardInterrupt:  # InterruptedByUserError is one
        raise InterruptedByUserError(
            f"interrupted; {done} of {plural(len(shards), 'shard')} were read and have receipts, "
            "and the next run goes on from there"
        ) from None
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        out.warn(problems[0] + more)


@dataclass
class _Seen:
    size: int = 0
    values: int = 0


class Reading:
    """A run's Told: the progress bar on stderr, and whoever takes the lost values."""

    def __init__(
        self, shards: Sequence[OldShard], out: Output, collecting: Collecting | None = None
    ) -> None:
        self._sizes = {shard.name: shard.tree.apparent_bytes for shard in shards}
        self._seen = {shard.name: _Seen() for shard in shards}
        self._collecting = collecting
        self._values = 0
        self._bar = Progress("reading", sum(self._sizes.values()), unit="bytes", out=out)

    def __enter__(self) -> Reading:
        self._bar.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.__exit__(None, None, None)

    def progress(self, shard: str, values: int, size: int) -> None:
        seen = self._seen[shard]
        # A shard that is read again, because it changed, begins anew.
        size = min(max(size, seen.size), self._sizes[shard])
        self._values += values - seen.values
        step, seen.size, seen.values = size - seen.size, size, values
        self._bar.advance(step, f"{self._values:,} values")

    def ends(self, shard: str, values: int) -> None:
        self.progress(shard, max(values, self._seen[shard].values), self._sizes[shard])

    def listed(self, shard: str, piece: bytes) -> None:
        if self._collecting is not None:
            self._collecting.take(shard, piece)
