"""Measure and check what goes into a run: data, operations, memory, time.

May import engine, config, models, data, inference, utils.
"""
