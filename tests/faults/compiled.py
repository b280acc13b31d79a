"""The small C programs of these tests: what Python is too slow for, or can't do; and bytecode."""

from __future__ import annotations

import atexit
import compileall
import functools
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.conftest import REPOSITORY
from tests.needs import lacking


def compiled(name: str, directory: Path, *options: str) -> Path:
    """Compile `name`.c, which is beside this module, into `directory`; return the program."""
    if shutil.which("gcc") is None:
        lacking("gcc")
    program = directory / name
    source = Path(__file__).with_name(f"{name}.c")
    subprocess.run(["gcc", "-O1", "-Wall", "-Werror", *options, "-o", program, source], check=True)
    return program


def injector() -> Path:
    """Return inject.c's program."""
    return _injector()


def injector_library() -> Path:
    """Return inject.c as a library, for a process that has been forked already."""
    return _injector("-shared", "-fPIC")


@functools.cache
def _injector(*options: str) -> Path:
    directory = Path(tempfile.mkdtemp(prefix="injector-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return compiled("inject", directory, *options)


@functools.cache
def write_bytecode() -> None:
    """Compile shardtool: whether a module's bytecode is there makes one call more or less."""
    assert compileall.compile_dir(REPOSITORY / "shardtool", quiet=1)
