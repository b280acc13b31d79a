"""The same work side by side with the tools that people would use instead.

Ratios from one run, never a time by itself: the machines are small and noisy.
"""
