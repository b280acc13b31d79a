"""Where a node's data lies and what is there: facts, and the verdict that follows from them.

Reads and changes nothing. Must not know of deleting, of snapshots or of the terminal.
"""
