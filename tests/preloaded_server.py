"""A process that has imported all of shardtool, and forks for each run that it is asked for.

    python -m tests.preloaded_server SOCKET

SOCKET is a descriptor's number; a request is a JSON object with the descriptors of stdout and
stderr, an answer the exit status. Half of the time of a run is the start of Python and imports,
which are the same each time: tests that make a thousand runs spare them.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import importlib
import json
import os
import pkgutil
import socket
import subprocess
import sys
import threading
import traceback
from pathlib import Path
from typing import Any, NoReturn

import shardtool
from shardtool.cli.app import program

LONGEST = 1 << 20
"""Bytes of a request."""
_PR_SET_CHILD_SUBREAPER = 36
TROUBLE = 125
"""With which a run ends that did not come to shardtool's first line, or can't be struck."""


def main() -> None:
    """Answer requests until whoever makes them has gone."""
    channel = socket.socket(fileno=int(sys.argv[1]))
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)  # the parent of what outlives its own
    if os.getpid() == 1:
        _leave_mounts()
    for module in pkgutil.walk_packages(shardtool.__path__, "shardtool."):
        # obstore has threads, and a fork has none of them.
        if (
            not module.name.startswith("shardtool.snapshots.remote")
            and "__main__" not in module.name
        ):
            importlib.import_module(module.name)
    for name in ("re2", "rocksdict"):
        importlib.import_module(name)
    assert len(os.listdir("/proc/self/task")) == 1, "a fork would have one thread of several"
    gc.freeze()  # what is never looked at by the collector is shared with all that are forked
    while True:
        request, descriptors, _, _ = socket.recv_fds(channel, LONGEST, 2)
        if not request:
            return
        status = _forked(json.loads(request), descriptors, channel)
        for descriptor in descriptors:
            os.close(descriptor)
        channel.send(str(status).encode())


def _leave_mounts() -> None:
    """Let go, in a namespace of our own, of what other tests have mounted: they unmount it."""
    # tempfile looks for its place once: in each run, and not here for all of them.
    temporary = (f"{os.environ.get('TMPDIR', '/tmp')}/", "/dev/shm/")
    for line in Path("/proc/self/mounts").read_text().splitlines():
        place = line.split()[1]
        if place.startswith(temporary):
            subprocess.run(["umount", "--lazy", place], check=False, capture_output=True)


def _forked(request: dict[str, Any], descriptors: list[int], channel: socket.socket) -> int:
    """Fork the run that was asked for; return how it ended, as os.waitpid has it."""
    # C takes these words apart where they are.
    words = [ctypes.create_string_buffer(os.fsencode(word)) for word in request["injection"]]
    library = ctypes.PyDLL(request["library"]) if words else None
    ours, theirs = socket.socketpair()
    supervisor, child = os.getpid(), os.fork()
    if not child:
        try:
            channel.close()
            ours.close()
            _prepare(request, descriptors)
            if library is not None:
                library.be_supervised(theirs.fileno(), supervisor, words[0])
            theirs.close()
        except:  # noqa: E722  whatever it is, it must not get into the loop that forks
            traceback.print_exc()
            os._exit(TROUBLE)
        _be_shardtool()
    theirs.close()
    with ours:
        if library is not None:
            pointers = (ctypes.c_void_p * 4)(*map(ctypes.addressof, words[1:]))
            status = int(library.supervise(ours.fileno(), child, pointers))
        else:
            status = os.waitpid(child, 0)[1]
    # As whoever reads a pipe to its end, we wait for the children of what was killed: they have
    # its locks for a moment.
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)
    return status


def _prepare(request: dict[str, Any], descriptors: list[int]) -> None:
    """Make this process one that was started for a request."""
    with open(os.devnull) as nothing:
        for number, descriptor in enumerate([nothing.fileno(), *descriptors]):
            os.dup2(descriptor, number)
    for descriptor in descriptors:
        os.close(descriptor)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    sys.argv = ["shardtool", *request["words"]]


def _be_shardtool() -> NoReturn:
    """Do what the installed command does, and of the interpreter's end what can be seen."""
    code: object = 1
    try:
        program()
    except SystemExit as end:
        code = end.code
    except:  # noqa: E722  what the interpreter catches at its end: in here it has none
        traceback.print_exc()
    # What the interpreter calls first of all at its end, and has no public name for.
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else TROUBLE)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    main()
