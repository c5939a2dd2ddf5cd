"""The page of a run: sections, figures and a gallery, from its logs and predictions.

Imports utils, visualization and evaluation; neither torch nor an mm library.
"""
