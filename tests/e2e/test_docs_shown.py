"""What the documentation shows is what happens: the examples of the pages and of --help, the man
pages, and what a wheel installs."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from difflib import ndiff
from pathlib import Path

import pytest

from docs.examples.blocks import Example, examples_of, rewritten, same, stable
from docs.examples.world import JOURNEY, NEEDS_SERVER, World, new_world
from docs.generate.facts import commands
from docs.generate.text import examples_of as examples_of_help
from shardtool.cli import app
from tests.conftest import COMMAND, REPOSITORY, Run
from tests.needs import lacking, needs_plyvel

PAGES = REPOSITORY / "docs" / "commands"
MAN = sorted((REPOSITORY / "docs" / "man").iterdir())
# Those that only read, and can be run on a node that is there and without a server.
READING = ("status", "check", "snapshots", "verify", "report", "history", "export", "prune")


# -- the pages --


@needs_plyvel  # the pages show shards of LevelDB's own tables
@pytest.mark.slow
def test_the_examples_of_the_pages_print_what_the_pages_show() -> None:
    wrong: list[str] = []
    before = JOURNEY.index(NEEDS_SERVER)
    with new_world(COMMAND) as world:
        for name in JOURNEY[:before]:
            wrong += _wrong(name, world)
        with world.server():
            for name in JOURNEY[before:]:
                wrong += _wrong(name, world)
    assert not wrong, "\n".join([*wrong, "mend it with: python -m docs.examples"])


def _wrong(name: str, world: World) -> Iterator[str]:
    for example in examples_of((PAGES / f"{name}.md").read_text(encoding="utf-8")):
        printed = world.run(example)
        if not same(example, printed):
            lines = ndiff(example.output.splitlines(), printed.splitlines())
            changed = "\n".join(line for line in lines if line[0] in "+-")
            yield f"{name}.md: $ {example.command}\n{changed}"


def test_an_output_is_written_into_its_page_and_nothing_else_of_it_changes() -> None:
    page = (
        "# a\n\n```console\n$ one\nold\n\n$ two\n```\n\n<!-- json: three -->\n```json\n```\nend\n"
    )

    def output(example: Example) -> str:
        return "" if example.command == "two" else f"new {example.command}\n"

    written = rewritten(page, output)
    assert written == (
        "# a\n\n```console\n$ one\nnew one\n\n$ two\n```\n\n"
        "<!-- json: three -->\n```json\nnew three\n```\nend\n"
    )
    assert rewritten(written, output) == written


def test_times_ids_and_sizes_may_differ_and_counts_may_not() -> None:
    text = "12 shards (2.4M), 20261124T175153Z, 2026-11-24 17:51:53, 28s old"
    other = "12 shards (17K), 20270101T000000Z, 2027-01-01 00:00:00, 3s old"
    assert stable(text) == stable(other)
    assert stable(text) != stable(other.replace("12 ", "13 "))
    assert stable("a snapshot: verified\n  to the end") == stable(
        "a snapshot:\n  verified to the end"
    )


# -- the examples of --help --


def _help_examples() -> list[tuple[str, str]]:
    """Return each example of a shardtool command in a help: the command's name and its words."""
    found = []
    for name in ("", *(command.name for command in commands())):
        parser = app.command_parser(name) if name else app.program_parser()
        for line in examples_of_help(parser.epilog or ""):
            if "shardtool" in line:
                words = re.split(r"(?: \\| [|>]|; )", line[line.index("shardtool") :])[0]
                found.append((name, words))
    return found


@pytest.mark.parametrize("example", _help_examples(), ids=lambda example: example[1])
def test_an_example_of_a_help_is_a_command_line(example: tuple[str, str]) -> None:
    args = app.program_parser().parse_args(shlex.split(example[1])[1:])
    assert args.command == (example[0] or args.command)
    parsed = app.command_parser(args.command).parse_intermixed_args(args.rest, namespace=args)
    assert parsed.command == args.command


@pytest.mark.slow
def test_the_examples_that_only_read_run_as_they_stand(
    capture: Callable[[str], Path], shardtool: Run, tmp_path: Path
) -> None:
    data = capture("migrated-08")
    store = tmp_path / "store"
    environment: dict[str, str | None] = {
        "SHARDTOOL_DATA": str(data),
        "SHARDTOOL_SNAPSHOTS": str(store),
    }
    store.mkdir()
    assert shardtool("backup", env=environment).returncode == 0
    (tmp_path / "db1.json").write_text(shardtool("report", "--json", env=environment).stdout)
    ran = set()
    for name, line in _help_examples():
        words = shlex.split(line)[1:]
        if _only_reads(name, words):
            done = shardtool(*words, env=environment, cwd=tmp_path)
            # How much of its disk is free is this machine's: a plugin may warn of it.
            good = (0, 1, 2) if "--nagios" in words else (0, 3)
            assert done.returncode in good, f"{line}\n{done.stderr}"
            assert done.stdout, line
            ran.add(name)
    assert ran >= set(READING)


def _only_reads(name: str, words: list[str]) -> bool:
    """Say whether an example needs neither a server, nor files of its own, nor ever ends."""
    needs = ("--api", "--store", "--watch", "--influx-config", "--data", "--yes", "--prometheus")
    named = re.search(r"\d{8}T|db2|- --html", " ".join(words))
    return name in READING and not named and not set(needs) & set(words)


# -- man pages --


@pytest.mark.parametrize("page", MAN, ids=lambda page: page.name)
def test_a_man_page_is_clean_and_80_columns_hold_it(page: Path) -> None:
    for program in ("mandoc", "man"):
        if shutil.which(program) is None:
            lacking(program)
    lint = subprocess.run(
        ["mandoc", "-Tlint", "-W", "warning", page], capture_output=True, text=True, check=False
    )
    assert lint.stdout + lint.stderr == ""
    shown = subprocess.run(
        ["man", "-l", page],
        env={"PATH": os.environ["PATH"], "MANWIDTH": "80", "MAN_KEEP_FORMATTING": "", "LANG": "C"},
        capture_output=True,
        text=True,
        check=True,
    )
    plain = re.sub(r".\x08", "", shown.stdout)
    assert [line for line in plain.expandtabs().splitlines() if len(line) > 80] == []
    for section in ("NAME", "SYNOPSIS", "DESCRIPTION", "EXAMPLES", "EXIT STATUS", "SEE ALSO"):
        assert re.search(rf"^{section}$", plain, re.MULTILINE), section
    assert shown.stderr == ""


# -- the wheel --

SHARE = (
    "man/man1/shardtool.1",
    "man/man1/shardtool-prune.1",
    "bash-completion/completions/shardtool",
    "zsh/site-functions/_shardtool",
    "fish/vendor_completions.d/shardtool.fish",
    "shardtool/deploy/README.md",
    "shardtool/deploy/systemd/shardtool-prune.timer",
)


def _ran(*words: str | Path, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        list(words),
        cwd=cwd,
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, f"{words}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_pipx_installs_the_wheel_with_and_without_extras_and_the_sdist_builds(
    tmp_path: Path, capture: Callable[[str], Path]
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    tools = tmp_path / "tools"
    _ran(sys.executable, "-m", "venv", tools, cwd=tmp_path)
    _ran(tools / "bin" / "pip", "install", "-q", "pipx", "build", cwd=tmp_path, HOME=str(home))
    _ran(tools / "bin" / "python", "-m", "build", "-o", tmp_path / "dist", cwd=REPOSITORY)
    (wheel,) = (tmp_path / "dist").glob("shardtool-*.whl")
    assert list((tmp_path / "dist").glob("shardtool-*.tar.gz"))

    def pipx(*words: str | Path) -> None:
        own = {"HOME": str(home), "PIPX_DEFAULT_PYTHON": sys.executable}
        _ran(tools / "bin" / "pipx", *words, cwd=home, **own)

    def shardtool(*words: str | Path) -> str:
        return _ran(home / ".local/bin/shardtool", *words, cwd=home, HOME=str(home))

    data = capture("migrated-08")
    pipx("install", wheel)
    assert shardtool("--version").startswith("shardtool ")
    assert "27 old shards" in shardtool("--data", data, "status", "--quiet")
    (share,) = home.rglob("venvs/shardtool/share")
    assert [name for name in SHARE if not (share / name).is_file()] == []
    assert (home / ".local/share/man/man1/shardtool-prune.1").exists()
    pipx("install", "--force", f"{wheel}[parquet,zstd,s3]")
    python = share.parent / "bin" / "python"
    zstd = "compression.zstd" if sys.version_info >= (3, 14) else "zstandard"
    for module in ("pyarrow", "obstore", zstd):
        _ran(python, "-c", f"import {module}", cwd=home)
    for name in ("all.parquet", "test.lp.zst"):
        words = ("--data", data, "export", "1", "--database", "test", "--to", name)
        subprocess.run([home / ".local/bin/shardtool", *words], cwd=home, check=False, timeout=60)
        assert (home / name).stat().st_size > 0
