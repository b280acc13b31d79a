"""What commands that speak to a running InfluxDB share: --api, --user, --password-file."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from shardtool.datadir.config import setting
from shardtool.datadir.layout import Layout
from shardtool.errors import UsageError

if TYPE_CHECKING:
    from shardtool.influxdb.api import Api
    from shardtool.influxdb.credentials import Credentials

_USUAL_PORT = 8086


class Login(NamedTuple):
    """Which server to ask, and as whom."""

    url: str
    credentials: Credentials


def add_api(parser: argparse.ArgumentParser, *, about: str) -> None:
    """Add --api, --user and --password-file.

    Args:
        parser: of the command.
        about: what the command asks the server for, after 'URL of a server'.
    """
    parser.add_argument("--api", metavar="URL", help=about)
    parser.add_argument("--user", metavar="NAME", help="cluster admin to log in as (default: root)")
    parser.add_argument(
        "--password-file",
        metavar="FILE",
        help="holds the password; otherwise it is taken from $SHARDTOOL_PASSWORD, from the file "
        "$SHARDTOOL_PASSWORD_FILE, or asked for",
    )


def login_of(args: argparse.Namespace, layout: Layout | None, *, default: bool) -> Login:
    """Return what --api, --user and the password's ways say; nothing is sent.

    Args:
        args: the command line, with what add_api adds.
        layout: the node, whose config.toml may name the port; None where there is none.
        default: without --api, the server is the one on this machine.

    Raises:
        UsageError: there is no server to ask, or no password.
    """
    from shardtool.influxdb.credentials import base_url, credentials

    if args.api is not None:
        url = base_url(args.api)
    elif default:
        url = f"http://localhost:{_port_of(layout)}"
    else:
        raise UsageError("no server to ask: say --api URL, such as http://localhost:8086")
    return Login(url, credentials(args.user, dict(os.environ), password_file=args.password_file))


@contextlib.contextmanager
def opened_api(args: argparse.Namespace, layout: Layout | None, *, default: bool) -> Iterator[Api]:
    """Yield the API that the command line means; see login_of. Nothing is sent yet.

    Raises:
        UsageError: there is no server to ask, or no password.
    """
    from shardtool.influxdb.api import Api

    login = login_of(args, layout, default=default)
    with Api(login.url, *login.credentials) as api:
        yield api


def _port_of(layout: Layout | None) -> int:
    """Return the port that the node's config.toml gives the API ([api] port), or the usual one."""
    port = None if layout is None else setting(layout.config, "api", "port")
    return port if type(port) is int and 0 < port < 65_536 else _USUAL_PORT
