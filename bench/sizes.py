"""How much the bench works on: all of it takes an hour or more, the small one a minute or two."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sizes:
    """What each part works on.

    Args:
        rounds: how often each of two sides takes its turn.
        status: shards, of 1,000 files each.
        backup: bytes.
        prune: shards, of 1,000 files each.
        values: of verify and of export.
        grown_rounds: how often each size is measured where there are three of one thing.
        grown_shards: shards, at three sizes.
        grown_files: files of each of them.
        grown_values: values of one shard, at three sizes.
    """

    rounds: int
    status: int
    backup: int
    prune: int
    values: int
    grown_rounds: int
    grown_shards: tuple[int, ...]
    grown_files: int
    grown_values: tuple[int, ...]

    def notes(self) -> list[str]:
        """Return the lines that say so below the table."""
        shards = " / ".join(f"{count:,}" for count in self.grown_shards)
        values = " / ".join(f"{count / 1e6:g}" for count in self.grown_values)
        return [
            f"RATIO: our time by theirs, whole processes by turns, median of {self.rounds} rounds;",
            "NOISE: their slowest round by their fastest. Warm, unless it says cold.",
            f"status: {self.status} shards x 1,000 files; prune: {self.prune} x 1,000;",
            f"backup: {self.backup / 1e6:,.0f} MB; verify, export: {self.values / 1e6:g} M values.",
            "COST: time for each unit of work; MEMORY, CHILD: peak of the process, of its",
            f"largest child. Medians of {self.grown_rounds} (prune: one), by the smallest of",
            f"{shards} shards x {self.grown_files:,} files, and of",
            f"{values} M values in one shard.",
        ]


SIZES = {
    "full": Sizes(
        rounds=5,
        status=200,
        backup=1_000_000_000,
        prune=100,
        values=5_000_000,
        grown_rounds=3,
        grown_shards=(10, 100, 1000),
        grown_files=1000,
        grown_values=(500_000, 5_000_000, 50_000_000),
    ),
    "medium": Sizes(
        rounds=5,
        status=50,
        backup=250_000_000,
        prune=10,
        values=2_000_000,
        grown_rounds=3,
        grown_shards=(10, 100, 1000),
        grown_files=50,
        grown_values=(200_000, 2_000_000, 20_000_000),
    ),
    "small": Sizes(
        rounds=5,
        status=10,
        backup=40_000_000,
        prune=2,
        values=200_000,
        grown_rounds=3,
        grown_shards=(2, 20, 200),
        grown_files=20,
        grown_values=(10_000, 100_000, 1_000_000),
    ),
}
