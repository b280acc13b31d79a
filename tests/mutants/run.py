"""Mutation testing: what no test notices must be known and harmless (reviewed.toml says why).

    python -m tests.mutants.run [--critical] [--in DIRECTORY] [PATTERN...]

Without a pattern, all of disk/, prune/, proof/ and snapshots/ is mutated, which takes hours: make
mutants. A pattern is a mutant's name in mutmut's own form, such as 'shardtool.disk.remove.*'. In a
directory that is given, a run without patterns goes on where the last one ended.

mutmut and not cosmic-ray: it forks a process in which all is imported already, and runs only the
tests that reach the function, so that a mutant costs a second and not a start of the whole suite.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
REVIEWED = Path(__file__).with_name("reviewed.toml")
MUTATED = ("disk", "prune", "proof", "snapshots")
# What the promise hangs on, and the tests that are about nothing else: fast enough for each run
# of make test-all. Their mutants have to die of these.
CRITICAL = {
    "disk/files": ("unit/test_opened_files",),
    "disk/locks": ("real/test_locks",),
    "disk/mounts": ("real/test_mounts", "real/test_remove"),
    "disk/remove": ("real/test_remove",),
    "proof/state": ("unit/test_shard_state",),
    "prune/plan": ("unit/test_policy_plan",),
    "prune/policy": ("unit/test_policy_plan",),
    "prune/trash": ("unit/test_trash",),
    "snapshots/bag": ("unit/test_snapshot_format",),
    "snapshots/forget": ("unit/test_forgetting",),
    "snapshots/metadata": ("unit/test_snapshot_format",),
    "snapshots/moves": ("unit/test_restore_moves",),
    "snapshots/pending": ("unit/test_small_files",),
    "snapshots/restore": ("unit/test_restore_elsewhere",),
    "snapshots/retention": ("unit/test_retention",),
    "snapshots/store": (
        "unit/test_forgetting",
        "unit/test_snapshot_stores",
        "unit/test_store_choices",
    ),
}
_DEAD = ("killed", "timeout")


@dataclass(frozen=True)
class Mutant:
    """A mutant: mutmut's name for it, the function, what became of it, and what was changed."""

    name: str
    function: str
    status: str
    diff: tuple[str, ...]


def try_mutants(
    directory: Path,
    patterns: Iterable[str] = (),
    modules: Mapping[str, Iterable[str]] | None = None,
) -> list[Mutant]:
    """Copy the repository into `directory`, mutate it there and return what became of each.

    Args:
        directory: for the copy.
        patterns: names of mutants; none for all.
        modules: the only modules to mutate, each with its tests; None for what pyproject.toml says.

    Raises:
        CalledProcessError: mutmut failed, or the tests do without any mutant.
    """
    tree = directory / "main"
    _copy(tree)
    if modules is not None:
        _narrow(tree / "pyproject.toml", modules)
    subprocess.run(
        [sys.executable, "tests/mutants/mutate.py", *patterns],
        cwd=tree,
        check=True,
        # The tests that are run are those of the mutated copy, and so is what they import.
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
    )
    found = json.loads((tree / "results.json").read_text())
    return [Mutant(m["name"], m["in"], m["status"], tuple(m["diff"])) for m in found]


def _copy(tree: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        check=True,
        capture_output=True,
        text=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        source, target = REPOSITORY / name, tree / name
        if not source.is_file():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target)
        if name.endswith(".py") and name.startswith(tuple(f"shardtool/{m}/" for m in MUTATED)):
            times = source.stat()
            target.write_text(without_decorators(source.read_text()))
            os.utime(target, ns=(times.st_atime_ns, times.st_mtime_ns))
    (tree / "mutants").mkdir(exist_ok=True)
    shutil.copy2(Path(__file__).with_name("child.py"), tree / "mutants" / "sitecustomize.py")
    shared = tree / "shared"  # where the tests of a copy of the copy look for captures
    if not shared.is_symlink():
        shared.symlink_to(REPOSITORY.parent / "shared")


def _narrow(settings: Path, modules: Mapping[str, Iterable[str]]) -> None:
    """Have mutmut mutate only these modules, and run only these tests."""
    wanted = {
        "only_mutate": [f"shardtool/{module}.py" for module in modules],
        "pytest_add_cli_args_test_selection": sorted(
            {f"tests/{test}.py" for tests in modules.values() for test in tests}
        ),
    }
    text = settings.read_text()
    for name, value in wanted.items():
        text, count = re.subn(rf"(?ms)^{name} = \[.*?^\]$", f"{name} = {json.dumps(value)}", text)
        assert count == 1, name
    settings.write_text(text)


def without_decorators(source: str) -> str:
    """Given a module, return it with its functions' decorators applied by assignments.

    mutmut leaves a decorated function alone, and every file here is opened in one.

    Example: '@cached\\ndef f(): ...' -> 'def f(): ...\\nf = cached(f)'.
    """
    lines = source.splitlines()
    functions = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]
    for node in sorted(functions, key=lambda node: -node.lineno):
        words = [ast.unparse(decorator) for decorator in node.decorator_list]
        if not words or words in (["staticmethod"], ["classmethod"]):
            continue
        assert node.end_lineno is not None
        indent = " " * node.col_offset
        decorated = "(".join([*words, node.name]) + ")" * len(words)
        lines.insert(node.end_lineno, f"{indent}{node.name} = {decorated}")
        first = node.decorator_list[0].lineno - 1
        del lines[first : node.lineno - 1]
    return "\n".join(lines) + "\n"


def reviewed() -> dict[tuple[str, tuple[str, ...]], str]:
    """Return the reviewed survivors, (function, changed lines), each with its reason."""
    document = tomllib.loads(REVIEWED.read_text())
    return {
        (entry["in"], tuple(line.strip("\n") for line in diff.strip("\n").split("\n"))): entry[
            "why"
        ]
        for entry in document["survivor"]
        for diff in entry["diffs"]
    }


def unknown(mutants: list[Mutant]) -> list[Mutant]:
    """Return those that no test has killed and that are not among the reviewed."""
    known = reviewed()
    return [m for m in mutants if m.status not in _DEAD and (m.function, m.diff) not in known]


def outdated(mutants: list[Mutant]) -> list[str]:
    """Return what was reviewed of functions that were mutated, and lives no more."""
    functions = {mutant.function for mutant in mutants}
    alive = {(mutant.function, mutant.diff) for mutant in mutants if mutant.status not in _DEAD}
    return [
        "\n".join([function, *diff])
        for function, diff in reviewed()
        if function in functions and (function, diff) not in alive
    ]


def report(mutants: list[Mutant]) -> str:
    """Return a table of what became of the mutants, module by module, and the unknown ones."""
    rows = []
    alive = unknown(mutants)
    for module in sorted({m.name.partition(".x")[0] for m in mutants}):
        of_it = [m for m in mutants if m.name.startswith(module + ".x")]
        killed = sum(m.status in _DEAD for m in of_it)
        new = sum(m in alive for m in of_it)
        rows.append(f"{module:36} {len(of_it):5} mutants {killed:5} killed {new:5} not reviewed")
    for mutant in alive:
        rows += [f"\n{mutant.name}: {mutant.status}", *mutant.diff]
    return "\n".join(rows)


def main() -> int:
    """Run by hand; 1 where a mutant survives that nobody has looked at."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--in", dest="directory", type=Path)
    parser.add_argument("--critical", action="store_true", help="only what make test-all tries")
    parser.add_argument("patterns", nargs="*")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        directory = (given.directory or Path(scratch)).resolve()
        mutants = try_mutants(directory, given.patterns, CRITICAL if given.critical else None)
    print(report(mutants))
    return 1 if unknown(mutants) else 0


if __name__ == "__main__":
    sys.exit(main())
