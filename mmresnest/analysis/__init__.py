"""Measure and check what goes into a run: data, operations, memory, time.

Imports engine, config, models, data, inference, visualization, compat and utils; not export.
"""
