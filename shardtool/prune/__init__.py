"""Deleting old shards. Read it in this order: policy, plan, execute.

trash knows where shards wait for their removal and what an interrupted run left there.
"""
