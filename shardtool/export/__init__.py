"""Values of shards, old or new, into files that other programs read.

columns (which there are, and what they are called) -> windows (points of a series, put together
from its columns in bounded memory) -> a form (line protocol, 0.8's JSON, Parquet) -> target (a
file that has its name only once it is complete). run does it for many shards, each in a process
of its own.
"""
