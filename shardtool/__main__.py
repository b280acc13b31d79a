"""`python -m shardtool`."""

from shardtool.cli.app import program

program()
