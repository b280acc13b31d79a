"""Completion in real shells: commands, options, values, and the names that are on this machine."""

from __future__ import annotations

import json
import os
import resource
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fixtures import Node
from tests.conftest import COMMAND, Listing, Run
from tests.e2e.terminal_world import Terminal
from tests.needs import lacking

SCRIPTS = Path(__file__).parents[2] / "docs" / "completions"
BASH_COMPLETION = Path("/usr/share/bash-completion/bash_completion")
HOSTILE = ("00004$(touch pwned)", "\x1b[31mred", "00006 7", "--yes", "`touch pwned`")
ID = "20261124T175153Z"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Make a node in a directory with a blank and a quote in its name, and names that are traps."""
    node = Node(
        tmp_path / "it's data",
        version="0.8",
        databases={"metrics": ("cpu",), "$(touch pwned)": ("cpu",), "a b": ("cpu",)},
    )
    for number in (1, 2, 13):
        node.old_shard(number, points=2)
    for name in HOSTILE:
        (node.shard_db / name).mkdir()
        (tmp_path / "store" / name).mkdir(parents=True)
    (tmp_path / "store" / ID).mkdir()
    return node.path


class Shell:
    """A shell with the completion of shardtool, in a terminal or asked without one.

    Args:
        name: bash, bash-completion (bash with that package), zsh or fish.
        home: an empty directory; the shell starts in it.
    """

    def __init__(self, name: str, home: Path) -> None:
        self._name, self._home = name, home
        home.mkdir()
        (home / "bin").mkdir()
        runner = home / "bin" / "shardtool"
        runner.write_text(f'#!/bin/sh\nexec {" ".join(COMMAND)} "$@"\n')
        runner.chmod(0o755)
        self._environment = {
            "HOME": str(home),
            "ZDOTDIR": str(home),
            "PATH": f"{home}/bin:{os.environ['PATH']}",
            "XDG_DATA_DIRS": f"{home}/share:/usr/local/share:/usr/share",
            "LC_ALL": "C.UTF-8",
            "HISTFILE": "/dev/null",
        }
        program = self._set_up()
        self.terminal = Terminal(program=program, **self._environment)
        self.terminal.wait_for("READY>")

    def _set_up(self) -> tuple[str, ...]:
        rc = self._home / ".zshrc"
        start = f"cd {self._home}; PS1='READY> '; stty cols 500\n"
        if self._name == "zsh":
            functions = self._home / "share" / "zsh"
            functions.mkdir(parents=True)
            shutil.copy(SCRIPTS / "_shardtool", functions)
            start += f"fpath=({functions} $fpath); autoload -Uz compinit; compinit -u -D\n"
            rc.write_text(start)
            return "zsh", "-d", "-i"
        if self._name == "bash":
            start += f". {SCRIPTS / 'shardtool.bash'}\n"
        else:  # bash-completion finds it by the command's name, where the wheel puts it
            scripts = self._home / "share" / "bash-completion" / "completions"
            scripts.mkdir(parents=True)
            shutil.copy(SCRIPTS / "shardtool.bash", scripts / "shardtool")
            start += f". {BASH_COMPLETION}\n"
        rc.write_text(start + "bind 'set enable-bracketed-paste off'\n")
        return "bash", "--rcfile", str(rc), "-i"

    def completed(self, line: str, expected: str) -> str:
        """Type a line and the tab key, wait for what is expected, and leave the line."""
        self.terminal.shown = ""
        self.terminal.type(f"{line}\t")
        shown = self.terminal.wait_for(expected)
        self.terminal.shown = ""
        self.terminal.type("\x15\n")
        self.terminal.wait_for("READY>")
        return shown


@pytest.fixture(params=["bash", "bash-completion", "zsh"])
def shell(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shell]:
    """Start a shell in a terminal."""
    name: str = request.param
    if shutil.which(name.partition("-")[0]) is None or (
        name == "bash-completion" and not BASH_COMPLETION.exists()
    ):
        lacking(name)
    started = Shell(name, tmp_path / "home")
    yield started
    started.terminal.process.kill()
    started.terminal.end()


@pytest.mark.slow
def test_a_shell_completes_what_was_begun_and_runs_nothing_of_a_name(
    shell: Shell, data: Path, tmp_path: Path
) -> None:
    where = f'--data "{data}"'
    for line, expected in (
        ("shardtool pru", "prune"),
        ("shardtool prune --until", "--until-free"),
        ("shardtool export --format par", "parquet"),
        ("shardtool export --format=par", "parquet"),
        (f"shardtool {where} verify 0001", "00013"),
        (f"shardtool verify {where} 00001 0001", "00013"),
        (f'shardtool --data="{data}" accept 0001', "00013"),
        (f"shardtool snapshots --store {tmp_path}/store verify 2026", ID),
        (f"shardtool restore --store {tmp_path}/store lat", "latest"),
        (f"shardtool spaces list {where} --database me", "metrics"),
        (f"shardtool --influx-config {tmp_path}/home/b", "bin"),
        (f"shardtool report --html {tmp_path}/sto", "store"),
        (f"shardtool --data {tmp_path}/it", "\\'s\\ "),
    ):
        shell.completed(line, expected)
    assert list(tmp_path.rglob("pwned")) == []


def test_a_shell_shows_no_error_where_there_is_no_node(shell: Shell) -> None:
    shown = shell.completed("shardtool --data /nowhere verify \t\t --aga", "--again")
    assert "rror" not in shown
    assert "nowhere:" not in shown


def test_fish_completes_what_was_begun(data: Path, tmp_path: Path) -> None:
    if shutil.which("fish") is None:
        lacking("fish")
    where = f'--data "{data}"'
    asked = {
        "shardtool pru": ["prune"],
        "shardtool prune --until": ["--until-free"],
        "shardtool export --format par": ["parquet"],
        f"shardtool {where} verify ": ["00001", "00002", "00013"],
        f"shardtool verify {where} 00001 0001": ["00013"],
        f'shardtool --data="{data}" accept 0001': ["00013"],
        f'SHARDTOOL_DATA="{data}" shardtool prune 0001': ["00013"],
        f"shardtool snapshots --store {tmp_path}/store verify ": ["latest", ID],
        f"shardtool restore --store {tmp_path}/store lat": ["latest"],
        f"shardtool spaces list {where} --database ": ["metrics", "test"],
        f"shardtool --data {tmp_path}/sto": [f"{tmp_path}/store/"],
        "shardtool --data /nowhere verify ": [],
    }
    (tmp_path / "bin").mkdir()
    runner = tmp_path / "bin" / "shardtool"
    runner.write_text(f'#!/bin/sh\nexec {" ".join(COMMAND)} "$@"\n')
    runner.chmod(0o755)
    lines = "".join(
        f"echo ==; complete -C {_fish_quoted(line)} | string split -f1 \\t\n" for line in asked
    )
    done = subprocess.run(
        ["fish", "--no-config", "-c", f"source {SCRIPTS / 'shardtool.fish'}\n{lines}"],
        env={**os.environ, "PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "HOME": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,  # 1 where the last line has no answer
    )
    answers = [part.split("\n")[:-1] for part in done.stdout.split("==\n")[1:]]
    assert dict(zip(asked, answers, strict=True)) == asked
    assert done.stderr == ""
    assert list(tmp_path.rglob("pwned")) == []


def _fish_quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def test_bash_completes_under_whatever_options_the_user_has_set(data: Path) -> None:
    asked = {
        ("prune", "--trust", ""): "marker",
        ("--data", f"'{data.parent}/link'", "verify", "0001"): "00013",
        ("spaces", "ex"): "explain",
        ("spaces", "apply", "--data", f"{data.parent}/link", "--like-0.7", "test", "me"): "metrics",
        ("prune", "--trust", "=", "m"): "marker",
        ("prune", "--trust", "=", "m", "--dry"): "--dry-run",
        ("nonsense", "x"): "",
        ("verify", "--nonsense", "--aga"): "--again",
    }
    (data.parent / "link").symlink_to(data)
    code = [f". {SCRIPTS / 'shardtool.bash'}", "set -u; shopt -s failglob; IFS=:"]
    for words in asked:
        line = " ".join(("shardtool", *words)).replace(" = ", "=")
        array = " ".join(map(shlex.quote, (COMMAND[0], *words)))
        code += [
            f"COMP_WORDS=({array}) COMP_CWORD={len(words)}",
            f"COMP_LINE={shlex.quote(line.replace('shardtool', COMMAND[0], 1))}",
            'COMP_POINT=${#COMP_LINE}; _shardtool; printf "%s\\n" "${COMPREPLY[*]-}"',
        ]
    done = subprocess.run(
        ["bash", "-c", "\n".join(code)], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == list(asked.values())


# -- what the scripts ask --


def asked(shardtool: Run, *words: str | Path, **settings: object) -> list[str]:
    done = shardtool("--complete", *words, **settings)
    assert (done.returncode, done.stderr) == (0, "")
    lines: list[str] = done.stdout.splitlines()
    return lines


def test_only_names_that_no_shell_takes_for_something_else_are_offered(
    shardtool: Run, data: Path, tmp_path: Path
) -> None:
    assert asked(shardtool, "old-shards", "--data", data) == ["00001", "00002", "00013"]
    assert asked(shardtool, "databases", "--data", data) == ["metrics", "test"]
    assert asked(shardtool, "snapshots", f"--store={tmp_path}/store") == ["latest", ID]


def test_words_are_taken_as_the_shell_would_take_them_but_no_command_in_them_is_run(
    shardtool: Run, data: Path, tmp_path: Path
) -> None:
    (tmp_path / "plain").symlink_to(data)
    for word in ("~/plain", '"$HOME/plain"', "$HOME/pla\\in", f"'{tmp_path}/plain'"):
        found = asked(shardtool, "old-shards", "--data", word, env={"HOME": str(tmp_path)})
        assert found == ["00001", "00002", "00013"], word
    assert asked(shardtool, "old-shards", "--data", f"$(touch {tmp_path}/pwned)") == []
    assert not (tmp_path / "pwned").exists()


def test_what_can_not_be_found_gives_no_names_and_no_error(shardtool: Run, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "config.toml")
    (tmp_path / "store").write_text("no directory")
    for words in (
        (),
        ("nonsense",),
        ("old-shards",),
        ("old-shards", "--data", "/nowhere"),
        ("old-shards", "--data", ""),
        ("old-shards", "--data", "'unclosed"),
        ("old-shards", "--influx-config", tmp_path / "config.toml"),
        ("snapshots", "--store", tmp_path / "store"),
        ("snapshots", "--store", "s3://bucket/prefix"),
        ("databases", "--data", tmp_path),
    ):
        assert asked(shardtool, *words) == []


def test_the_store_of_the_environment_and_the_nodes_own_are_found(
    shardtool: Run, data: Path, tmp_path: Path
) -> None:
    store = {"SHARDTOOL_SNAPSHOTS": str(tmp_path / "store")}
    assert asked(shardtool, "snapshots", "restore", env=store) == ["latest", ID]
    (data / "snapshots" / ID).mkdir(parents=True)
    assert asked(shardtool, "snapshots", "--data", data, "restore") == ["latest", ID]


def test_asking_for_names_changes_nothing(
    shardtool: Run, data: Path, listing: Callable[[Path], Listing]
) -> None:
    before = listing(data)
    for kind in ("old-shards", "new-shards", "snapshots", "databases"):
        asked(shardtool, kind, "--data", data)
    assert listing(data) == before


def test_asking_for_names_takes_no_lock_and_opens_nothing_for_writing(
    strace: None, data: Path, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    calls = "trace=flock,fcntl,openat,mkdir,rename,unlink"
    strace_words = ("strace", "-f", "-o", trace, "-e", calls)
    for kind in ("old-shards", "snapshots", "databases"):
        subprocess.run(
            [*strace_words, *COMMAND, "--complete", kind, "--data", data],
            check=True,
            timeout=60,
        )
        of_the_node = [line for line in trace.read_text().splitlines() if str(data) in line]
        assert not [line for line in of_the_node if "O_RDONLY" not in line]
        assert "flock(" not in trace.read_text()
        assert "F_SETLK" not in trace.read_text()


def test_a_thousand_shards_take_less_than_half_a_second(shardtool: Run, tmp_path: Path) -> None:
    for number in range(1, 1001):
        (tmp_path / "db" / "shard_db" / f"{number:05d}").mkdir(parents=True)
    # CPU time: what else the machine does is not ours.
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert len(asked(shardtool, "old-shards", "--data", tmp_path)) == 1000
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5


def test_a_disk_that_does_not_answer_ends_it_in_time(data: Path) -> None:
    # As a hung mount: the listing sleeps. A signal must end it, with nothing said.
    code = (
        "import os, sys, time; from shardtool.cli import completing; "
        "os.listdir = lambda path: time.sleep(30); "
        "sys.exit(completing.run(['old-shards', '--data', sys.argv[1]]))"
    )
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code, str(data)],
        capture_output=True,
        timeout=20,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert time.monotonic() - began < 10


def test_a_document_is_printed_as_before_where_complete_is_not_the_first_word(
    shardtool: Run, data: Path
) -> None:
    assert json.loads(shardtool("--data", data, "status", "--json").stdout)["old_shards"]
    assert shardtool("status", "--complete").returncode == 2
