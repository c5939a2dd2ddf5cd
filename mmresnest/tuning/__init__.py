"""Sweeps: many trainings of one config that differ in a few options, chosen and pruned by Optuna.

Imports utils, models, config, engine and report. Each training is a process of its own.
"""
