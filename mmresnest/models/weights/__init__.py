"""Weights: find, read, match, convert, load."""
