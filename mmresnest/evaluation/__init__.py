"""Scores: metrics for mmdet and mmseg, matching, predictions of a split.

Imports utils, visualization, registry and mm libraries; neither engine nor models.
"""
