"""Snapshots in a bucket of an S3 server: the same bags, one object for each file.

The tag manifest goes last and leaves first: an id without it is no snapshot. obstore, an extra,
is imported in remote.bucket alone.
"""
