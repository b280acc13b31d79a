"""Snapshots of raft, wal and config.toml: take, list, verify, restore, forget.

Knows where a node's files are and how a snapshot is laid out; must not know what a shard is.
"""
