"""Trained models on the Hugging Face hub: what is published of a run, its card, push and pull.

Imports utils, evaluation, report, config and engine.
"""
