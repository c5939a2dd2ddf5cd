"""Helpers that know nothing of networks or data sets.

Import neither torch nor mm at module level.
"""
