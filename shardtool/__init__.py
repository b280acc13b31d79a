"""shardtool: takes InfluxDB nodes from 0.7 to 0.8 and gives the disk back.

Data flows one way through the packages: facts (datadir, disk), verdict (datadir.verdict),
plan (prune.plan), act (prune.execute, snapshots), tell (cli).
"""

__version__ = "0.1.0"
