"""The exit codes, and the one place where an error becomes one."""

from __future__ import annotations

from shardtool.errors import BusyError, ShardtoolError, UsageError

DONE = 0
FAILED = 1
USAGE = 2
ATTENTION = 3  # done, but something is not as it should be
BUSY = 4
INTERRUPTED = 130
UNKNOWN = 3  # of a monitoring plugin, which has codes of its own: 0 to 2 are what it found

TABLE = """\
exit codes:
  0    done, or nothing to do
  1    it failed
  2    wrong usage
  3    done, but something is not as it should be: values are missing, a marked
       shard was kept, a shard is suspect or unreadable, a snapshot is damaged,
       a blocker is left, InfluxDB logged errors while it migrated
  4    busy: another shardtool or a running server is in the way
  130  interrupted"""


MEANINGS = {
    FAILED: "it failed",
    USAGE: "wrong usage",
    ATTENTION: "done, but something is not as it should be",
    BUSY: "busy: a running server is in the way",
    INTERRUPTED: "interrupted",
}


def code_of(error: ShardtoolError) -> int:
    """Given an error, return the exit code that is documented for it."""
    if isinstance(error, UsageError):
        return USAGE
    if isinstance(error, BusyError):
        return BUSY
    return FAILED
