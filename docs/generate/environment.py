"""The environment variables, each with what it does; a command has those that its help names."""

from __future__ import annotations

import re

from docs.generate.facts import Command

ALWAYS = ("SHARDTOOL_DATA", "SHARDTOOL_LOG_FORMAT", "SHARDTOOL_DEBUG", "NO_COLOR", "TMPDIR")
"""What counts for all commands."""
MEANINGS = {
    "SHARDTOOL_DATA": "the data directory where neither --data nor --influx-config is given",
    "SHARDTOOL_LOG_FORMAT": "text or json; --log-format goes before it",
    "SHARDTOOL_DEBUG": "with any value, a mistake in shardtool itself ends in a traceback",
    "NO_COLOR": "with any value, no colours",
    "SHARDTOOL_SNAPSHOTS": "the snapshot directory, or s3://BUCKET/PREFIX, where no option names "
    "one",
    "SHARDTOOL_PASSWORD": "the password of the cluster admin",
    "SHARDTOOL_PASSWORD_FILE": "a file that holds that password; --password-file goes before both",
    "TMPDIR": "where temporary files are, instead of /dev/shm or /tmp (links to shards' files), "
    "/tmp (lost values) and /var/tmp (snapshots for and from s3://)",
    "AWS_ACCESS_KEY_ID": "for s3://: the key, with AWS_SECRET_ACCESS_KEY",
    "AWS_SECRET_ACCESS_KEY": "for s3://: the key's secret",
    "AWS_SESSION_TOKEN": "for s3://: the token of a temporary key",
    "AWS_PROFILE": "for s3://: a profile of ~/.aws/credentials and ~/.aws/config",
    "AWS_REGION": "for s3://: the bucket's region",
    "AWS_ENDPOINT_URL": "for s3://: the server, where it is not AWS's",
    "AWS_CA_BUNDLE": "for s3://: the certificates of private authorities",
}
_NAME = re.compile(
    r"(?<![A-Za-z_])(?:SHARDTOOL_[A-Z_]+|AWS_[A-Z_]*[A-Z]|TMPDIR|NO_COLOR)(?![A-Z_])"
)


def variables_of(command: Command) -> dict[str, str]:
    """Return the variables that a command heeds, each with what it does.

    Raises:
        KeyError: its help names one that MEANINGS has not.
    """
    named = dict.fromkeys((*ALWAYS, *_NAME.findall(command.texts)))
    return {name: MEANINGS[name] for name in named}
