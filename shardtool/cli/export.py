"""`shardtool export`: shards as line protocol, 0.8's JSON or Parquet."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from shardtool.cli import exits
from shardtool.cli.api import add_api
from shardtool.cli.exported import document_of, show, warn_of
from shardtool.cli.lost import opened_seeker
from shardtool.cli.options import named_shards
from shardtool.cli.output import Output
from shardtool.cli.progress import Progress
from shardtool.cli.proving import API
from shardtool.datadir.inventory import Inventory, take_inventory
from shardtool.datadir.layout import Layout, find_layout
from shardtool.errors import InterruptedByUserError, UsageError
from shardtool.export.columns import NOTHING_KNOWN, Selection
from shardtool.export.forms import Form
from shardtool.export.jobs import Jobs
from shardtool.export.line import Style
from shardtool.export.run import Report, export
from shardtool.export.target import STDOUT, is_stdout, is_stream, left_of, place_of
from shardtool.export.work import Job, Outcome, Wanted
from shardtool.influxdb.catalogue import Catalogue, CatalogueError, read_catalogue
from shardtool.influxdb.regex import compiled
from shardtool.proof.prove import Finding

DESCRIPTION = """\
Writes the values of old shards (and of new ones, with --new) into a file that
other programs read: line protocol, which a database of today takes, InfluxDB
0.8's own JSON, or Parquet. Reads from disk alone, through links, and changes
nothing below the data directory; a server may run meanwhile. The file has its
name only once it is complete.

What the format can't hold is never changed and never dropped in silence: it
goes to FILE.left, a JSON line a value, with the reason, and the exit code is 3.
--left names another file for that; with a stream there is none but this one.
A column that two series can claim by its name in the shard's index (a `~` in
one; rescue sends no such) is in the file under the likeliest name; a warning
and "ambiguous" in --json say so, and the exit code is 3.
A shard that can't be read ends there; what was read of it and all others are in
the file, and the exit code is 3.

With --lost it writes only what is in old shards and nowhere else: each value is
looked for in the new storage first, as verify does, and those are written that
are missing there or different (as the old shard has them), for whatever cause.
This is the way out for what rescue can't send; of a shard that is still to be
migrated it is all that is in it. Of a shard that can't be compared nothing is
written, and the exit code is 3. Where nothing is lost, the file has no values,
and the exit code is 0."""

EPILOG = """\
formats, by the name of FILE (before .gz or .zst), or by --format:
  line     .line .lp .txt    a line for each point, nanoseconds, the types that
                             0.8 had; for influx -import, influx write and
                             POST /write. A line longer than 4,000 characters
                             goes on in a next one with the same tags and time,
                             of which a database makes one point.
  json     .json .jsonl      a document a line, each of which
                             POST /db/DB/series?time_precision=u takes. What
                             0.8 would round (times and sequence numbers beyond
                             2^53) or refuse (times that are no year of RFC
                             3339) goes to FILE.left.
  parquet  .parquet          a row a value: database, series, column, time (us,
                             UTC), sequence_number and value_float, value_int,
                             value_bool or value_string (the others are null).
                             Needs pip install 'shardtool[parquet]'.
A file of line or json holds one database: choose it with --database. NaN and
the infinities are in parquet alone. In line a field has one type, that of its
first value: a database takes no other, and refuses all of a request for one.
Values of other types go to FILE.left; see --floats.

--sequence, in line protocol, where a series may have points of one time:
  auto   a tag sequence_number on points that share their time, on no others:
         every value arrives, and a database gets few series
  tag    a tag on each point, which makes each a series of its own
  field  a field beside the others; later points of a time go to FILE.left
  none   not at all; later points of a time go to FILE.left
Points of one time are found in whatever shards of one run they are. Lost values
that go into one database with an export of --new need tag in both: only what is
in one file can be seen to share its time.

A value that several of the shards have (old ones and the new ones that they
were copied to, say) goes out once; where their contents differ, the last
shard's goes out (of two that with the larger number, new ones being later than
old ones), and the others go to FILE.left. Where a shard can't be compared with
another of the same series and times, it is told as not-compared, and the exit
code is 3.

examples:
  shardtool export --database test --to test.lp.gz
  shardtool export --lost --to lost.parquet
  shardtool export 7 12 --series '^cpu' --from 2014-01-01 --to cpu.parquet
  shardtool export --database test --format line --to - |
      curl --data-binary @- 'http://localhost:8086/write?db=test'
  influx -import -compressed -path test.lp.gz  (the database must be there)"""

_FORMATS: dict[str, Form] = {
    ".line": "line",
    ".lp": "line",
    ".txt": "line",
    ".json": "json",
    ".jsonl": "json",
    ".parquet": "parquet",
}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = 1_000_000
_NUMBER = re.compile(r"-?\d{1,19}", re.ASCII)
_DAY = re.compile(r"\d{8}", re.ASCII)  # 20140131


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what only this command takes."""
    parser.add_argument(
        "shards",
        nargs="*",
        metavar="SHARD",
        help="numbers of old shards (default: all, or none where --new is given)",
    )
    parser.add_argument(
        "--new",
        action="append",
        default=[],
        metavar="SHARD",
        help="number of a new shard; 'all' for each that raft knows; may be repeated",
    )
    parser.add_argument(
        "--lost",
        action="store_true",
        help="only values of old shards that are not in the new storage; see above",
    )
    parser.add_argument("--to", metavar="FILE", required=True, help="the file; - for stdout")
    parser.add_argument(
        "--left", metavar="FILE", help="the list of what can't go out (default: FILE.left)"
    )
    parser.add_argument(
        "--force", action="store_true", help="replace FILE, and FILE.left, if they are there"
    )
    parser.add_argument("--format", choices=("line", "json", "parquet"), help="see below")
    parser.add_argument(
        "--database", action="append", default=[], metavar="DB", help="only this one; repeatable"
    )
    parser.add_argument(
        "--series", metavar="REGEX", help="only series that it matches (RE2, as 0.8's spaces)"
    )
    parser.add_argument(
        "--from",
        dest="from_us",
        type=microseconds_of,
        metavar="TIME",
        help="only values from then on: 2014-01-31, 2014-01-31T12:00:00Z, or us since 1970 "
        "(20140131 is a day)",
    )
    parser.add_argument(
        "--until", dest="until_us", type=microseconds_of, metavar="TIME", help="only those before"
    )
    parser.add_argument(
        "--sequence",
        choices=("auto", "tag", "field", "none"),
        help="where line protocol gets the sequence number (default: auto, see below)",
    )
    parser.add_argument(
        "--floats",
        action="store_true",
        help="line protocol: write integers as floats, for columns that hold both",
    )
    parser.add_argument(
        "--line-feeds",
        action="store_true",
        help="line protocol: write strings with line feeds too; POST /write takes them, "
        "influx -import would double them",
    )
    add_api(parser, about=f"with --lost: {API}")


def run(args: argparse.Namespace, out: Output) -> int:
    """Write the file, and show what is in it and what is not."""
    form = _form(args)
    _check_options(args, form, out)
    layout = find_layout(args.data, args.influx_config, dict(os.environ))
    _check_places(args, layout)
    inventory = take_inventory(layout)
    selection = _selection(args)
    style = Style(args.sequence or "auto", args.floats, args.line_feeds)
    findings: Mapping[str, Finding] | None = None
    with contextlib.ExitStack() as stack:
        if args.lost:
            seeker = stack.enter_context(opened_seeker(args, layout, inventory, out))
            catalogue, findings = seeker.setting.catalogue, seeker.findings
            jobs = _jobs(args, layout, inventory, catalogue)
            wanted = Wanted(selection, form, style, catalogue, seeker.values.chosen)
            first = partial(seeker.prove, jobs.readable)
        else:
            catalogue = _catalogue(layout, args, out)
            jobs = _jobs(args, layout, inventory, catalogue)
            wanted = Wanted(selection, form, style, catalogue)
            first = None
        if not jobs.readable and not jobs.others:
            out.warn("there is no shard to read: the file has no values")
        report = _exported(args, jobs, wanted, first, out)
    warn_of(report, out)
    if out.as_json:
        out.document("export", document_of(report, findings))
    else:
        show(report, args, out)
    return exits.DONE if report.is_whole else exits.ATTENTION


def _exported(
    args: argparse.Namespace,
    jobs: Jobs,
    wanted: Wanted,
    first: Callable[[], Mapping[Path, Outcome]] | None,
    out: Output,
) -> Report:
    """Write the file, with a progress bar."""
    with _Screen(jobs.readable, out) as screen:
        try:
            report = export(
                jobs.readable,
                wanted,
                args.to,
                force=args.force,
                progress=screen.progress,
                left=args.left,
                first=first,
            )
        except KeyboardInterrupt:  # InterruptedByUserError is one
            raise InterruptedByUserError(_interrupted(args.to)) from None
    report.outcomes += jobs.others
    return report


def microseconds_of(text: str) -> int:
    """Given a time as people write it, UTC unless it says otherwise, return us since the epoch.

    Examples: '2014-01-31', '2014-01-31T12:00:00+01:00', '1391169600000000'.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    if _NUMBER.fullmatch(text) and not _DAY.fullmatch(text):
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        since = moment - _EPOCH
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(
            f"expected a time such as 2014-01-31, 2014-01-31T12:00:00Z or microseconds since "
            f"1970, found {text!r}"
        ) from None
    return (since.days * 86_400 + since.seconds) * _MICROSECOND + since.microseconds


def _check_options(args: argparse.Namespace, form: Form, out: Output) -> None:
    """Refuse words that contradict each other, or that do nothing.

    Raises:
        UsageError: there are such.
    """
    args.to = STDOUT if is_stdout(args.to) else args.to
    if args.to == STDOUT and out.as_json:
        raise UsageError("--to - and --json both want stdout; give one of them")
    if args.left is not None and is_stdout(args.left):
        raise UsageError("--left: expected a file, found stdout, which has what is shown")
    if args.lost and args.new:
        raise UsageError("--lost is what new shards lack, and --new wants those; give one of them")
    if args.api is not None and not args.lost:
        raise UsageError("--api is asked only for what --lost looks for; say --lost too")
    useless = {
        "--sequence": args.sequence,
        "--floats": args.floats,
        "--line-feeds": args.line_feeds,
    }
    for option, value in useless.items():
        if value and form != "line":
            raise UsageError(
                f"{option} is for line protocol alone, and this is {form}; leave it out"
            )
    if None not in (args.from_us, args.until_us) and args.from_us >= args.until_us:
        raise UsageError("--from: expected a time before --until's, found none between the two")


def _form(args: argparse.Namespace) -> Form:
    name = str(args.to)
    packed = name.endswith((".gz", ".zst"))
    by_name = _FORMATS.get(Path(_unpacked(name)).suffix)
    form: Form | None = args.format or by_name
    if by_name not in (None, form):
        raise UsageError(
            f"{name}: its name says {by_name}, and --format {form}; change one of them"
        )
    if form is None:
        raise UsageError(
            f"{name}: expected a name that ends in one of {' '.join(_FORMATS)} (then .gz or "
            ".zst, or not); say --format"
        )
    if form == "parquet" and packed:
        raise UsageError(f"{name}: Parquet is compressed in itself; leave out .gz or .zst")
    return form


def _unpacked(name: str) -> str:
    return name.removesuffix(".gz").removesuffix(".zst")


def _check_places(args: argparse.Namespace, layout: Layout) -> None:
    """Refuse to write among InfluxDB's own files.

    Raises:
        UsageError: a file would be there.
    """
    files = {args.to: place_of(args.to)} if not is_stream(args.to) else {}
    if args.left is None:
        # As export makes it: a link of that name is replaced.
        files |= {left_of(name): place_of(left_of(name), follows=False) for name in files}
    elif not is_stream(args.left):
        files[args.left] = place_of(args.left)
    if args.left is not None and place_of(args.left) == place_of(args.to):
        raise UsageError(f"{args.left}: --left and --to name one file; give two")
    for name, path in files.items():
        layout.refuse_inside(name, path)


def _selection(args: argparse.Namespace) -> Selection:
    pattern = None
    if args.series is not None:
        pattern = compiled(args.series)
        if pattern is None:
            raise UsageError(f"--series {args.series!r}: expected a regex of RE2's, found none")
    return Selection(frozenset(args.database), pattern, args.from_us, args.until_us)


def _catalogue(layout: Layout, args: argparse.Namespace, out: Output) -> Catalogue:
    """Return what raft knows; nothing, and a line, where that can't be told and is not needed."""
    try:
        return read_catalogue(layout.raft)
    except CatalogueError as error:
        if args.new:
            raise
        out.warn(
            f"{error}. The old shards' own names are used: where one has more than two ~, its "
            "database is taken to end at the first"
        )
        return NOTHING_KNOWN


def _jobs(
    args: argparse.Namespace, layout: Layout, inventory: Inventory, catalogue: Catalogue
) -> Jobs:
    jobs = Jobs(layout, inventory)
    if args.shards or not args.new:
        jobs.add_old(named_shards(args.shards, (s.name for s in inventory.old or ()), layout))
    jobs.add_new(args.new, catalogue)
    return jobs


class _Screen:
    """The progress bar: bytes of shards, as far as their columns were read."""

    def __init__(self, jobs: Sequence[Job], out: Output) -> None:
        self._bar = Progress("exporting", sum(job.size for job in jobs), unit="bytes", out=out)
        self._done: dict[Path, int] = {}
        self._values: dict[Path, int] = {}

    def __enter__(self) -> _Screen:
        self._bar.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.__exit__(None, None, None)

    def progress(self, job: Job, values: int, part: float) -> None:
        done = int(job.size * part)
        step = max(done - self._done.get(job.path, 0), 0)
        self._done[job.path] = self._done.get(job.path, 0) + step
        self._values[job.path] = values
        self._bar.advance(step, f"{sum(self._values.values()):,} values")


def _interrupted(name: str) -> str:
    if is_stream(name):
        return "interrupted; what was written is not all of it"
    return f"interrupted; nothing incomplete was left of {name}"
