"""Predict: inputs, predictors, results, outputs.

Imports engine, config, models, data, visualization and utils; not export. The runner of exported
files (:mod:`.exported`) and what it needs import neither torch nor an mm library.
"""
