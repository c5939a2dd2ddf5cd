"""Predict: inputs, predictors, results, outputs. ``exported`` needs neither torch nor mm."""
