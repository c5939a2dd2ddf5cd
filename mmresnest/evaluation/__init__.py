"""Scores: metrics for mmdet and mmseg, matching, predictions of a split.

May import utils, registry and mm libraries.
"""
