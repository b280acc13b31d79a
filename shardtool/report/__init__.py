"""The report: what is known of a node, or of several merged, for a screen, a script or a ticket.

Facts (look) -> document (model) -> one view of all nodes (merge) -> text or page. Nothing here
changes anything, proves anything or takes a lock.
"""
