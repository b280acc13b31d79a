"""The entry point: find the command, run it, turn whatever happens into an exit code.

argparse, and command modules imported only when they are called: the whole `shardtool status`
is measured against `du -s`, and typer's import alone takes a seventh of that time.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from typing import Any, NoReturn, TextIO

from shardtool import __version__
from shardtool.cli import exits, options
from shardtool.cli.interrupts import Interrupts
from shardtool.cli.options import Manner, manner_of
from shardtool.cli.output import Log, Output
from shardtool.errors import (
    AnotherShardtoolError,
    InterruptedByUserError,
    ShardtoolError,
    UsageError,
    placed,
    reason_of,
)

# Each is a module of this package with DESCRIPTION, EPILOG, add_arguments(parser) and
# run(args, out) -> exit code. The words here are what `shardtool --help` shows.
COMMANDS = {
    "status": "where am I, what is next, what could I get back",
    "check": "is it safe to take the next step, and what would be lost by it",
    "backup": "copy raft, wal and config.toml into a verified snapshot",
    "snapshots": "list snapshots, or read them again and verify them",
    "restore": "put a snapshot's raft and wal back, or elsewhere",
    "forget": "remove old snapshots, never the last verified one",
    "spaces": "shard spaces: list them, make them in order, explain a series",
    "migrate": "start 0.8's migration and follow it to its end",
    "verify": "prove value by value that old shards are in the new storage",
    "export": "write shards as line protocol, 0.8's JSON or Parquet",
    "rescue": "send what the migration left behind to the running 0.8",
    "accept": "say that a shard may go although it loses values",
    "prune": "delete old shards that the new storage has",
    "report": "one view of it all, of one node or several; a page for a ticket",
    "history": "what was done, when, on what evidence",
}

# What the completion of a shell asks: it has no help, for people have no use for it.
COMPLETE = "--complete"

DESCRIPTION = """\
Takes an InfluxDB node from 0.7 to 0.8 and gives the disk back without losing a
value.

0.8 copies each old shard (db/shard_db) into new ones (db/shard_db_v2), writes a
MIGRATED file into the old one and leaves it on disk. That file does not say
that the data is safe: on real directories half of the marked shards held values
that exist nowhere else."""

MORE = """\
examples:
  shardtool status
  shardtool --data /srv/influxdb check
  shardtool --influx-config /opt/influxdb/shared/config.toml status --quiet

A man page for each command: man shardtool, man shardtool-prune.
Documentation: docs/README.md in the source, a page for each command."""


class _Parser(argparse.ArgumentParser):
    """argparse's, with errors of one line and help that keeps our line breaks."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(
            formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **settings
        )

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see {self.prog} --help")


def program() -> NoReturn:
    """Be the program: run the command that sys.argv asks for, and end with its exit code."""
    code = main()
    if "obstore" in sys.modules:
        # Its threads outlive its work, and one that meets an interpreter which is being taken down
        # aborts the process: an exit code of its own, after all was done. All is flushed by now.
        os._exit(code)
    sys.exit(code)


def main() -> int:
    """Run the command that sys.argv asks for and return its exit code; never raise."""
    try:
        return _main()
    except KeyboardInterrupt:  # before the command had begun: its manner was still being imported
        Interrupts.end()
        manner = manner_of(sys.argv[1:], os.environ)
        if manner.nagios:
            print("SHARDTOOL UNKNOWN - interrupted", flush=True)
            return exits.UNKNOWN
        log = Log(as_json=manner.log_as_json)
        log.tell("interrupted", level="warning", exit_code=exits.INTERRUPTED)
        return exits.INTERRUPTED


def _main() -> int:
    # A stream that was closed (`>&-`) is None here, and whatever printed to it would fail.
    sys.stdout, sys.stderr = sys.stdout or _nowhere(), sys.stderr or _nowhere()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    if sys.argv[1:2] == [COMPLETE]:
        from shardtool.cli import completing

        return completing.run(sys.argv[2:])  # with a signal's handler of its own
    Interrupts()
    manner = manner_of(sys.argv[1:], os.environ)
    if manner.mail:
        from shardtool.cli.mail import Held

        with Held(log_as_json=manner.log_as_json) as held:
            code = held.code = _ended(manner, held.log)
        return _flushed(code, manner, Log(as_json=manner.log_as_json, command=held.log.command))
    log = Log(as_json=manner.log_as_json)
    if manner.nagios:
        from shardtool.cli.plugin import PluginLog

        log = PluginLog()
    return _flushed(_ended(manner, log), manner, log)


def _ended(manner: Manner, log: Log) -> int:
    """Run the command to its end, and have no signal disturb what comes after; return the code."""
    try:
        code = _guarded(manner, log)
    except KeyboardInterrupt:  # InterruptedByUserError is one
        code = exits.INTERRUPTED  # while something else was being told
    except SystemExit:  # argparse has shown a help or the version
        # Whoever takes that for the answer of a plugin would take it for "all is well".
        code = exits.UNKNOWN if manner.nagios else exits.DONE
    Interrupts.end()  # it is over: the code stands
    if manner.nagios and (log.has_ended or code == exits.INTERRUPTED):
        return exits.UNKNOWN
    log.end(code)
    return code


def _flushed(code: int, manner: Manner, log: Log) -> int:
    """Write out what was printed; return the exit code, which that may change."""
    error = _flush(sys.stdout)
    if error is not None:
        if code == exits.DONE and not isinstance(error, BrokenPipeError):
            log.tell(reason_of(error), level="error", exit_code=exits.FAILED)
        code = exits.UNKNOWN if manner.nagios else code or exits.FAILED
    _flush(sys.stderr)  # where it can't be written there is nobody to tell
    return code


def _flush(stream: TextIO) -> OSError | None:
    """Write what a stream holds; return why that failed. Nothing of it is tried again: the
    interpreter would when it exits, say so in its own words and end with a code of its own."""
    try:
        stream.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return error
    return None


def _nowhere() -> TextIO:
    return open(os.devnull, "w")


def _guarded(manner: Manner, log: Log) -> int:
    """Run the command; turn whatever it raises into a message and an exit code."""

    def fail(text: str, code: int, level: str = "error") -> int:
        log.tell(text, level=level, exit_code=code)
        return code

    try:
        return _run(sys.argv[1:], manner, log)
    except BrokenPipeError:
        # Whoever read us has gone (`shardtool status | head`), and people know that.
        if log.as_json or manner.nagios:
            fail("whoever read the output has gone", exits.FAILED, "info")
        return exits.FAILED
    except AnotherShardtoolError as error:
        return fail(str(error), exits.BUSY, "info")
    except ShardtoolError as error:
        return fail(str(error), exits.code_of(error))
    except InterruptedByUserError as error:
        return fail(str(error), exits.INTERRUPTED, "warning")
    except KeyboardInterrupt:
        return fail("interrupted", exits.INTERRUPTED, "warning")
    except OSError as error:
        return fail(placed(error), exits.FAILED)
    except Exception as error:  # an operator gets a line, not a traceback
        if os.environ.get("SHARDTOOL_DEBUG"):
            raise
        return fail(
            f"a mistake in shardtool itself, nothing was done after it: {_kind_of(error)}; "
            "run it again with SHARDTOOL_DEBUG=1 and report what it prints",
            exits.FAILED,
        )


def _kind_of(error: Exception) -> str:
    """Return what an error is and where it arose, and nothing of what it holds.

    That may be a password or what a server sent: a UnicodeEncodeError holds the whole text.
    """
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    if place is None:
        return type(error).__name__
    code = place.tb_frame.f_code
    where = f"{os.path.basename(code.co_filename)}:{place.tb_lineno}"
    return f"{type(error).__name__} in {code.co_name} ({where})"


def _run(argv: list[str], manner: Manner, log: Log) -> int:
    parser = program_parser()
    args = parser.parse_args(argv)
    if args.command is None:
        if not manner.is_plain:
            parser.error("expected a command, found none")
        parser.print_help(sys.stderr)
        return exits.USAGE
    if args.command not in COMMANDS:
        raise UsageError(_no_such_command(args.command))
    log.command = args.command
    # Intermixed, so that `prune 7 --yes 8` means what it says.
    command_parser(args.command).parse_intermixed_args(args.rest, namespace=args)
    options.refuse_contradictions(args, manner)
    # A mail is not quiet: it is cut to its size, and what is wrong comes first.
    args.quiet = bool(args.quiet) and not manner.mail
    quiet = args.quiet or manner.nagios
    module = _module_of(args.command)
    code: int = module.run(
        args, Output(as_json=bool(args.json), quiet=quiet, log=log, mail=manner.mail)
    )
    return code


def command_parser(name: str) -> argparse.ArgumentParser:
    """Return the parser of what stands after a command's name, one of COMMANDS."""
    module = _module_of(name)
    parser = _Parser(prog=f"shardtool {name}", description=module.DESCRIPTION, epilog=module.EPILOG)
    module.add_arguments(parser)
    options.add_common(parser, default=argparse.SUPPRESS)
    return parser


def _module_of(name: str) -> Any:
    return importlib.import_module(f"shardtool.cli.{name}")


def program_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line up to the command's name."""
    listed = "\n".join(f"  {name:<10} {words}" for name, words in COMMANDS.items())
    parser = _Parser(
        prog="shardtool",
        usage="shardtool [--data DIR | --influx-config FILE] COMMAND ...",
        description=DESCRIPTION,
        epilog=f"commands (each has its own --help):\n{listed}\n\n{exits.TABLE}\n\n{MORE}",
    )
    parser.add_argument("command", nargs="?", metavar="COMMAND", help="one of those below")
    parser.add_argument("rest", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    parser.add_argument("--version", action="version", version=f"shardtool {__version__}")
    options.add_common(parser, default=None)
    return parser


def _no_such_command(name: str) -> str:
    import difflib

    near = difflib.get_close_matches(name, COMMANDS, 1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(COMMANDS)}"
    return f"there is no command {name!r}; {hint}"


if __name__ == "__main__":
    program()
