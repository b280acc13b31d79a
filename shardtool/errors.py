"""The one exception tree. cli.exits turns each class into its exit code; nothing else does.

A message is one line that names the path, what was expected, what was found and what to do.
"""

from __future__ import annotations

import os


class ShardtoolError(Exception):
    """It failed: the line to print says what and what to do."""


class UsageError(ShardtoolError):
    """The words on the command line can't mean anything: wrong, missing or contradicting."""


class BusyError(ShardtoolError):
    """Another shardtool or a running server is in the way; later it may work."""


class AnotherShardtoolError(BusyError):
    """The one in the way is another shardtool: no trouble, it is doing its work."""


class InterruptedByUserError(KeyboardInterrupt):
    """Ctrl-C, SIGTERM or SIGHUP arrived; what was under way has been left as documented.

    No ShardtoolError: it arrives anywhere, and whoever goes on after a failure must not go on
    after this.
    """


def reason_of(error: OSError) -> str:
    """Given an OSError, return its reason alone: 'Permission denied', without number or path."""
    return os.strerror(error.errno) if error.errno else error.strerror or str(error)


def placed(error: OSError, default: object = "") -> str:
    """Given an OSError, return it as 'PATH: Permission denied'.

    Args:
        error: a descriptor's number, which it has of os.listdir(3) for instance, is no path.
        default: the path where it has none; empty for the reason alone.
    """
    path = default
    if error.filename and not isinstance(error.filename, int):
        path = os.fsdecode(error.filename)
    return f"{path}: {reason_of(error)}" if path else reason_of(error)
