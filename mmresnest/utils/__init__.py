"""Helpers that know nothing of networks or data sets.

Imports nothing of ours but errors; neither torch nor an mm library.
"""
