"""The few primitives that must be right: durable writes, dir_fd walk and removal, copy.

Knows files, directories and file systems; must not know what a shard or a snapshot is.
"""
